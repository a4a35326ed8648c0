"""Processes that train together: as one does, each its share, and on after one of them dies."""

import json
import math
import runpy
import socket
import sys
from contextlib import closing, nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_training import SHAPE, assert_same, fit, noise, small, start
from torch import nn

from vaestudy.errors import InputError
from vaestudy.models import VAE
from vaestudy.training import Grid, Job, Run, distributed, loop
from vaestudy.training.loop import Loop
from vaestudy.training.objective import LossTerms
from vaestudy.training.steps import Step

TOGETHER = """
import sys
import torch
from safetensors.torch import save_file
from small_training import noise, small
from vaestudy.models import NVAE, VAE, NVAEConfig
from vaestudy.models.layers import NormAct
from vaestudy.training import Grid, Training, distributed, fit, fit_many
from vaestudy.training.steps import ModelStep

folder = sys.argv[1]
torch.set_num_threads(1)
distributed.start()
torch.manual_seed(0)
x, weights = torch.randn(8, 3, 4, 4, dtype=torch.float32) * 2 + 1, torch.randn(8, 3, 4, 4)
own = slice(distributed.rank(), None, distributed.world())
norm = NormAct(3, "swish").train()
norm.gather = distributed.gather
part = x[own].clone().requires_grad_()
y = norm(part)
(y * weights[own]).sum().backward()
found = {"y": y, "x.grad": part.grad, "mean": norm.running_mean, "var": norm.running_var}
gradients = {"weight.grad": norm.weight.grad, "bias.grad": norm.bias.grad}
found |= {name: distributed.mean(value) * distributed.world() for name, value in gradients.items()}
found |= {name: distributed.gather(found[name].detach()).transpose(0, 1).flatten(0, 1) for name in ("y", "x.grad")}

for sync in (True, False):
    model = NVAE(NVAEConfig(shape=(1, 8, 8), channels=4, groups=(1, 1), latents=2, mixtures=2))
    recipe = Training(images=24, batch=8, micro_batches=2, sync_norm=sync, log_every=8, precision="fp32")
    fit(model, noise(count=40), recipe, f"{folder}/sync={sync}", device="cpu")
    found |= {f"{sync}: {name}": value.clone() for name, value in model.state_dict().items()}
if distributed.rank() == 0:
    save_file({name: value.detach().contiguous() for name, value in found.items()}, f"{folder}/found.safetensors")

step = ModelStep(VAE((1, 8, 8)), noise(), small(micro_batches=2), torch.device("cpu"))
for number in range(2):  # in the second one DDP agrees on the order of its messages
    step(number, 0.0)
if distributed.world() > 1 and distributed.rank() == 0:  # no other process takes this step
    step.together = False
    step(2, 0.1)
distributed.barrier()

members = fit_many(Grid((1, 2, 4), (2,)).jobs(noise(), small(), folder, network="linear"), device="cpu")
assert all(run.finished for run in members)
"""


def two(code, *arguments):
    """Two processes that know of each other, as `torchrun` starts them."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    address |= {"CUDA_VISIBLE_DEVICES": ""}
    return [start(code, *arguments, RANK=str(rank), **address) for rank in range(2)]


def ended(children):
    """What the processes have said in the end, on stdout and stderr; none outlives its test."""
    try:
        return [child.communicate(timeout=300) for child in children]
    finally:
        for child in children:
            child.kill()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """What the script above leaves behind when it runs in this process, and in two of its own."""
    alone, together = (tmp_path_factory.mktemp(name) for name in ("alone", "together"))
    script = alone / "script.py"
    script.write_text(TOGETHER)
    children = two([script], together)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["script.py", str(alone)])
        runpy.run_path(str(script))
    said = ended(children)
    assert [child.returncode for child in children] == [0, 0], said
    return alone, together


def test_batch_norm_of_two_processes_sees_the_batch_of_both(folders):
    alone, together = (load_file(folder / "found.safetensors") for folder in folders)
    for name in ("y", "x.grad", "mean", "var", "weight.grad", "bias.grad"):
        torch.testing.assert_close(together[name], alone[name], atol=1e-5, rtol=1e-4, msg=name)
    statistics = [name.removeprefix("True: ") for name in together if "True: " in name and "running" in name]
    assert statistics
    assert any(not torch.equal(together[f"True: {name}"], together[f"False: {name}"]) for name in statistics)


def test_two_processes_train_an_nvae_as_one_does(folders):
    alone, together = (load_file(folder / "found.safetensors") for folder in folders)
    weights = [name for name in alone if name.startswith("False: ") and "running" not in name]
    assert weights
    for name in weights:
        torch.testing.assert_close(together[name], alone[name], atol=1e-5, rtol=1e-4, msg=name)


def test_processes_share_the_members_of_a_sweep_out(folders):
    """Each of them is the work of one process alone, with whichever others that one trained."""
    for folder, at_once in zip(folders, ([3, 3, 3], [2, 1, 2]), strict=True):
        jobs = Grid((1, 2, 4), (2,)).jobs(noise(), small(), folder, network="linear")
        runs = [Run(job.run_dir, job.model) for job in jobs]
        assert [run.provenance["models_at_once"] for run in runs] == at_once
        assert [run.provenance["processes"] for run in runs] == [1, 1, 1]
    for name in ("True", "False"):
        records = [json.loads((folder / f"sync={name}" / "record.json").read_text()) for folder in folders]
        assert [record["provenance"]["processes"] for record in records] == [1, 2]
        alone, together = (record["training"] for record in records)
        assert "scaling_efficiency" not in alone
        lines = [json.loads(line) for line in (folders[1] / f"sync={name}" / "metrics.jsonl").read_text().splitlines()]
        assert len(lines) == 3
        assert all(0 < line["scaling_efficiency"] < math.inf for line in lines)
        assert together["scaling_efficiency"] == lines[-1]["scaling_efficiency"]


class Clocked(Step):
    """Steps of two processes on a clock of its own: four seconds of work, and one in which they wait."""

    processes, together, now = 2, True, 0.0

    def __call__(self, step, progress):
        self.now += 4 + self.together
        return super().__call__(step, progress)

    def feed(self, step, part, progress):
        pass

    def cost(self):
        loss = (self.net.weight - 3).square().sum()
        return LossTerms(loss, loss, loss[None])

    def final_weights(self):
        return [self.net.state_dict()]

    saved = ("net", "optimizer")


def test_the_efficiency_is_that_of_steps_without_waiting_and_leaves_no_trace(monkeypatch, tmp_path):
    def trained(folder):
        torch.manual_seed(0)
        step = Clocked(nn.Linear(2, 1, bias=False), small(), noise(), torch.device("cpu"), static=False)
        monkeypatch.setattr(loop.time, "perf_counter", lambda: step.now)
        step.net.no_sync = nullcontext
        monkeypatch.setattr(distributed, "anywhere", bool)
        (folder / "run").mkdir(parents=True)
        job = Job(step.net, step.images, step.training, folder / "run")
        lines = Loop(step, [job], folder)
        monkeypatch.setattr(lines, "finalize", lambda: None)
        lines.run()
        return [row["scaling_efficiency"] for row in job.run.log], step.state_dict()

    found, state = trained(tmp_path / "timed")
    assert found == [0.8] * 5
    monkeypatch.setattr(Loop, "time_alone", lambda self: 4.0)
    assert_same(state, trained(tmp_path / "not timed")[1])


def test_micro_batches_that_cannot_be_shared_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(distributed, "world", lambda: 2)
    with pytest.raises(InputError, match=r"2 processes .*micro_batches"):
        fit(VAE(SHAPE), noise(), small(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


STOPPED = """
import signal, sys
from small_training import SHAPE, fit, noise, small
from vaestudy.models import VAE
from vaestudy.training import distributed

distributed.start()


def on_step(step):
    if step == 4 and distributed.rank() == 1:
        signal.raise_signal(signal.SIGTERM)


fit(VAE(SHAPE, latent_dim=3, width=16), noise(), small(micro_batches=2), sys.argv[1], device="cpu", on_step=on_step)
"""


def test_a_signal_to_the_process_that_does_not_write_stops_both_after_the_same_step(tmp_path):
    children = two(["-c", STOPPED], tmp_path)
    said = ended(children)
    assert [child.returncode for child in children] == [143, 143], said
    steps = []
    fit(VAE(SHAPE, latent_dim=3, width=16), noise(), small(micro_batches=2), tmp_path, on_step=steps.append)
    assert steps == [6, 7, 8, 9, 10]


LEFT = """
import atexit, sys
from pathlib import Path


def threads(_step=None):
    print([name for task in Path("/proc/self/task").iterdir() if "gloo" in (name := (task / "comm").read_text())])


atexit.register(threads)  # the last to be called
from small_training import SHAPE, fit, noise, small
from vaestudy.models import VAE
from vaestudy.training import distributed

distributed.start()
fit(VAE(SHAPE), noise(), small(images=20, micro_batches=2), sys.argv[1], device="cpu", on_step=threads)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted where Linux lists them")
def test_no_thread_of_the_group_outlives_it(tmp_path):
    for said, _ in ended(two(["-c", LEFT], tmp_path)):
        together, after = said.splitlines()
        assert "gloo" in together
        assert after == "[]"


MORTAL = """
import os, signal, sys
from small_training import SHAPE, fit, noise, small
from vaestudy.models import VAE
from vaestudy.training import distributed

distributed.start()
steps = []


def on_step(step):
    steps.append(step)
    if step == 7 and distributed.rank() == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)


model = VAE(SHAPE, latent_dim=3, network="kingma", width=16)
fit(model, noise(), small(micro_batches=2), sys.argv[1], device="cpu", checkpoint_seconds=0.0, on_step=on_step)
assert steps[0] > 5, steps
"""


def test_two_processes_of_which_one_dies_equal_one_that_lives(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(MORTAL)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    child = start([*launcher, script], tmp_path / "run", CUDA_VISIBLE_DEVICES="")
    model = VAE(SHAPE, latent_dim=3, network="kingma", width=16)
    alone = fit(model, noise(), small(micro_batches=2), tmp_path / "alone", device="cpu")
    ((_, errors),) = ended([child])
    assert child.returncode == 0, errors[-6000:]
    run = Run(tmp_path / "run", VAE(SHAPE, latent_dim=3, network="kingma", width=16))
    run.load()
    for here, there in zip(run.model.parameters(), alone.model.parameters(), strict=True):
        torch.testing.assert_close(here, there, atol=1e-6, rtol=1e-5)
    assert run.history["images_seen"].tolist() == [40, 80, 120, 160, 200]
    assert_same(run.config, alone.config)
