"""The sweep: every member is the run that its model trained alone would be, however the sweep went."""

import json
import math
import os
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from vaestudy.data.imageset import ImageSet
from vaestudy.errors import InputError
from vaestudy.models import VAE
from vaestudy.training import distributed as workers
from vaestudy.training import memory, stacked, sweep, trainer
from vaestudy.training import run as runs
from vaestudy.training.config import Training
from vaestudy.training.objective import Objective

SHAPE = (1, 8, 8)
GRID = sweep.Grid(betas=(0.5, 4), latent_dims=(2, 5), seeds=(0, 1))
SMALL = {"network": "mlp", "width": 16}
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def images():
    return noise(SHAPE)


def noise(shape):
    generator = torch.Generator().manual_seed(0)
    return ImageSet("noise", shape, torch.randint(0, 256, (200, *shape), dtype=torch.uint8, generator=generator))


def training(**changes):
    small = Training(images=200, batch=20, log_every=40, save_every=80, precision="fp32")
    return replace(small, **changes)


def weights(found):
    return [torch.cat([p.flatten() for p in run.model.state_dict().values()]) for run in found]


class Interrupted(Exception):
    pass


def interrupt_after(step):
    def on_step(done):
        if done == step:
            raise Interrupted

    return on_step


def assert_members_equal_models_trained_alone(images, grid, settings, tmp_path, tolerance, **network):
    together = sweep.fit(images, grid, settings, tmp_path / "together", **network)
    for member, run in zip(grid.members, together, strict=True):
        model = VAE(images.shape, latent_dim=member.latent_dim, seed=member.seed, **network)
        objective = replace(settings.objective, kind=member.kind, beta=member.beta, capacity=member.capacity)
        own = replace(settings, seed=member.seed, objective=objective)
        alone = trainer.fit(model, images, own, runs.folder(tmp_path / "alone", "beta_vae", model, images, own))
        assert run.path.name == alone.path.name
        assert run.config == alone.config
        assert run.result.keys() == alone.result.keys()
        assert alone.provenance.keys() <= run.provenance.keys()
        (here,), (there,) = weights([run]), weights([alone])
        torch.testing.assert_close(here, there, rtol=0, atol=tolerance, msg=str(member))
        assert run.history.keys() == alone.history.keys()
        for name in run.history.keys() - {"seconds"}:
            np.testing.assert_allclose(run.history[name], alone.history[name], 1e-5, 1e-6, err_msg=f"{member} {name}")


# Matrix products and the optimiser work in the same order on a stack, so that dense networks differ by the last bit
# of a few weights after ten steps, or not at all. Grouped convolutions sum in another order.
@pytest.mark.parametrize(
    ("network", "shape", "tolerance"),
    [("mlp", SHAPE, 1e-6), ("kingma", (3, 4, 6), 1e-6), ("conv", (1, 16, 16), 1e-4), ("burgess", (3, 8, 8), 1e-4)],
)
def test_members_equal_models_trained_alone(network, shape, tolerance, tmp_path):
    grid = replace(GRID, betas=(4.0,), objectives=("beta", "capacity", "total_correlation"), capacities=(2.0,))
    settings = training(flip=True, rise=0.2, decay_from=0.5, objective=Objective(warmup=0.6))
    assert_members_equal_models_trained_alone(
        noise(shape), grid, settings, tmp_path, tolerance, network=network, width=8
    )


@pytest.mark.parametrize(
    ("changes", "likelihood"),
    [
        ({"optimizer": "adagrad", "learning_rate": 1e-2}, "gaussian"),
        ({"optimizer": "adamax"}, "mixture"),
        ({"optimizer": "adamw", "weight_decay": 0.1, "batch": 30}, "bernoulli"),
    ],
)
def test_the_same_with_other_optimisers_and_likelihoods(changes, likelihood, images, tmp_path):
    settings = training(**changes)
    assert_members_equal_models_trained_alone(images, GRID, settings, tmp_path, 1e-5, likelihood=likelihood, **SMALL)


def test_in_bf16_members_stay_near_models_trained_alone(images, tmp_path):
    settings = training(precision="bf16", batch=50)
    found = sweep.fit(images, GRID, settings, tmp_path / "together", **SMALL)
    member, run = GRID.members[-1], found[-1]
    alone = trainer.fit(member.model(SHAPE, **SMALL), images, member.training(settings), tmp_path / "alone")
    assert run.provenance["precision"] == "bf16"
    np.testing.assert_allclose(run.history["elbo_nats"], alone.history["elbo_nats"], rtol=1e-3)


@pytest.mark.parametrize("changes", [{}, {"optimizer": "adagrad"}])
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_an_interrupted_sweep_goes_on_bit_for_bit(network, changes, images, tmp_path):
    settings = training(**changes)
    size = {"network": network, "width": 8}
    whole = sweep.fit(images, GRID, settings, tmp_path / "whole", **size)
    with pytest.raises(Interrupted):
        sweep.fit(images, GRID, settings, tmp_path / "parts", on_step=interrupt_after(6), **size)
    assert len(list((tmp_path / "parts").glob("sweep-*.pt"))) == 1
    steps = []
    parts = sweep.fit(images, GRID, settings, tmp_path / "parts", on_step=steps.append, **size)
    assert steps == [5, 6, 7, 8, 9, 10]
    for here, there in zip(weights(parts), weights(whole), strict=True):
        assert torch.equal(here, there)
    for here, there in zip(parts, whole, strict=True):
        for name in ("images_seen", "elbo_nats", "kl_nats", "learning_rate"):
            assert np.array_equal(here.history[name], there.history[name]), name
    assert not list((tmp_path / "parts").glob("sweep-*"))


def test_a_sweep_that_is_lost_while_its_members_are_written_goes_on(images, tmp_path, monkeypatch):
    whole = sweep.fit(images, GRID, training(), tmp_path / "whole", **SMALL)
    conclude, written = stacked.conclude, []

    def lost_after_three(run, *arguments, **about):
        if len(written) == 3:
            raise Interrupted
        conclude(run, *arguments, **about)
        written.append(run.path)

    monkeypatch.setattr(stacked, "conclude", lost_after_three)
    with pytest.raises(Interrupted):
        sweep.fit(images, GRID, training(), tmp_path / "parts", **SMALL)
    monkeypatch.setattr(stacked, "conclude", conclude)
    steps = []
    parts = sweep.fit(images, GRID, training(), tmp_path / "parts", on_step=steps.append, **SMALL)
    assert not steps
    for here, there in zip(weights(parts), weights(whole), strict=True):
        assert torch.equal(here, there)


def test_finished_members_are_found_again_however_they_were_trained(images, tmp_path):
    member = GRID.members[3]
    model = member.model(SHAPE, **SMALL)
    alone = trainer.fit(
        model, images, member.training(training()), sweep.member_folder(tmp_path, member, model, images, training())
    )
    found = sweep.fit(images, GRID, training(), tmp_path, **SMALL)
    assert found[3].path == alone.path
    assert [run.provenance.get("models_at_once") for run in found] == [7, 7, 7, None, 7, 7, 7, 7]
    steps = []
    more = replace(GRID, betas=(4, 0.5, 9))
    again = sweep.fit(images, more, training(), tmp_path, on_step=steps.append, **SMALL)
    assert len(steps) == 10
    assert {run.path for run in found} < {run.path for run in again}
    assert again[0].provenance["models_at_once"] == 7
    assert again[-1].provenance["models_at_once"] == 4
    # The trainer finds what the sweep has made.
    member = more.members[-1]
    model = member.model(SHAPE, **SMALL)
    solo = trainer.fit(model, images, member.training(training()), again[-1].path)
    assert torch.equal(*weights([solo, again[-1]]))


@pytest.mark.parametrize("chunk", [1, 3])
def test_chunks_do_not_change_the_members(chunk, images, tmp_path):
    whole = sweep.fit(images, GRID, training(), tmp_path / "whole", **SMALL)
    parts = sweep.fit(images, GRID, training(), tmp_path / "parts", chunk=chunk, **SMALL)
    for here, there in zip(weights(parts), weights(whole), strict=True):
        torch.testing.assert_close(here, there, rtol=0, atol=1e-6)
    assert max(run.provenance["models_at_once"] for run in parts) == chunk


def test_several_grids_are_trained_side_by_side(images, tmp_path):
    other = sweep.Grid(capacities=(3.0,), betas=(2.0,), latent_dims=(5,), objectives=("capacity", "total_correlation"))
    both = sweep.fit(images, [GRID, other], training(), tmp_path / "both", **SMALL)
    assert {run.provenance["models_at_once"] for run in both} == {10}
    apart = [sweep.fit(images, grid, training(), tmp_path / "apart", **SMALL) for grid in (GRID, other)]
    for here, there in zip(weights(both), weights([*apart[0], *apart[1]]), strict=True):
        torch.testing.assert_close(here, there, rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="several of the grids"):
        sweep.fit(images, [GRID, GRID], training(), tmp_path / "twice", **SMALL)


def test_processes_share_the_members_out(images, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "_wait_for", lambda found: None)
    monkeypatch.setattr(runs.Run, "load", lambda run: None)
    monkeypatch.setattr(workers, "world", lambda: 3)
    finished = set()
    for rank in range(3):
        monkeypatch.setattr(workers, "rank", lambda rank=rank: rank)
        found = sweep.fit(images, GRID, training(), tmp_path, **SMALL)
        now = {i for i, run in enumerate(found) if run.finished}
        assert now - finished == set(range(rank, 8, 3))
        finished = now
    assert finished == set(range(8))
    for run in found:  # each of them is the work of one process alone
        assert run.provenance["processes"] == 1
        assert run.result["images_per_second_per_process"] == run.result["images_per_second"]


PROCESS = """
import sys
import torch
from vaestudy.training import sweep
from vaestudy.training import distributed as workers
from vaestudy.data.imageset import ImageSet
from vaestudy.training.config import Training
torch.set_num_threads(1)
workers.start()
images = ImageSet("zeros", (1, 8, 8), torch.zeros(100, 1, 8, 8, dtype=torch.uint8))
grid = sweep.Grid(betas=(1, 2, 4), latent_dims=(2,), seeds=(0,))
training = Training(images=60, batch=20, precision="fp32")
found = sweep.fit(images, grid, training, sys.argv[1], network="linear", device="cpu")
assert all(run.finished for run in found)
print([run.provenance["models_at_once"] for run in found])
"""


def test_two_real_processes_wait_for_each_other(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared["CUDA_VISIBLE_DEVICES"] = ""
    command = [sys.executable, "-c", PROCESS, str(tmp_path)]
    started = [
        subprocess.Popen(
            command, env={**shared, "RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    for process in started:
        out, err = process.communicate(timeout=100)
        assert process.returncode == 0, err
        assert json.loads(out.splitlines()[-1]) == [2, 1, 2]


def test_codes_are_those_of_every_run(images, tmp_path):
    found = sweep.fit(images, GRID, training(), tmp_path, **SMALL)
    index = np.arange(3, 150)
    together = sweep.codes(found, images, index, batch=50)
    for run, codes in zip(found, together, strict=True):
        assert codes.shape == (147, run.model.config.latent_dim)
        np.testing.assert_allclose(codes, run.codes(images, index)[0], atol=1e-6)


def test_the_members_of_a_grid():
    grid = sweep.Grid(betas=(1, 4), latent_dims=(3,), seeds=(0, 7), objectives=("beta", "capacity"), capacities=(5, 10))
    known = [(m.kind, m.beta if m.kind == "beta" else m.capacity, m.seed) for m in grid.members]
    assert known[:4] == [("beta", 1, 0), ("beta", 1, 7), ("beta", 4, 0), ("beta", 4, 7)]
    assert known[4:] == [("capacity", 5, 0), ("capacity", 5, 7), ("capacity", 10, 0), ("capacity", 10, 7)]
    assert len({json.dumps(m.training(training()).objective.__dict__) for m in grid.members}) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"betas": ()}, "empty.*betas"),
        ({"latent_dims": ()}, "empty.*latent_dims"),
        ({"seeds": ()}, "empty.*seeds"),
        ({"objectives": ()}, "empty.*objectives"),
        ({"objectives": ("capacity",)}, "empty.*capacities"),
        ({"betas": (1.0, -0.1)}, "beta must be 0 or more"),
        ({"betas": (math.nan,)}, "beta must be 0 or more"),
        ({"betas": (1, 2, 1.0)}, "betas.*twice"),
        ({"latent_dims": (0,)}, "latent_dims must be 1 or more"),
        ({"objectives": ("factor",)}, "objective must be one of"),
    ],
)
def test_grids_that_cannot_be(changes, message):
    with pytest.raises(InputError, match=message):
        replace(GRID, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"ema": 0.9},
        {"skip_above": 5.0},
        {"shards": 2},
        {"objective": Objective(balance=True)},
        {"objective": Objective(spectral=0.1)},
    ],
)
def test_what_a_sweep_does_not_offer(changes, images, tmp_path):
    with pytest.raises(InputError, match="a sweep trains without"):
        sweep.fit(images, GRID, training(**changes), tmp_path, **SMALL)


def test_a_chunk_of_nothing(images, tmp_path):
    with pytest.raises(InputError, match="chunk must be 1 or more"):
        sweep.fit(images, GRID, training(), tmp_path, chunk=0, **SMALL)


def test_divergence_names_the_member(images, tmp_path):
    with pytest.raises(InputError, match=r"diverged.*kind='beta', beta=1e\+300.*3 latents, seed 2"):
        sweep.fit(images, sweep.Grid(betas=(1, 1e300), latent_dims=(3,), seeds=(2,)), training(), tmp_path, **SMALL)


def test_as_many_models_at_once_as_half_of_the_memory_holds(monkeypatch):
    model, cpu = VAE(SHAPE, latent_dim=10, **SMALL), torch.device("cpu")
    count = lambda **changes: stacked.models_at_once(model, training(**changes), ["beta"], cpu)  # noqa: E731
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10**9)
    many = count()
    assert 1 < count(batch=200) < many
    assert stacked.models_at_once(model, training(), ["total_correlation"], cpu) < many
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2 * 10**9)
    assert count() == pytest.approx(2 * many, abs=1)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 0)
    assert count() == 1


@pytest.mark.cuda
@CUDA
def test_a_cuda_graph_trains_what_the_trainer_does(images, tmp_path):
    settings = training(objective=Objective(warmup=0.6), decay_from=0.5)
    assert_members_equal_models_trained_alone(images, GRID, settings, tmp_path, 1e-4, **SMALL)
