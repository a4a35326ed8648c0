"""What torch.compile makes of a training under the recipes of the gpu profile: as JSON.

A program, so that no type checker stands between the compiler and the models.
"""

import copy
import functools
import json

import torch
from gpu_recipes import STEPS, hierarchy, nvae, sweep, vae
from torch._dynamo.utils import counters

from vaestudy.models import cells
from vaestudy.models.cells import Cell


def compiled(step):
    """The regions that training compiles on CUDA, traced without a break allowed."""
    whole = functools.partial(torch.compile, fullgraph=True, backend="eager")
    torch._dynamo.config.recompile_limit = 64
    if not hasattr(step, "model"):
        step.cost = whole(step.cost)
    elif hasattr(step.model, "compile_parts"):
        parts = whole(Cell.recomputing, dynamic=False)
        cells.compiled = lambda: parts
        step.model.compile_parts()
    else:
        step.net = whole(step.net)
    return step


def counted(name):
    """Graphs after one step and after ten, in which rates, warm-up and penalty change, and the last losses."""
    torch._dynamo.reset()
    counters.clear()
    make = {"vae": vae, "sweep": sweep, "nvae": nvae}[name]
    plain, step = make("cpu", precision="fp32"), compiled(make("cpu", precision="fp32"))
    graphs, losses = [], []
    for number in range(STEPS):
        for group in [*plain.optimizer.param_groups, *step.optimizer.param_groups]:
            group["lr"] = 1e-4 * (number + 1)
        losses.append([own(number, number / STEPS)[:, 0].tolist() for own in (plain, step)])
        graphs.append(counters["stats"]["unique_graphs"])
        torch._dynamo.config.error_on_recompile = True
    torch._dynamo.config.error_on_recompile = False
    return {"graphs": [graphs[0], graphs[-1]], "losses": losses, "breaks": sum(counters["graph_break"].values())}


def recomputed(mode):
    """Loss, gradients and statistics of a compiled step that recomputes, beside those of a plain one."""
    torch._dynamo.reset()
    counters.clear()
    model = hierarchy(checkpoint=mode, groups=(2,), flows=0, blocks=0).double()
    twin, x, found = copy.deepcopy(model), torch.rand(3, *model.shape).double(), []
    parts = torch.compile(Cell.recomputing, fullgraph=True, backend="aot_eager", dynamic=False)
    cells.compiled = lambda: parts
    twin.compile_parts()
    for own in (model, twin):
        torch.manual_seed(2)
        terms = own(x)
        (terms.nll + terms.kl.sum(0)).mean().backward()
        found.append([terms.nll, *(p.grad for p in own.parameters()), *own.buffers()])
        own.eval()
        with torch.no_grad():
            found[-1].append(own.encode(x[:2])[0])
    same = all(torch.allclose(a, b, rtol=1e-6, atol=1e-8) for a, b in zip(*found, strict=True))
    count = sum(isinstance(module, Cell) for module in model.modules())
    return {"same": same, "graphs": counters["stats"]["unique_graphs"], "cells": count}


if __name__ == "__main__":
    torch.set_num_threads(1)
    report = {name: counted(name) for name in ("vae", "sweep", "nvae")}
    print(json.dumps(report | {mode: recomputed(mode) for mode in ("norm_act", "cell")}))
