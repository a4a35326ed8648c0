"""torch.compile under the recipes of the gpu profile: no break, no second graph, and the numbers of the plain form."""

import json
from pathlib import Path

import pytest
import torch
from small_training import start

from vaestudy.models import NVAE, NVAEConfig
from vaestudy.models.cells import Cell

PROGRAM = Path(__file__).with_name("compile_regions.py")


@pytest.fixture(scope="module")
def report():
    """What the program says; fullgraph=True makes a break, and a recompilation, an error there."""
    process = start([PROGRAM])
    said, error = process.communicate()
    assert process.returncode == 0, error[-4000:]
    return json.loads(said.splitlines()[-1])


@pytest.mark.parametrize(("name", "most"), [("vae", 1), ("sweep", 1), ("nvae", 10)])
def test_rates_warm_up_and_penalty_make_no_further_graph(report, name, most):
    first, last = report[name]["graphs"]
    assert 1 <= first == last <= most  # NVAE: one for each kind and size of its 15 cells
    assert report[name]["breaks"] == 0
    for plain, compiled in report[name]["losses"]:
        assert compiled == pytest.approx(plain, rel=1e-4)
    losses = [plain[0] for plain, _ in report[name]["losses"]]
    assert len(set(losses)) == len(losses)


@pytest.mark.parametrize("mode", ["norm_act", "cell"])
def test_compiling_what_is_recomputed_changes_no_number(report, mode):
    assert report[mode]["same"]
    assert report[mode]["graphs"] < report[mode]["cells"]  # cells that are alike share one


@pytest.mark.parametrize("name", ["mnist", "cifar10", "celeba64", "ffhq256"])
def test_no_network_has_more_kinds_of_cells_than_the_compiler_keeps(name):
    with torch.device("meta"):
        model, kinds = NVAE(NVAEConfig.preset(name, checkpoint="norm_act")), set()

    def note(cell, inputs, output):
        kinds.add((tuple(inputs[0].shape), *(tuple(weight.shape) for weight in cell.parameters())))

    for cell in (module for module in model.modules() if isinstance(module, Cell)):
        cell.register_forward_hook(note)
    model.eval()(torch.zeros(2, *model.shape, device="meta"))
    assert len(kinds) < 64
