"""Many trainings: every member is the run that its model trained alone would be, however the sweep went."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_training import (
    SHAPE,
    Interrupted,
    Own,
    Unreadable,
    assert_same,
    assert_same_history,
    fit,
    fit_many,
    interrupt_after,
    noise,
    small,
    start,
)

from vaestudy.errors import InputError
from vaestudy.models import VAE
from vaestudy.models.stack import Stack
from vaestudy.training import Grid, Job, Objective, Run, cost, memory, sweep

GRID = Grid(betas=(0.5, 4), latent_dims=(2, 5), seeds=(0, 1))
WIDTH = {"network": "mlp", "width": 16}
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def images():
    return noise()


def trained(images, root, grid=GRID, settings=None, network=WIDTH, **options):
    return fit_many(grid.jobs(images, settings or small(), root, **network), **options)


def assert_equal_members(here, there):
    for mine, theirs in zip(here, there, strict=True):
        assert_same(mine.model.state_dict(), theirs.model.state_dict())
        assert_same_history(mine, theirs)


def assert_members_equal_models_trained_alone(images, grid, settings, tmp_path, tolerance, **network):
    together = trained(images, tmp_path / "together", grid, settings, network)
    apart = [fit(*job) for job in grid.jobs(images, settings, tmp_path / "alone", **network)]
    assert len({len(run.model.state_dict()) for run in together}) == 1
    for run, alone in zip(together, apart, strict=True):
        assert run.path.name == alone.path.name
        assert run.config == alone.config
        assert run.record.keys() == alone.record.keys()
        assert run.provenance.keys() == alone.provenance.keys()
        for here, there in zip(run.model.parameters(), alone.model.parameters(), strict=True):
            torch.testing.assert_close(here, there, rtol=0, atol=tolerance)
        assert list(run.history) == list(alone.history)
        for name in set(run.history) - {"seconds", "kl_nats_by_group"}:
            np.testing.assert_allclose(run.history[name], alone.history[name], 1e-5, 1e-6, err_msg=name)


# Matrix products and the optimiser work in the same order on a stack, so that dense networks differ by the last bit
# of a few weights after ten steps, or not at all. Grouped convolutions sum in another order.
@pytest.mark.parametrize(
    ("network", "shape", "tolerance"),
    [
        ("linear", (1, 4, 6), 1e-6),
        ("kingma", (3, 4, 6), 1e-6),
        ("conv", (1, 16, 16), 1e-4),
        ("burgess", (3, 8, 8), 1e-4),
    ],
)
def test_members_equal_models_trained_alone(network, shape, tolerance, tmp_path):
    grid = Grid((4.0,), (2,), (0, 1), objectives=("beta", "capacity", "total_correlation"), capacities=(2.0,))
    settings = small(flip=True, lr_warmup=0.2, lr_decay_from=0.5, objective=Objective(warmup=0.6))
    assert_members_equal_models_trained_alone(
        noise(shape), grid, settings, tmp_path, tolerance, network=network, width=8
    )


@pytest.mark.parametrize(
    ("changes", "likelihood"),
    [
        ({"optimizer": "adagrad", "learning_rate": 1e-2}, "gaussian"),
        ({"optimizer": "adamax"}, "mixture"),
        ({"optimizer": "adamw", "weight_decay": 0.1, "batch": 30}, "bernoulli"),
        ({"samples": 3}, "bernoulli"),
    ],
)
def test_the_same_with_other_optimisers_and_likelihoods(changes, likelihood, images, tmp_path):
    grid, settings = replace(GRID, latent_dims=(3,)), small(**changes)
    assert_members_equal_models_trained_alone(images, grid, settings, tmp_path, 1e-5, likelihood=likelihood, **WIDTH)


def test_in_bf16_members_stay_near_models_trained_alone(images, tmp_path):
    settings = small(precision="bf16", batch=50)
    found = trained(images, tmp_path / "together", settings=settings)
    alone = fit(*GRID.jobs(images, settings, tmp_path / "alone", **WIDTH)[-1])
    assert found[-1].provenance["precision"] == "bf16"
    np.testing.assert_allclose(found[-1].history["elbo_nats"], alone.history["elbo_nats"], rtol=1e-3)


@pytest.mark.parametrize(
    ("network", "changes"), [("mlp", {"optimizer": "adagrad"}), ("conv", {"optimizer": "adamax", "flip": True})]
)
def test_an_interrupted_sweep_goes_on_bit_for_bit(network, changes, images, tmp_path):
    grid, settings = replace(GRID, latent_dims=(2,)), small(**changes)
    size = {"network": network, "width": 8}
    whole = trained(images, tmp_path / "whole", grid, settings, size)
    stop, steps = {"checkpoint_seconds": 0.0, "on_step": interrupt_after(5)}, []
    with pytest.raises(Interrupted):
        trained(images, tmp_path / "parts", grid, settings, size, **stop)
    assert len(list((tmp_path / "parts").glob("sweep-*/checkpoint-*"))) == 2
    torch.rand(3)
    parts = trained(images, tmp_path / "parts", grid, settings, size, on_step=steps.append)
    assert steps == [6, 7, 8, 9, 10]
    assert_equal_members(parts, whole)
    assert not list((tmp_path / "parts").glob("sweep-*"))


def test_less_or_more_memory_after_a_stop_does_not_lose_the_state(images, tmp_path, monkeypatch):
    grid = replace(GRID, latent_dims=(2,))
    whole, steps = trained(images, tmp_path / "whole", grid), []
    for free, stop in ((10**9, 3), (0, 6)):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: free)
        with pytest.raises(Interrupted):
            trained(images, tmp_path / "parts", grid, checkpoint_seconds=0.0, on_step=interrupt_after(stop))
    more = replace(grid, seeds=(0, 1, 2))  # and more members after that
    parts = trained(images, tmp_path / "parts", more, on_step=steps.append)
    assert steps[:4] == [7, 8, 9, 10]
    assert_equal_members([run for run in parts if run.provenance["seed"] < 2], whole)


def test_a_sweep_that_goes_on_with_fewer_members_leaves_nothing_of_the_larger_one(images, tmp_path):
    grid = replace(GRID, latent_dims=(2,))
    with pytest.raises(Interrupted):
        trained(images, tmp_path, grid, checkpoint_seconds=0.0, on_step=interrupt_after(3))
    assert len(list(tmp_path.glob("sweep-*"))) == 1
    trained(images, tmp_path, replace(grid, seeds=(0,)))
    assert not list(tmp_path.glob("sweep-*"))


def test_a_sweep_that_is_lost_while_its_members_are_written_goes_on(images, tmp_path, monkeypatch):
    grid = replace(GRID, latent_dims=(2,))
    whole = trained(images, tmp_path / "whole", grid)
    update_record, written = Run.update_record, []

    def lost_after_three(run, **values):
        if len(written) == 3:
            raise Interrupted
        written.append(run.path)
        return update_record(run, **values)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "update_record", lost_after_three)
        with pytest.raises(Interrupted):
            trained(images, tmp_path / "parts", grid)
    steps = []
    assert len(list((tmp_path / "parts").glob("*/record.json"))) == 3
    parts = trained(images, tmp_path / "parts", grid, on_step=steps.append)
    assert steps == []
    assert_equal_members(parts, whole)
    assert not list((tmp_path / "parts").glob("sweep-*"))


def test_finished_members_are_found_again_however_they_were_trained(images, tmp_path):
    job, steps = GRID.jobs(images, small(), tmp_path, **WIDTH)[3], []
    fit(*job)
    found = trained(images, tmp_path)
    assert found[3].path == job.run_dir
    assert [run.provenance["models_at_once"] for run in found] == [3, 3, 3, 1, 4, 4, 4, 4]
    more = replace(GRID, betas=(4, 0.5, 9))
    again = trained(images, tmp_path, more, on_step=steps.append)
    assert len(steps) == 20  # two latent sizes of two new members each
    assert {run.path for run in found} < {run.path for run in again}
    assert again[-1].provenance["models_at_once"] == 2
    # The trainer finds what the sweep has made.
    solo = fit(*more.jobs(images, small(), tmp_path, **WIDTH)[-1], on_step=interrupt_after(1))
    assert_same(solo.model.state_dict(), again[-1].model.state_dict())


def test_the_number_trained_at_once_does_not_change_the_members(images, tmp_path):
    whole = trained(images, tmp_path / "whole")
    for at_once in (1, 3):
        parts = trained(images, tmp_path / f"{at_once}", at_once=at_once)
        for here, there in zip(parts, whole, strict=True):
            for mine, theirs in zip(here.model.parameters(), there.model.parameters(), strict=True):
                torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)
        assert {run.provenance["models_at_once"] for run in parts} == {min(at_once, 2)}


def test_several_grids_of_one_size_are_one_program(images, tmp_path):
    other = Grid(capacities=(3.0,), betas=(2.0,), latent_dims=(5,), objectives=("capacity", "total_correlation"))
    jobs = [*GRID.jobs(images, small(), tmp_path, **WIDTH), *other.jobs(images, small(), tmp_path, **WIDTH)]
    assert [run.provenance["models_at_once"] for run in fit_many(jobs)] == [4] * 4 + [6] * 6
    with pytest.raises(InputError, match="one and the same"):
        fit_many([*jobs, jobs[0]])


SIDE_BY_SIDE = """
import sys
from contextlib import nullcontext
from small_training import Own, Poisoned, noise, small
from vaestudy.errors import InputError
from vaestudy.training import Job, fit_many, memory, trainer


class Mine(Own):  # known to this script alone
    pass


class Bar:
    n, shown = 0, []

    def update(self, more):
        self.n += more
        self.shown.append(self.n)


def train(name, images):
    return fit_many([Job(Mine(k), images, small(seed=k), f"{sys.argv[1]}/{name}-{k}") for k in (0, 1)], device="cpu")


memory.usable_cores = lambda: 2
trainer.progress_bar = lambda name, images, done: nullcontext(Bar())
runs = train("together", noise())
print([(type(run.model).__name__, run.finished, run.images_seen, run.provenance["threads"]) for run in runs])
print(Bar.shown == sorted(Bar.shown), Bar.shown[-1])
try:
    train("broken", Poisoned(noise(), range(10**6)))
except InputError as error:
    print(error)
"""


def test_a_plain_script_trains_side_by_side_what_it_trains_alone(tmp_path):
    """Without a `__main__` guard, which other ways of starting processes need; with a bar, and errors in one line."""
    script = tmp_path / "script.py"
    script.write_text(SIDE_BY_SIDE)
    child = start([script], tmp_path)
    said, errors = child.communicate(timeout=200)
    assert child.returncode == 0, errors
    members, shown, error = said.splitlines()
    assert members == str([("Mine", True, 200, 1)] * 2)
    assert shown == "True 400"
    assert error.startswith("training diverged after 200 images, also at 1/8 of its learning rate: lower")
    for seed in (0, 1):
        alone = fit(Own(seed), noise(), small(seed=seed), tmp_path / f"alone-{seed}")
        together = Run(tmp_path / f"together-{seed}", Own(seed))
        together.load()
        for here, there in zip(together.model.parameters(), alone.model.parameters(), strict=True):
            torch.testing.assert_close(here, there)


def test_codes_draws_and_bounds_of_many_are_those_of_each(images, tmp_path):
    found, index = trained(images, tmp_path), np.arange(3, 150)
    together = sweep.codes(found, images, index, batch=50)
    drawn = sweep.codes(found, images, index[:20], draws=3)
    bounds = sweep.bounds(found, images, batch=50)
    for run, codes, draws, bound in zip(found, together, drawn, bounds, strict=True):
        np.testing.assert_allclose(codes, run.codes(images, index)[0], atol=1e-6)
        np.testing.assert_allclose(draws, run.codes(images, index[:20], draws=3)[0], atol=1e-5)
        np.testing.assert_allclose(bound["kl_by_latent"], run.kl_by_latent(images)[0], rtol=1e-5)
        alone = run.bound(images, batch=50)
        for name in ("nll_nats", "kl_nats", "elbo_nats"):
            assert bound[name] == pytest.approx(alone[name], rel=1e-5)


def test_the_jobs_of_a_grid(images, tmp_path):
    grid = Grid(betas=(1, 4), latent_dims=(3,), seeds=(0, 7), objectives=("beta", "capacity"), capacities=(5, 10))
    settings = small(objective=Objective(warmup=0.3, gamma=7.0))
    jobs = grid.jobs(images, settings, tmp_path, **WIDTH)
    known = [(job.training.objective, job.training.seed, job.model.config.seed) for job in jobs]
    expected = [Objective(beta=beta, warmup=0.3, gamma=7.0) for beta in (1.0, 4.0)]
    expected += [Objective("capacity", capacity=c, warmup=0.3, gamma=7.0) for c in (5.0, 10.0)]
    assert known == [(objective, seed, seed) for objective in expected for seed in (0, 7)]
    assert len({job.run_dir for job in jobs}) == 8
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"betas": ()}, "empty.*betas"),
        ({"latent_dims": ()}, "empty.*latent_dims"),
        ({"seeds": ()}, "empty.*seeds"),
        ({"objectives": ()}, "empty.*objectives"),
        ({"objectives": ("capacity",)}, "empty.*capacities"),
        ({"betas": (1.0, -0.1)}, "-0.1"),
        ({"betas": (1, 2, 1.0)}, "betas.*twice"),
        ({"latent_dims": (0,)}, "latent_dims"),
        ({"objectives": ("factor",)}, "'factor'"),
    ],
)
def test_grids_that_cannot_be(changes, message):
    with pytest.raises(InputError, match=message):
        replace(GRID, **changes)


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (noise(), {"at_once": 0}, "at_once"),
        (noise(count=1), {}, "2 images"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(images, options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        trained(images, tmp_path / "runs", **options)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("other", [{"width": 16}, {"latent_dim": 9}, {"likelihood": "gaussian"}])
def test_models_of_two_architectures_cannot_be_stacked(other):
    with pytest.raises(InputError, match="seed alone"):
        Stack([VAE(SHAPE, **settings) for settings in ({"width": 8}, {"width": 8, **other})])


def test_a_folder_with_another_configuration_is_refused(images, tmp_path):
    jobs = [Job(VAE(SHAPE, width=16, seed=seed), images, small(), tmp_path / f"{seed}") for seed in (0, 1)]
    fit(*jobs[1])
    with pytest.raises(InputError, match="another configuration"):
        fit_many([jobs[0], jobs[1]._replace(training=small(seed=5))])
    assert not (tmp_path / "0").exists()


def test_divergence_names_the_member_and_leaves_the_others_alone(images, tmp_path):
    grid = Grid(betas=(1e300, 1), latent_dims=(3,), seeds=(2,))
    with pytest.raises(InputError, match=r"diverged.*beta=1e\+300.*seed 2"):
        trained(images, tmp_path, grid)
    jobs = grid.jobs(images, small(), tmp_path, **WIDTH)
    assert [Run(job.run_dir, job.model).finished for job in jobs] == [False, True]
    assert not list(tmp_path.glob("sweep-*"))


def test_a_member_that_recovers_is_the_model_trained_alone(tmp_path):
    """A batch that is not finite once spoils a stack, and costs a model that is trained alone one step."""
    settings = small(images=600)
    job = Job(VAE(SHAPE, latent_dim=2, width=16), Unreadable(noise(), 4), settings, tmp_path / "a")
    (found,) = fit_many([job])
    alone = fit(VAE(SHAPE, latent_dim=2, width=16), Unreadable(noise(), 4), settings, tmp_path / "b")
    assert_same(found.model.state_dict(), alone.model.state_dict())
    assert found.record["training"]["steps_skipped"] == 3  # one in each epoch


def test_as_many_models_at_once_as_half_of_the_memory_holds(monkeypatch):
    model, cpu = VAE(SHAPE, latent_dim=10, **WIDTH), torch.device("cpu")
    count = lambda **changes: cost.models_at_once(model, small(**changes), cpu)  # noqa: E731
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10**9)
    many = count()
    assert 1 < count(batch=200) < many
    assert cost.models_at_once(model, small(), cpu, total_correlation=True) < many
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2 * 10**9)
    assert count() == pytest.approx(2 * many, abs=1)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 0)
    assert count() == 1


@pytest.mark.cuda
@CUDA
def test_a_cuda_graph_trains_what_the_trainer_does(images, tmp_path):
    settings = small(objective=Objective(warmup=0.6), lr_decay_from=0.5)
    assert_members_equal_models_trained_alone(images, GRID, settings, tmp_path, 1e-4, **WIDTH)
