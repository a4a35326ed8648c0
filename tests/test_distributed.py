"""Two processes train as one does, and go on after one of them dies."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

WORKER = """
import os, sys
import torch
from vaestudy.training import trainer
from vaestudy.training import distributed as workers
from vaestudy.data import ImageSet
from vaestudy.models import VAE

folder, dies = sys.argv[1], sys.argv[2] == "dies"
torch.set_num_threads(1)
workers.start()
generator = torch.Generator().manual_seed(0)
storage = torch.randint(0, 256, (200, 1, 8, 8), dtype=torch.uint8, generator=generator)
images = ImageSet("noise", (1, 8, 8), storage)
model = VAE((1, 8, 8), latent_dim=3, network="kingma", width=16)
recipe = trainer.Training(images=200, batch=20, shards=2, log_every=40, save_every=40, precision="fp32")


def on_step(step, parts):
    if dies and step == 7 and workers.rank() == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os._exit(1)


run = trainer.fit(model, images, recipe, folder, on_step=on_step)
assert run.history["images_seen"].tolist() == [40, 80, 120, 160, 200]
"""


NORMS = """
import sys
import torch
from safetensors.torch import save_file
from vaestudy.training import trainer
from vaestudy.training import distributed as workers
from vaestudy.data import ImageSet
from vaestudy.models import NVAE, NVAEConfig
from vaestudy.models.cells import NormAct

folder = sys.argv[1]
torch.set_num_threads(1)
workers.start()
torch.manual_seed(0)
x, weights = torch.randn(8, 3, 4, 4, dtype=torch.float32) * 2 + 1, torch.randn(8, 3, 4, 4)
own = slice(workers.rank(), None, workers.world())
norm = NormAct(3, "swish").train()
norm.gather = workers.gather
part = x[own].clone().requires_grad_()
y = norm(part)
(y * weights[own]).sum().backward()
found = {"y": y, "x.grad": part.grad, "mean": norm.running_mean, "var": norm.running_var}
gradients = {"weight.grad": norm.weight.grad, "bias.grad": norm.bias.grad}
found |= {name: workers.mean(value) * workers.world() for name, value in gradients.items()}
found |= {name: workers.gather(found[name].detach()).transpose(0, 1).flatten(0, 1) for name in ("y", "x.grad")}

images = ImageSet("noise", (1, 8, 8), torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8))
for sync in (True, False):
    model = NVAE(NVAEConfig(shape=(1, 8, 8), channels=4, groups=(1, 1), latents=2, mixtures=2))
    recipe = trainer.Training(images=24, batch=8, shards=workers.world(), sync_norm=sync, log_every=8)
    trainer.fit(model, images, recipe, f"{folder}/sync={sync}")
    found |= {f"{sync}: {name}": value.clone() for name, value in model.named_buffers() if "running" in name}
if workers.rank() == 0:
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
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
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
