"""Two processes train as one does, and go on after one of them dies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

WORKER = """
import os, sys
import torch
from small_training import noise, small
from vaestudy.models import VAE
from vaestudy.training import distributed, fit

folder, dies = sys.argv[1], sys.argv[2] == "dies"
torch.set_num_threads(1)
distributed.start()
model = VAE((1, 8, 8), latent_dim=3, network="kingma", width=16)


def on_step(step):
    steps.append(step)
    if dies and step == 7 and distributed.rank() == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os._exit(1)


steps, recipe = [], small(micro_batches=2)
run = fit(model, noise(), recipe, folder, checkpoint_seconds=0.0, on_step=on_step)
assert run.provenance["processes"] == distributed.world()
assert (steps[0] > 5) == (dies and steps[-1] == 10), steps
assert run.history["images_seen"].tolist() == [40, 80, 120, 160, 200]
"""


NORMS = """
import sys
import torch
from safetensors.torch import save_file
from small_training import noise
from vaestudy.models import NVAE, NVAEConfig
from vaestudy.models.cells import NormAct
from vaestudy.training import Training, distributed, fit

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
    recipe = Training(images=24, batch=8, micro_batches=distributed.world(), sync_norm=sync, log_every=8)
    fit(model, noise(count=40), recipe, f"{folder}/sync={sync}")
    found |= {f"{sync}: {name}": value.clone() for name, value in model.named_buffers() if "running" in name}
if distributed.rank() == 0:
    save_file({name: value.detach().contiguous() for name, value in found.items()}, f"{folder}/model.safetensors")
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "worker.py"
    path.write_text(WORKER)
    return path


def launch(script, folder, processes, dies="lives"):
    command = [sys.executable, str(script), str(folder), dies]
    if processes > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "--max-restarts=1"]
        command[1:1] = launcher
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    return load_file(folder / "model.safetensors")


def test_batch_norm_of_two_processes_sees_the_batch_of_both(tmp_path):
    script = tmp_path / "norms.py"
    script.write_text(NORMS)
    for name in ("alone", "together"):
        (tmp_path / name).mkdir()
    alone = launch(script, tmp_path / "alone", processes=1)
    together = launch(script, tmp_path / "together", processes=2)
    for name in ("y", "x.grad", "mean", "var", "weight.grad", "bias.grad"):
        torch.testing.assert_close(together[name], alone[name], atol=1e-5, rtol=1e-4, msg=name)
    statistics = [name.removeprefix("True: ") for name in together if name.startswith("True: ")]
    assert statistics
    assert any(not torch.equal(together[f"True: {name}"], together[f"False: {name}"]) for name in statistics)


def test_two_processes_of_which_one_dies_equal_one_that_lives(script, tmp_path):
    alone = launch(script, tmp_path / "alone", processes=1)
    together = launch(script, tmp_path / "run", processes=2, dies="dies")
    assert together.keys() == alone.keys()
    for name in alone:
        torch.testing.assert_close(together[name], alone[name], atol=1e-6, rtol=1e-5)
