"""The host never waits for the device within a step: shown three ways, none of which needs one."""

import importlib

import pytest
import torch
from gpu_recipes import MAKERS, bytes_of_noise
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from vaestudy.training import steps
from vaestudy.training.loop import Loop

CPU = torch.device("cpu")
ANY_GENERATOR = type("Generator", (), {"__new__": lambda cls, device=None, make=torch.Generator: make()})


class NothingRead(TorchDispatchMode):
    """Fails where a number on the device would be read by the host, which waits for it there.

    Optimisers read their own step counters, which are on the CPU.
    """

    READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique", "_unique2", "_to_copy")

    def __init__(self, optimizer):
        super().__init__()
        self.seen, self.counting = 0, False
        optimizer.register_step_pre_hook(lambda *_: setattr(self, "counting", True))
        optimizer.register_step_post_hook(lambda *_: setattr(self, "counting", False))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen += 1
        name = func.overloadpacket.__name__
        back = name != "_to_copy" or (kwargs or {}).get("device") == CPU != args[0].device
        if name in self.READS and back and not self.counting:
            raise AssertionError(f"{func} makes the host wait")
        return func(*args, **(kwargs or {}))


class NothingCarried(TorchDispatchMode):
    """Fails where a tensor of the host would be carried to the device, which a CUDA graph refuses to record."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        leaves = torch.utils._pytree.tree_leaves((args, kwargs or {}, out))
        if {"cpu", "cuda"} <= {leaf.device.type for leaf in leaves if isinstance(leaf, torch.Tensor)}:
            raise AssertionError(f"{func} carries numbers of the host to the device")
        return out


def loop_of(step, folder):
    return Loop(step, [], folder)


@pytest.fixture
def meta(monkeypatch):
    """What of torch has no form for tensors without data: generators, autocast and fused optimisers."""
    for name in ("adam", "adamax"):
        module = importlib.import_module(f"torch.optim.{name}")
        monkeypatch.setattr(module, "_get_capturable_supported_devices", lambda **_: ["meta"])
    many = {"fused": None, "foreach": True, "capturable": True}  # the form next to the fused one
    for name in ("Adam", "AdamW"):
        make = getattr(torch.optim, name)
        monkeypatch.setattr(torch.optim, name, lambda own, make=make, **options: make(own, **options | many))
    monkeypatch.setattr(torch, "Generator", ANY_GENERATOR)
    monkeypatch.setattr(steps, "autocast", lambda *_: torch.autocast("cpu", torch.bfloat16))


@pytest.fixture
def fake_cuda(monkeypatch):
    """A machine that believes in its GPU: tensors without data on the device `cuda`, and autocast for them."""
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    monkeypatch.setattr(torch, "Generator", ANY_GENERATOR)
    monkeypatch.setattr(torch.nn.Module, "to", moved)
    with FakeTensorMode():
        yield "cuda"


def moved(module, device=None, memory_format=torch.preserve_format):
    """`Module.to`, which has no form for parameters without data."""
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, own in tensors.items():
                if own is not None:
                    new = own.detach().to(device or own.device)
                    new = new.contiguous(memory_format=memory_format) if new.ndim == 4 and device is None else new
                    tensors[name] = torch.nn.Parameter(new) if isinstance(own, torch.nn.Parameter) else new
    return module


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_a_step_and_its_place_in_the_log_read_nothing(maker, tmp_path):
    step = maker("cpu")
    step.may_read = False  # as on any other device
    loop = loop_of(step, tmp_path)
    with NothingRead(step.optimizer) as watch:
        for _ in range(4):  # into the second epoch
            loop.advance()
    assert watch.seen > 400


def test_a_read_is_noticed():
    with pytest.raises(AssertionError, match="wait"), NothingRead(torch.optim.SGD([torch.ones(1)])):
        torch.ones(1).item()


@pytest.mark.parametrize(
    ("name", "optimizer"), [("vae", "adam"), ("vae", "adagrad"), ("sweep", "adamw"), ("nvae", "adamax")]
)
def test_a_whole_step_runs_where_tensors_have_no_data(name, optimizer, meta, tmp_path):
    """There `.item()` is an error, in the optimiser as well."""
    step = MAKERS[name]("meta", optimizer=optimizer)
    loop = loop_of(step, tmp_path)
    for _ in range(2):
        loop.advance()
    with pytest.raises(RuntimeError, match="meta"):
        loop.totals.sum().item()


@pytest.mark.parametrize("name", MAKERS)
def test_a_forward_pass_keeps_to_one_device(name, fake_cuda):
    """Under autocast, with losses and penalty: devices do not meet. Autograd's engine would ask for a GPU."""
    shape = (3, 16, 16) if name == "nvae" else (1, 16, 16)
    more = {} if name == "sweep" else {"ema": 0.0}  # a copy of such a model is of another machine
    step = MAKERS[name](fake_cuda, bytes_of_noise(shape, device=fake_cuda), **more)
    with torch.no_grad():
        step.feed(0, 0, 0.1)
        with NothingCarried():
            terms = step.cost()
    assert {part.device.type for part in terms} == {"cuda"}
    assert step.cast._enabled
    assert terms.loss.dtype == torch.float32
    with pytest.raises(RuntimeError, match=r"[Dd]evice"):
        terms.loss + torch.ones(terms.loss.shape or (1,))
