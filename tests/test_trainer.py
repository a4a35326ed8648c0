"""The loop: stopped and resumed, found again, refused, diverging, and the β-VAE whose optimum has a closed form."""

import math
import os
import signal
import threading
import time

import numpy as np
import pytest
import torch
from small_training import (
    REGULARISED,
    SHAPE,
    STEPS,
    Interrupted,
    Own,
    Poisoned,
    assert_same,
    assert_same_history,
    deep,
    dense,
    fit,
    interrupt_after,
    noise,
    small,
    start,
)

from vaestudy.errors import InputError
from vaestudy.files import write_json
from vaestudy.models import VAE, Terms
from vaestudy.training import Objective, Training, folder
from vaestudy.training.run import Run, owned


@pytest.fixture
def images():
    return noise()


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (dense, {"grad_skip_factor": 0.7}),
        (dense, {"optimizer": "adagrad"}),
        (lambda: dense(network="conv"), {"optimizer": "adamax", "ema": 0.9, "flip": True}),
        (dense, {"objective": Objective(kind="total_correlation", beta=3.0, warmup=0.5), "micro_batches": 2}),
        (deep, {"optimizer": "adamax", "ema": 0.9, "grad_skip_factor": 1.05, "objective": REGULARISED}),
        (Own, {"lr_warmup": 0.3, "lr_decay_from": 0.5}),
    ],
)
def test_ten_steps_equal_five_a_stop_and_five(make, changes, images, tmp_path):
    settings, steps = small(**changes), []
    whole = fit(make(), images, settings, tmp_path / "whole")
    with pytest.raises(Interrupted):
        fit(make(), images, settings, tmp_path / "parts", checkpoint_seconds=0.0, on_step=interrupt_after(5))
    assert not Run(tmp_path / "parts", whole.model).finished
    torch.rand(3)
    parts = fit(make(), images, settings, tmp_path / "parts", on_step=steps.append)
    assert steps == [6, 7, 8, 9, 10]
    assert_same(parts.model.state_dict(), whole.model.state_dict())
    assert_same_history(parts, whole)
    if settings.grad_skip_factor:
        assert 0 < whole.history["steps_skipped"].iloc[-1] < STEPS


def test_a_second_signal_acts_at_once_and_handlers_are_put_back(images, tmp_path):
    def impatient(step):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("still here")

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt, match="at once"):
        fit(dense(), images, small(), tmp_path / "run", on_step=impatient)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_training_in_a_thread_needs_no_signals(images, tmp_path):
    thread = threading.Thread(target=fit, args=(dense(), images, small(), tmp_path / "run"))
    thread.start()
    thread.join()
    assert Run(tmp_path / "run", dense()).finished


def test_a_finished_run_is_found_and_not_trained_again(images, tmp_path):
    first, again = dense(), dense()
    path = folder(tmp_path, "vae", first, images, small())
    fit(first, images, small(), path)
    assert folder(tmp_path, "vae", again, images, small()) == path
    fit(again, images, small(), path, on_step=interrupt_after(1))
    assert_same(first.state_dict(), again.state_dict())


SECOND = """
import sys
import small_training as shared
from vaestudy.models import VAE

steps = []
run = shared.fit(VAE(shared.SHAPE, width=16), shared.noise(), shared.small(), sys.argv[1], on_step=steps.append)
print(len(steps), "steps of", run.images_seen, "images")
"""


def test_a_second_process_waits_and_finds_the_finished_run(images, tmp_path):
    others = []

    def on_step(step):
        if step == 5:
            others.append(start(["-c", SECOND], tmp_path / "run"))
            assert others[0].stdout.readline().startswith("waiting for the process that trains")

    fit(VAE(SHAPE, width=16), images, small(), tmp_path / "run", on_step=on_step)
    said, errors = others[0].communicate(timeout=100)
    assert said == "0 steps of 200 images\n", errors


def test_a_folder_with_another_configuration_is_refused(images, tmp_path):
    fit(dense(), images, small(), tmp_path / "run")
    before = sorted((p.name, p.stat().st_mtime_ns) for p in (tmp_path / "run").iterdir())
    with pytest.raises(InputError, match="another configuration"):
        fit(dense(), images, small(seed=1), tmp_path / "run")
    assert sorted((p.name, p.stat().st_mtime_ns) for p in (tmp_path / "run").iterdir()) == before


def test_the_configuration_is_looked_at_again_after_waiting_for_another_process(images, tmp_path, capsys):
    caught, said = [], ""

    def second():
        with pytest.raises(InputError, match="another configuration"):
            fit(dense(), images, small(seed=1), tmp_path)
        caught.append(True)

    thread = threading.Thread(target=second)
    with owned([Run(tmp_path, dense())]):
        thread.start()
        while "waiting for the process" not in said and thread.is_alive():
            time.sleep(0.01)
            said += capsys.readouterr().out
        write_json(tmp_path / "config.json", ["another"])
    thread.join()
    assert caught


@pytest.mark.parametrize(
    ("make", "images", "changes", "message"),
    [
        (lambda: VAE((1, 16, 16)), noise(), {}, r"\(1, 8, 8\).*\(1, 16, 16\)"),
        (lambda: dense(likelihood="mixture", mixtures=2, bits=5), noise(), {}, "5 bits"),
        (dense, noise(count=1), {}, "2 images"),
        (dense, noise(count=3), {"micro_batches": 4}, "micro_batches"),
        (dense, noise(), {"batch": 1, "objective": Objective(kind="total_correlation")}, "batch of 1"),
        (lambda: deep(checkpoint="norm_act"), noise(), {"sync_norm": True}, "checkpoint"),
        (dense, noise(), {"objective": Objective(balance=True)}, "group_shapes"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(make, images, changes, message, tmp_path):
    with pytest.raises(InputError, match=message):
        fit(make(), images, small(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_run_folder_is_complete_and_readable(images, tmp_path):
    run = fit(dense(), images, small(), tmp_path / "run", checkpoint_seconds=0.0)
    assert {p.name for p in run.path.iterdir()} - {".lock"} == {
        "config.json",
        "metrics.jsonl",
        "model.safetensors",
        "record.json",
    }
    assert run.history["images_seen"].tolist() == [40, 80, 120, 160, 200]
    assert np.allclose(run.history["elbo_nats"], -run.history["nll_nats"] - run.history["kl_nats"])
    assert run.record["config"] == run.config
    assert run.record["training"]["images_seen"] == 200
    assert run.record["training"]["elbo_nats"] == run.history["elbo_nats"].iloc[-1]
    assert run.record["training"]["images_per_second"] > 0
    assert {"commit", "torch", "device", "seed", "seconds", "data_checksum"} <= run.provenance.keys()
    assert run.provenance["processes"] == run.provenance["models_at_once"] == 1
    assert 0.05 < run.provenance["peak_memory_gib"] < 1024


def test_the_log_holds_means_over_its_interval(tmp_path):
    """With the learning rate at 0 every epoch costs the same: an untrained model's nll and KL of all images."""
    images = noise(count=40)
    model = VAE(SHAPE, latent_dim=2, network="linear")
    with torch.no_grad():
        kl = model.kl_per_latent(images.batch(slice(None)))[0].sum(1).mean().item()
    run = fit(model, images, small(images=120, learning_rate=1e-12), tmp_path / "run")
    assert run.history["kl_nats"].tolist() == pytest.approx([kl] * 3, rel=1e-4)


def test_counts_are_true_when_the_set_is_smaller_than_the_batch(tmp_path):
    steps = []
    settings = Training(images=20, batch=128, log_every=10, precision="fp32")
    run = fit(dense(), noise(count=5), settings, tmp_path / "run", on_step=steps.append)
    assert steps == [1, 2, 3, 4]
    assert run.history["images_seen"].tolist() == [10, 20]
    assert run.record["training"]["images_seen"] == 20


def test_training_leaves_the_global_generator_alone(images, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(dense(), images, small(), tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)


def test_averaged_weights_follow_the_exponential_mean(images, tmp_path):
    plain, averaged = (VAE(SHAPE, latent_dim=2, network="linear") for _ in range(2))
    seen = []
    record = lambda step: seen.append(plain.encoder[1].bias.detach().clone())  # noqa: E731
    fit(plain, images, small(), tmp_path / "plain", on_step=record)
    fit(averaged, images, small(ema=0.8), tmp_path / "averaged")
    expected = seen[0]
    for bias in seen[1:]:
        expected = 0.8 * expected + 0.2 * bias
    torch.testing.assert_close(averaged.encoder[1].bias.detach(), expected)


@pytest.mark.parametrize(
    ("make", "log_every", "factor"), [(dense, 20, 0.0), (dense, 40, 50.0), (Own, 40, 0.0), (Own, 200, 50.0)]
)
def test_a_step_that_is_not_finite_is_skipped_and_counted(make, log_every, factor, images, tmp_path):
    settings = small(grad_skip_factor=factor, ema=0.5, log_every=log_every)
    run = fit(make(), Poisoned(images, range(2, 4)), settings, tmp_path / "run")
    assert run.history["steps_skipped"].iloc[-1] == run.record["training"]["steps_skipped"] == 2
    assert np.isfinite(run.history["loss"]).all()
    assert all(value.isfinite().all() for value in run.model.state_dict().values())


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

    def forward(self, x, samples=1):
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
        images=200_000,
        batch=250,
        learning_rate=0.02,
        lr_decay_from=0.3,
        precision="fp32",
        objective=Objective(beta=beta),
    )
    fit(model, data, recipe, tmp_path / "run")
    with torch.no_grad():
        kl = model.kl_per_latent(data.batch(slice(None)))[0].mean(0).sum().item()
    pressed = beta * model.variance
    assert kl == pytest.approx(sum(0.5 * math.log(l / pressed) for l in eigenvalues if l > pressed), rel=0.03)  # noqa: E741
