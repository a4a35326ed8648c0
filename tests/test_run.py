"""Run folders: whole writes, stable hashes, logs that agree with their checkpoint, codes and bounds."""

import json
import math

import numpy as np
import pytest
import torch
from small_training import Own

from vaestudy.data import Factors, ImageSet
from vaestudy.errors import InputError
from vaestudy.files import write_json
from vaestudy.models import VAE
from vaestudy.training import Objective, Run, Training, folder
from vaestudy.training.provenance import provenance
from vaestudy.training.run import describe


def image_set(count=30):
    storage = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8)
    table = np.arange(2 * count).reshape(count, 2) % 7
    return ImageSet("noise", (1, 8, 8), storage, factors_of_rows=Factors(("a", "b"), (7, 7), table))


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path, VAE((1, 8, 8), latent_dim=3, network="kingma", width=8).eval())


def test_a_file_is_replaced_whole_or_left_alone(tmp_path):
    path = tmp_path / "numbers.json"
    write_json(path, {"a": np.float32(1), "b": torch.ones(2)})
    assert json.loads(path.read_text()) == {"a": 1.0, "b": [1.0, 1.0]}
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1.0, "b": [1.0, 1.0]}
    assert [p.name for p in tmp_path.iterdir()] == ["numbers.json"]


def test_the_same_configuration_finds_the_same_folder(tmp_path):
    first = folder(tmp_path, "vae", Training(images=200), {"b": 1, "a": 2})
    assert first == folder(tmp_path, "vae", Training(images=200), {"a": 2, "b": 1})
    assert first.name.startswith("vae-")


def test_the_folder_depends_on_every_part_of_the_configuration(tmp_path):
    model, images, training = VAE((1, 8, 8)), image_set(), Training(images=200)
    variants = [
        (model, images, training),
        (model, images, Training(images=200, seed=1)),
        (model, images, Training(images=200, objective=Objective(beta=2.0))),
        (model, images.select(slice(0, 10)), training),
        (VAE((1, 8, 8), seed=1), images, training),
        (VAE((1, 8, 8), latent_dim=9), images, training),
    ]
    assert len({folder(tmp_path, "vae", *parts) for parts in variants}) == len(variants)


def test_a_model_without_a_configuration_is_known_by_its_class_and_first_weights():
    first, again, other = Own(seed=0), Own(seed=0), Own(seed=1)
    assert describe(first) == describe(again) != describe(other)
    assert list(describe(first)[0]) == ["Own"]
    with torch.no_grad():
        again.net[2].num_batches_tracked += 1
    assert describe(first) != describe(again)


def test_provenance_needs_no_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    about = provenance(device="here")
    assert (about["commit"], about["modified"], about["device"]) == (None, False, "here")
    assert about["torch"] == torch.__version__
    assert about["cpu"]


def test_the_record_grows_and_finishes_the_run(run):
    assert not run.finished
    run.update_record(config=[1], training={"elbo_nats": np.float32(-3)})
    assert run.finished
    run.update_record(score=(0.5, 1))
    assert run.record == {"config": [1], "training": {"elbo_nats": -3.0}, "score": [0.5, 1]}


def test_the_log_keeps_what_the_checkpoint_knows(run):
    assert run.images_seen == 0
    for seen in (10, 20, 30):
        run.append({"images_seen": seen, "loss": float(seen)})
    with (run.path / "metrics.jsonl").open("a") as log:
        log.write('{"images_seen": 40, "lo')
    assert run.images_seen == 30  # of the last whole line
    assert repr(run) == f"Run({type(run.model).__name__} in {run.path}, 30 images seen)"
    run.truncate_log(20)
    assert run.history["images_seen"].tolist() == [10, 20]


def test_codes_are_posterior_means_whatever_the_batch(run):
    images = image_set()
    codes, factors = run.codes(images)
    in_pieces, _ = run.codes(images, batch=7)
    np.testing.assert_allclose(codes, in_pieces, atol=1e-6)
    with torch.no_grad():
        np.testing.assert_allclose(codes, run.model.encode(images.batch(slice(None)))[0], atol=1e-6)
    assert np.array_equal(factors, images.factors.values(slice(None)))
    some, labels = run.codes(images, index=[4, 2])
    np.testing.assert_allclose(some, codes[[4, 2]], atol=1e-6)
    assert np.array_equal(labels, factors[[4, 2]])


class Pyramid(torch.nn.Module):
    """Two groups of latent maps: pooled codes have a known answer."""

    def __init__(self):
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def encode(self, x):
        return [x.mean((2, 3), keepdim=True).expand(-1, 2, 1, 1), x[:, :, ::2, ::2]]


def test_latent_maps_are_pooled_to_their_mean(tmp_path):
    images = image_set()
    pyramid = Run(tmp_path, Pyramid())
    x = images.batch(slice(None))
    assert pyramid.codes(images)[0].shape == (30, 3)
    np.testing.assert_allclose(pyramid.codes_by_group(images)[0][1][:, 0], x[:, :, ::2, ::2].mean((1, 2, 3)), atol=1e-6)


def test_the_bound_is_the_mean_over_unequal_batches(run):
    images = image_set()
    for parameter in run.model.encoder.parameters():
        torch.nn.init.zeros_(parameter)  # q(z|x) = p(z): the KL is 0
    for parameter in run.model.decoder.parameters():
        torch.nn.init.zeros_(parameter)  # every pixel 1/2: 64 ln 2 nats
    bound = run.bound(images, batch=8)
    assert bound["nll_nats"] == pytest.approx(64 * math.log(2))
    assert bound["kl_nats"] == pytest.approx(0, abs=1e-6)
    assert bound["bits_per_dim"] == pytest.approx(1)
    assert run.log_weights(images, 3, batch=8) == pytest.approx(np.full((30, 3), -64 * math.log(2)), rel=1e-5)


def test_damaged_weights_are_one_clear_line(run):
    (run.path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match="cannot be read"):
        run.load()
