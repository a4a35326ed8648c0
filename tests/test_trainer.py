"""The trainer: resuming, determinism, the log, and the linear β-VAE whose optimum is known in closed form."""

import json
import math
import threading
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from vaestudy.data.imageset import ImageSet
from vaestudy.errors import InputError
from vaestudy.models import NVAE, VAE, NVAEConfig, Terms
from vaestudy.training import loop, trainer
from vaestudy.training import run as runs
from vaestudy.training.config import Order, Training, autocast, learning_rate
from vaestudy.training.objective import Objective
from vaestudy.training.trainer import fit

SHAPE = (1, 8, 8)


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    storage = torch.randint(0, 256, (200, *SHAPE), dtype=torch.uint8, generator=generator)
    return ImageSet("noise", SHAPE, storage)


def training(**changes):
    small = Training(images=200, batch=20, log_every=40, save_every=20, precision="fp32")
    return replace(small, **changes)


class Interrupted(Exception):
    pass


def interrupt_after(step):
    def on_step(done, parts):
        if done == step:
            raise Interrupted

    return on_step


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("network", ["kingma", "conv"])
@pytest.mark.parametrize("changes", [{}, {"optimizer": "adagrad"}, {"optimizer": "adamax", "ema": 0.9, "flip": True}])
def test_ten_steps_equal_five_and_five(images, tmp_path, network, changes):
    make = lambda: VAE(SHAPE, latent_dim=3, network=network, width=16)  # noqa: E731
    whole, parts = make(), make()
    fit(whole, images, training(**changes), tmp_path / "whole")
    with pytest.raises(Interrupted):
        fit(parts, images, training(**changes), tmp_path / "parts", on_step=interrupt_after(6))
    assert torch.load(tmp_path / "parts" / "state.pt", weights_only=True)["step"] == 5
    torch.rand(3)
    parts = make()
    resumed = fit(parts, images, training(**changes), tmp_path / "parts")
    assert same(whole, parts)
    for name in ("elbo_nats", "images_seen", "kl_nats"):
        expected = runs.Run(tmp_path / "whole", whole).history[name]
        assert np.array_equal(resumed.history[name], expected)


def test_a_finished_run_is_found_and_not_trained_again(images, tmp_path):
    first = VAE(SHAPE, latent_dim=3, network="kingma", width=16)
    path = runs.folder(tmp_path, "vae", first, images, training())
    fit(first, images, training(), path)
    again = VAE(SHAPE, latent_dim=3, network="kingma", width=16)
    assert runs.folder(tmp_path, "vae", again, images, training()) == path
    fit(again, images, training(), path, on_step=interrupt_after(1))
    assert same(first, again)


def test_the_folder_depends_on_every_part_of_the_configuration(images, tmp_path):
    model = VAE(SHAPE)
    variants = [
        (model, images, training()),
        (model, images, training(seed=1)),
        (model, images, training(objective=Objective(beta=2.0))),
        (model, images.select(slice(0, 100)), training()),
        (VAE(SHAPE, seed=1), images, training()),
    ]
    assert len({runs.folder(tmp_path, "vae", *parts) for parts in variants}) == len(variants)


def test_a_folder_with_another_configuration_is_refused(images, tmp_path):
    model = VAE(SHAPE, latent_dim=3, network="kingma", width=16)
    fit(model, images, training(), tmp_path / "run")
    before = sorted((p.name, p.stat().st_mtime_ns) for p in (tmp_path / "run").iterdir())
    with pytest.raises(InputError, match="another configuration"):
        fit(model, images, training(seed=1), tmp_path / "run")
    assert sorted((p.name, p.stat().st_mtime_ns) for p in (tmp_path / "run").iterdir()) == before


def test_a_folder_that_cannot_be_made_is_one_clear_line(images, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write") as caught:
        fit(VAE(SHAPE), images, training(), tmp_path / "file" / "run")
    assert "\n" not in str(caught.value)


def test_images_of_another_shape_are_refused(images, tmp_path):
    with pytest.raises(InputError, match="the model wants"):
        fit(VAE((1, 16, 16)), images, training(), tmp_path / "run")


def test_images_off_the_grid_of_their_bits_are_refused(images, tmp_path):
    model = VAE(SHAPE, network="kingma", likelihood="mixture", mixtures=2, bits=5)
    with pytest.raises(InputError, match="5 bits"):
        fit(model, images, training(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    fit(model, images.quantized(5), training(), tmp_path / "run")


def test_the_run_folder_is_complete_and_readable(images, tmp_path):
    run = fit(VAE(SHAPE, latent_dim=3, network="kingma", width=16), images, training(), tmp_path / "run")
    names = {"config.json", "metrics.jsonl", "model.safetensors", "state.pt", "result.json", "provenance.json"}
    assert {p.name for p in run.path.iterdir()} == names
    assert run.history["images_seen"].tolist() == [40, 80, 120, 160, 200]
    assert np.allclose(run.history["elbo_nats"], -run.history["nll_nats"] - run.history["kl_nats"])
    assert run.result["images_seen"] == 200
    assert {"commit", "torch", "device", "seed", "seconds", "data_checksum"} <= run.provenance.keys()
    assert run.record(score=0.5)["score"] == json.loads((run.path / "result.json").read_text())["score"] == 0.5


def test_training_leaves_the_global_generator_alone(images, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(VAE(SHAPE, network="kingma", width=8), images, training(), tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)


def test_each_epoch_shows_every_image_once():
    order = Order(103, 20, seed=4, device=torch.device("cpu"))
    epochs = [torch.cat([order(step) for step in range(5 * e, 5 * e + 5)]) for e in range(3)]
    assert all(len(epoch.unique()) == 100 for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    fresh = Order(103, 20, seed=4, device=torch.device("cpu"))
    assert torch.equal(fresh(12), order(12))
    assert not torch.equal(Order(103, 20, seed=5, device=torch.device("cpu"))(12), order(12))


def test_learning_rate_schedule():
    shape = training(learning_rate=2.0, rise=0.1, decay_from=0.5, decay_to=0.1)
    rates = [learning_rate(shape, p) for p in (0.0, 0.05, 0.1, 0.5, 0.75, 1.0)]
    assert rates == pytest.approx([0, 1, 2, 2, 2 * (0.1 + 0.9 * 0.5), 0.2])


def test_averaged_weights_follow_the_exponential_mean(images, tmp_path):
    plain, averaged = (VAE(SHAPE, latent_dim=2, network="linear") for _ in range(2))
    seen = []
    record = lambda step, parts: seen.append(plain.encoder[1].bias.detach().clone())  # noqa: E731
    fit(plain, images, training(), tmp_path / "plain", on_step=record)
    fit(averaged, images, training(ema=0.8), tmp_path / "averaged")
    expected = seen[0]
    for bias in seen[1:]:
        expected = 0.8 * expected + 0.2 * bias
    torch.testing.assert_close(averaged.encoder[1].bias.detach(), expected)


class Exploding(VAE):
    """A VAE whose third batch is not finite."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        terms = super().forward(x)
        return terms._replace(nll=terms.nll * math.nan) if self.calls == 3 else terms


def test_a_step_that_is_not_finite_is_skipped_and_counted(images, tmp_path):
    model = Exploding(SHAPE, latent_dim=2, network="kingma", width=8)
    run = fit(model, images, training(skip_above=50.0), tmp_path / "run")
    assert run.history["steps_skipped"][-1] == 1
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_without_skipping_a_divergence_stops_with_one_line(images, tmp_path):
    model = Exploding(SHAPE, latent_dim=2, network="kingma", width=8)
    with pytest.raises(InputError, match="diverged"):
        fit(model, images, training(), tmp_path / "run")


class Normals:
    """Vectors of independent normals with the given variances, standing in for an ImageSet."""

    def __init__(self, variances, count):
        generator = torch.Generator().manual_seed(0)
        vectors = torch.randn(count, len(variances), generator=generator)
        vectors = (vectors - vectors.mean(0)) / vectors.std(0, correction=0)
        self.vectors = vectors * torch.tensor(variances).sqrt()
        self.shape, self.checksum = (1, 1, len(variances)), ""

    def __len__(self):
        return len(self.vectors)

    def batch(self, index):
        return self.vectors[index].reshape(-1, *self.shape)

    def to(self, device):
        return self

    def describe(self):
        return {"name": "normals"}


class LinearVAE(VAE):
    """A linear VAE with the identity in place of a squashed mean and a fixed decoder variance."""

    variance = 0.5

    def forward(self, x, samples=1, analytic=True):
        mean, log_std = self.posterior(x)
        z = mean + log_std.exp() * torch.randn_like(mean)
        square = (self.decoder(z) - x).square().flatten(1).sum(1)
        nll = 0.5 * (square / self.variance + x[0].numel() * math.log(2 * math.pi * self.variance))
        return Terms(nll, self.kl_per_latent(x)[0].sum(1)[None])


@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_the_linear_beta_vae_reaches_its_closed_form(tmp_path, beta):
    """Reverse water-filling: a direction of variance l survives iff l > β s², with KL ½ ln(l / (β s²))."""
    eigenvalues = [6.0, 3.0, 1.2, 0.2]
    data = Normals(eigenvalues, count=2000)
    model = LinearVAE(data.shape, latent_dim=4, network="linear")
    recipe = Training(
        images=400_000, batch=250, learning_rate=0.02, decay_from=0.3, precision="fp32", objective=Objective(beta=beta)
    )
    fit(model, data, recipe, tmp_path / "run")
    with torch.no_grad():
        kl = model.kl_per_latent(data.batch(slice(None)))[0].mean(0).sum().item()
    pressed = beta * model.variance
    assert kl == pytest.approx(sum(0.5 * math.log(l / pressed) for l in eigenvalues if l > pressed), rel=0.03)  # noqa: E741


def test_training_goes_on_while_a_checkpoint_is_written(images, tmp_path, monkeypatch):
    write, later, kept = loop._write, threading.Event(), []

    def slowly(path, state):
        assert later.wait(60)  # a training that waited for this would never set the event
        kept.append(state)
        write(path, state)

    def on_step(step, parts):
        if step == 4:
            later.set()
        if step == 6:
            raise Interrupted

    monkeypatch.setattr(loop, "_write", slowly)
    make = lambda: VAE(SHAPE, latent_dim=3, network="kingma", width=16)  # noqa: E731
    settings = training(save_every=3 * 20)  # after the third step, and so on
    with pytest.raises(Interrupted):
        fit(make(), images, settings, tmp_path / "parts", on_step=on_step)
    assert [state["step"] for state in kept] == [3]
    assert torch.load(tmp_path / "parts" / "state.pt", weights_only=True)["step"] == 3
    assert same(*(fit(make(), images, settings, tmp_path / name).model for name in ("parts", "whole")))


def test_a_checkpoint_that_cannot_be_written_stops_the_training(images, tmp_path, monkeypatch):
    def full(path, state):
        raise OSError("No space left on device")

    monkeypatch.setattr(loop, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        fit(VAE(SHAPE), images, training(), tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()


def test_trainings_in_other_processes_are_watched_to_their_end(images, tmp_path, monkeypatch):
    shown = []

    class Bar:
        n = 0

        def update(self, more):
            self.n += more
            shown.append(self.n)

    def bar(name, images, done):
        assert (name, images, done) == ("2 models", 2 * recipe.steps * recipe.batch, 0)
        return nullcontext(Bar())

    recipe = training()
    monkeypatch.setattr(trainer, "progress_bar", bar)
    jobs = [(VAE(SHAPE, latent_dim=2, seed=seed), images, recipe, tmp_path / f"{seed}") for seed in (0, 1)]
    assert [run.images_seen for run in trainer.fit_together(jobs)] == [recipe.steps * recipe.batch] * 2
    assert shown == sorted(shown)
    assert shown[-1] == 2 * recipe.steps * recipe.batch


def test_runs_trained_side_by_side_are_the_runs_trained_alone(images, tmp_path):
    make = lambda seed: VAE(SHAPE, latent_dim=2, network="kingma", width=8, seed=seed)  # noqa: E731
    jobs = [(make(seed), images, training(seed=seed), tmp_path / f"together-{seed}") for seed in (0, 1)]
    together = trainer.fit_together(jobs)
    for seed, run in enumerate(together):
        alone = fit(make(seed), images, training(seed=seed), tmp_path / f"alone-{seed}").model
        for mine, theirs in zip(run.model.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("native", [True, False])
def test_on_a_cpu_bf16_is_chosen_where_it_pays(monkeypatch, native):
    monkeypatch.setattr("vaestudy.training.config.has_bf16_instructions", lambda: native)

    def chosen(model, precision="auto"):
        return autocast(training(precision=precision), model, torch.device("cpu"))._enabled

    dense, convolutional = VAE(SHAPE), VAE(SHAPE, network="conv")
    deep = NVAE(NVAEConfig(shape=SHAPE, channels=4, groups=(1, 1)))
    assert [chosen(model) for model in (dense, deep, convolutional)] == [native, native, False]
    assert chosen(convolutional, "bf16")
    assert not chosen(dense, "fp32")


@pytest.mark.parametrize("changes", [{"optimizer": "sgd"}, {"images": 0}, {"learning_rate": 0.0}, {"precision": "fp8"}])
def test_bad_settings(changes):
    with pytest.raises(InputError):
        training(**changes)


def test_synchronised_norms_cannot_be_recomputed_layer_by_layer(images, tmp_path):
    model = NVAE(NVAEConfig(shape=SHAPE, channels=4, groups=(1, 1), checkpoint="norm_act"))
    with pytest.raises(InputError, match="set checkpoint to cell or none"):
        fit(model, images, training(sync_norm=True), tmp_path / "run")


def test_a_run_tells_how_fast_and_with_how_much_memory(images, tmp_path):
    run = fit(VAE(SHAPE, latent_dim=2, network="linear"), images, training(), tmp_path / "run")
    assert run.provenance["processes"] == 1
    assert 0.05 < run.provenance["peak_memory_gib"] < 1024
    assert run.result["images_per_second"] == run.result["images_per_second_per_process"] > 0
