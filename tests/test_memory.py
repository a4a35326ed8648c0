"""The predicted memory of a training step against what a real graph keeps, and what recomputation saves."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vaestudy.errors import InputError
from vaestudy.models import NVAE, VAE, NVAEConfig
from vaestudy.models.nvae_config import CHOICES
from vaestudy.training import Training, cost, memory

RECIPE = Training(images=100, batch=10)


def test_a_linear_model_keeps_what_can_be_counted_by_hand():
    model = VAE((1, 4, 4), latent_dim=2, network="linear")
    weights = sum(p.numel() for p in model.parameters())
    fixed, kept = cost.cost(model, RECIPE, 100).memory
    assert fixed == 4 * 4 * weights
    # At least the image, its code's mean and log std, and the logits are kept: 4 bytes each.
    assert 4 * (16 + 2 + 2 + 16) <= kept / RECIPE.batch <= 4 * 200


def test_the_prediction_is_what_a_real_graph_keeps():
    images = 6
    model = VAE((1, 16, 16), latent_dim=3, network="conv", width=8)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        terms = model(torch.rand(images, 1, 16, 16))
        loss = terms.nll.mean() + terms.kl.sum()
    real = sum(storage.nbytes() for storage in kept.values())
    assert loss.requires_grad
    assert images * cost.kept_per_image(model) == pytest.approx(real, rel=0.15)


def test_recomputation_keeps_at_most_half_at_the_width_of_the_paper():
    with torch.device("meta"):
        configs = [NVAEConfig.preset("celeba64", groups=(1, 1, 2), checkpoint=kind) for kind in CHOICES["checkpoint"]]
        models = {config.checkpoint: NVAE(config) for config in configs}
    kept = {kind: cost.kept_per_image(model) for kind, model in models.items()}
    assert kept["norm_act"] < 0.5 * kept["none"]
    assert kept["cell"] < kept["norm_act"]


KEPT = """
import re
import torch
from pathlib import Path
from vaestudy.training import memory

memory.keep_freed()
tensor = torch.ones(1 << 25)
address = tensor.data_ptr() + tensor.nbytes // 2
del tensor
heads = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) .*$", re.MULTILINE)
maps = Path("/proc/self/smaps").read_text()
for head in heads.finditer(maps):
    if int(head[1], 16) <= address < int(head[2], 16):
        rest = maps[head.end():]
        print(re.search(r"^Rss: +(\\d+)", rest, re.MULTILINE)[1])
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not Path("/proc/self/smaps").exists(),
    reason="this C library has its own ways",
)
def test_freed_memory_is_kept():
    run = subprocess.run([sys.executable, "-c", KEPT], check=True, capture_output=True, text=True)
    assert int(run.stdout) >= 64 * 1024  # KiB: at least its second half is still there


def test_what_does_not_fit_is_named_in_one_line():
    """In the words of the allocator of the machine that runs the test."""
    words = "a batch of 9: lower it"
    with pytest.raises(InputError, match=f"too little memory for {words}"), memory.explain_oom(words):
        torch.empty(1 << 50)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."), InputError),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."), InputError),
        (torch.OutOfMemoryError("CUDA out of memory."), InputError),
        (RuntimeError("shapes do not match"), RuntimeError),
    ],
)
def test_other_errors_stay_what_they_are(error, expected):
    with pytest.raises(expected) as caught, memory.explain_oom("it"):
        raise error
    assert type(caught.value) is expected


@pytest.fixture
def group(monkeypatch, tmp_path):
    """A control group whose files can be written."""
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    return tmp_path


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="only Linux has control groups")
def test_free_memory_is_that_of_the_container(group):
    """Cached files that can be dropped at any moment are free; a machine has more than the 2 MiB of this group."""
    cpu = torch.device("cpu")
    whole = memory.free_bytes(cpu)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text(f"{1 << 40}\n")
    assert memory.free_bytes(cpu) == pytest.approx(whole, rel=0.5)
    (group / "memory.max").write_text(f"{2 << 20}\n")
    (group / "memory.current").write_text(f"{3 << 19}\n")
    assert memory.free_bytes(cpu) == 1 << 19
    (group / "memory.stat").write_text(f"anon 77\ninactive_file {1 << 18}\nactive_file 5\n")
    assert memory.free_bytes(cpu) == (1 << 19) + (1 << 18)
    (group / "memory.current").write_text(f"{1 << 30}\n")
    assert memory.free_bytes(cpu) == 0
