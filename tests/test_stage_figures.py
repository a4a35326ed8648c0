"""The figures and computed sentences of the stages: what they say must follow from the numbers that go in."""

import numpy as np
import pytest
import torch

from vaestudy import figures
from vaestudy.data import Factors, ImageSet
from vaestudy.errors import InputError
from vaestudy.models import NVAE, VAE, NVAEConfig


def sweep_rows(curve, sizes=(4,), noise=0.01):
    rows = []
    for size in sizes:
        for beta, score in curve.items():
            for seed in range(3):
                row = {"beta": beta, "beta_norm": beta * size / 256, "latent_dim": size, "seed": seed, "kind": "beta"}
                rows.append(row | {"higgins": score + noise * (seed - 1), "nll_nats": 10 + beta, "kl_nats": 5 / beta})
    return rows


@pytest.mark.parametrize(
    ("curve", "verdict", "words"),
    [
        ({0.1: 0.5, 1.0: 0.9, 10.0: 0.3}, True, "rises by 0.40 from β = 0.1 to 0.90 at β = 1 and falls by 0.60"),
        ({0.1: 0.9, 1.0: 0.9, 10.0: 0.3}, False, "does not clearly rise"),
        ({0.1: 0.3, 1.0: 0.5, 10.0: 0.9}, False, "does not clearly fall"),
    ],
)
def test_the_verdict_on_the_inverted_u_follows_from_the_curve(curve, verdict, words):
    said = figures.inverted_u(sweep_rows(curve), "higgins")
    assert words in said.caption
    assert said.data[4]["inverted_u"] is verdict
    assert said.data[4]["spread"] == pytest.approx(0.01)


def test_a_rise_within_the_spread_of_seeds_is_none():
    said = figures.inverted_u(sweep_rows({0.1: 0.5, 1.0: 0.55, 10.0: 0.5}, noise=0.2), "higgins")
    assert "0 of 1 latent sizes" in said.caption


def test_the_optimum_is_read_in_both_units():
    rows = sweep_rows({1.0: 0.9, 4.0: 0.5}, sizes=(4,)) + sweep_rows({1.0: 0.5, 4.0: 0.9}, sizes=(10,))
    said = figures.optimum_by_size(rows, "higgins")
    assert said.data == {4: {"beta": 1, "beta_norm": 4 / 256}, 10: {"beta": 4, "beta_norm": 40 / 256}}
    assert "needs more β and more β_norm" in said.caption


def test_means_are_means_over_seeds():
    assert figures.means(sweep_rows({1.0: 0.9, 4.0: 0.5}), "higgins") == pytest.approx({1.0: 0.9, 4.0: 0.5})


def test_factors_that_are_lost_are_named_with_their_beta():
    known = {1.0: np.array([0.9, 0.8, 0.01]), 4.0: np.array([0.3, 0.8, 0.0]), 16.0: np.array([0.0, 0.7, 0.0])}
    said = figures.factors_over_beta(known, ("scale", "x", "orientation"))
    assert said.alt == "Half of what was known is lost: scale at β = 4; x never. Known at no β: orientation."


def test_the_answer_about_beta_compares_group_by_group():
    rows = [
        {"model": "NVAE", "beta": b, "group": g, "mig": v}
        for b, g, v in ((1.0, 1, 0.1), (1.0, 2, 0.2), (4.0, 1, 0.3), (4.0, 2, 0.1))
    ]
    rows.append({"model": "flat VAE", "beta": 1.0, "group": 1, "mig": 0.5})
    said = figures.does_beta_disentangle(rows, "mig", "MIG").caption
    assert "+0.200 in group 1, -0.100 in group 2" in said
    assert "largest gain is +0.200, at β = 4 in group 1" in said
    assert "0.300, not above the flat VAE (0.500)" in said


def image_set(channels=1, side=16, count=40):
    storage = torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8)
    table = np.random.default_rng(0).integers(0, 3, (count, 2))
    return ImageSet("noise", (channels, side, side), storage, factors_of_rows=Factors(("a", "b"), (3, 3), table))


def test_figures_of_a_vae_render_and_describe_themselves():
    model, images = VAE((1, 16, 16), latent_dim=2, network="kingma", width=16), image_set()
    shown = [
        figures.examples(images, count=8, columns=4),
        figures.reconstructions(model, images, count=5),
        figures.manifold(model, side=4),
        figures.kl_spectrum(np.array([0.5, 2.0]), np.array([False, True])),
        figures.importance_ladder((1, 5), np.array([[-10.0, -11.0, -9.0], [-9.5, -10.0, -8.0]])),
        figures.correlations({"a": np.eye(3), "b": np.ones((3, 3))}, {"a": 0.5, "b": 0.1}, "score"),
    ]
    for figure in shown:
        assert "<svg" in figure._repr_html_()
        assert figure.alt in figure._repr_html_()
    assert "1 of 2 latents are active and share 2.5 nats" in shown[3].alt
    assert "mean 0.00" in shown[5].alt
    assert "mean 1.00" in shown[5].alt


def test_a_traversal_moves_one_latent_and_keeps_the_others():
    model, images = VAE((1, 16, 16), latent_dim=3, network="kingma", width=16), image_set()
    x = images.batch([0])
    (mean,) = model.encode(x)
    frames = figures.vae.traversal_frames(model, x, [1], torch.tensor([mean[0, 1].item(), 2.0]))
    torch.testing.assert_close(frames[0, :1], model.decode([mean]))
    moved = mean.clone()
    moved[0, 1] = 2
    torch.testing.assert_close(frames[0, 1:], model.decode([moved]))
    assert "z" in figures.traversal(model, images, frames=3)._repr_html_()


def test_the_manifold_needs_two_latents():
    with pytest.raises(InputError, match="2 latents"):
        figures.manifold(VAE((1, 16, 16), latent_dim=3))


def test_figures_of_a_hierarchy_render():
    config = NVAEConfig.preset("smoke", shape=(3, 16, 16))
    model, images = NVAE(config).eval(), image_set(channels=3)
    x = images.batch(slice(0, 4))
    with torch.no_grad():
        kl = {"β = 1": [group.numpy() for group in model.kl_per_latent(x)]}
    shown = [
        figures.architecture(config),
        figures.kl_by_group(kl),
        figures.samples_by_temperature(model, (0.5, 1.0), count=3, passes=2),
        figures.below_a_fixed_top(model, x, count=2),
        figures.interpolation(model, x, count=3),
        figures.reconstructions_by_depth(model, x),
    ]
    for figure in shown:
        assert "<svg" in figure._repr_html_()
    assert shown[2].data["finite"] is True
    assert len(shown[0].data["group_shapes"]) == 3


def test_the_nearest_training_image_of_a_copy_is_the_original():
    images = image_set(channels=3)
    found = figures.nearest_in_training(images.batch([7, 30]), images, batch=9)
    assert found.data["index"].tolist() == [7, 30]
    assert found.data["root_mean_squared_difference"] == pytest.approx([0, 0], abs=1e-3)
