"""The figures and computed sentences of the stages: what they say must follow from the numbers that go in."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from small_training import noise

from vaestudy import figures
from vaestudy.errors import InputError
from vaestudy.models import NVAE, VAE, NVAEConfig


def sweep_rows(curve, sizes=(4,), noise=0.01, kind="beta"):
    rows = []
    for size in sizes:
        for beta, score in curve.items():
            for seed in range(3):
                row = {"kind": kind, "beta": beta, "beta_norm": beta * size / 256, "latent_dim": size, "seed": seed}
                row |= {"higgins": score + noise * (seed - 1), "nll_nats": 10 + beta, "kl_nats": 5 / beta}
                rows.append(row | {"capacity": 0.0})
    return rows


def shows(output):
    """Renders an output, and checks what every one owes a report."""
    bundle = output._repr_mimebundle_()
    json.dumps(bundle, allow_nan=False)
    assert bundle[figures.MIME]["data"]
    assert not re.search(r"[a-z]+_(nats|vae|norm|dim)\b|(?<![\w)])-\d", f"{output.caption} {output.alt}")
    if isinstance(output, figures.Figure):
        assert "<svg" in bundle["text/html"]
        assert "<figcaption>" in bundle["text/html"]
    return output


def test_factors_that_are_lost_are_named_with_their_beta():
    known = {"scale": [0.9, 0.3, 0.0], "x": [0.8, 0.8, 0.7], "orientation": [0.01, 0.0, 0.0]}
    said = shows(figures.factors_over_beta(pd.DataFrame(known, index=[1.0, 4.0, 16.0])))
    assert said.alt == "Half of what was known is lost: scale at β = 4; x never. Known at no β: orientation."


def test_forty_factors_have_room_for_their_names():
    """CelebA's attributes; a chart too low for them would come with a warning, which fails a test."""
    known = pd.DataFrame([np.linspace(0, 1 / beta, 40) for beta in (1, 4)], index=[1.0, 4.0])
    assert "attribute 39 at β = 4" in shows(figures.factors_over_beta(known.add_prefix("attribute "))).alt


def hierarchy_rows():
    """Pressure empties the third group; under top_first, at β = 16 and there alone, the top group is in use."""
    rows = []
    for schedule, beta, nats in (
        ("none", 1.0, (0.0, 6.0, 6.0)), ("none", 16.0, (0.0, 0.5, 2.5)),
        ("top_first", 1.0, (0.0, 9.0, 1.0)), ("top_first", 16.0, (2.0, 0.5, 0.0)),
    ):  # fmt: skip
        for seed in range(3):
            noisy = [value + 0.1 * (seed - 1) * (value > 0) for value in nats]
            row = dict(zip(("top_nats", "second_nats", "third_nats"), noisy, strict=True))
            row |= {
                "top_live": (1 + (seed > 0)) * int(noisy[0] > 0),
                "top_higgins_5_draws": (0.65 + 5e-17, 0.7, 0.8)[seed],  # one latent rotates into itself, up to rounding
                "top_higgins_5_rotated": 0.65,
                "higgins_chance": 0.25,
            }
            about = {"network": "hierarchy", "schedule": schedule, "beta": beta, "seed": seed}
            rows.append({**about, "nats": sum(noisy), **row})
    return pd.DataFrame(rows)


SCHEDULES = {"none": "no schedule", "balance": "balanced", "top_first": "top first"}


def test_nats_of_groups_stand_in_a_panel_for_each_schedule_that_was_trained():
    shown = shows(figures.nats_by_group(hierarchy_rows(), SCHEDULES))
    assert [ax.get_title(loc="left") for ax in shown.fig.axes] == ["no schedule", "top first"]
    assert "top first: at β = 1 and 0.0/9.0/1.0, at β = 16 2.0/0.5/0.0" in shown.alt
    assert "95 % intervals over 3 seeds" in shown.caption
    assert "means over 2 seeds" in figures.nats_by_group(hierarchy_rows().query("seed < 2"), SCHEDULES).caption


def gathers(rows):
    """The sentences on where the code of some models is and how the group that holds most of it scores."""
    return shows(figures.where_the_code_gathers(rows, SCHEDULES, "our night")).data["sentences"]


def test_where_the_code_gathers_under_pressure():
    where, how = gathers(hierarchy_rows())
    assert where.startswith("In 12 models of our night, 3 seeds a setting")
    assert "β = 16 (and at β = 1) is 0.80 (0.00) top first and 0.00 (0.00) no schedule" in where
    for part in ("draws score 0.72", "chance 0.25; live latents: 1.7", "rotations of them 0.65: 2 of 3 models"):
        assert part in how
    assert "(1 has one live latent" in how
    assert "in use in none" in gathers(hierarchy_rows().query("schedule == 'none'"))[1]


def test_one_group_alone_stands_beside_where_the_code_gathers():
    alone = {"network": "one group", "beta": 16.0, "higgins_5_draws": 0.9, "nats": 2.0, "top_nats": 2.0}
    beside = pd.concat([hierarchy_rows(), pd.DataFrame([{**alone, "seed": seed} for seed in range(2)])])
    where, how = gathers(beside)
    assert "2 seeds a setting" in where
    assert how.endswith("one group alone scores 0.90 at this β.")
    better = pd.DataFrame([{**alone, "seed": 0, "beta": 4.0, "higgins_5_draws": 0.95}])
    assert gathers(pd.concat([beside, better]))[1].endswith("0.90 at this β and 0.95 at its best, β = 4.")


TWO_SIZES = sweep_rows({0.1: 0.5, 3.0: 0.9, 10.0: 0.3}, sizes=(10.0, 4.0))  # as tables with gaps have them


def test_scores_stand_at_the_trained_betas():
    shown = shows(figures.score_over_beta(TWO_SIZES, {"higgins": "Higgins"}, chance={"higgins": 0.25}))
    assert "Trained: β = 0.1, 3, 10." in shown.caption
    assert "β_norm" in shown.fig.axes[0].get_xlabel()
    assert shown.alt == "Higgins, M = 4: best 0.90 at β = 3; Higgins, M = 10: best 0.90 at β = 3."
    for name in ("chance", "ceiling", "M = 10"):
        assert f">{name}<" in shown.svg
    one_size = figures.score_over_beta(TWO_SIZES[:9], {"higgins": "Higgins"}, chance={"higgins": 0.25})
    assert [label.get_text() for label in one_size.fig.axes[0].get_xticklabels()] == ["0.1", "3", "10"]


def test_the_best_of_a_sweep_is_named():
    rows = [*TWO_SIZES, *sweep_rows({2.0: 0.6, 4.0: 0.7}, kind="total_correlation")]
    shown = shows(figures.objectives(rows, "higgins", "Higgins"))
    assert shown.alt == "Best mean score: β-VAE 0.90; β-TCVAE 0.70."
    shown = shows(figures.reconstruction_against_score(TWO_SIZES, "higgins", "Higgins"))
    assert shown.alt == "The best reconstruction scores 0.49; the best score is 0.91."


def test_what_a_profile_does_not_train_is_said():
    nothing = pd.DataFrame()
    for shown in (figures.objectives(nothing, "higgins", "Higgins"), figures.novelty_table(nothing, {"a": [0]})):
        assert "the night profile does" in shows(shown).caption


def test_labels_and_weak_labels_choose_a_beta_each():
    picks = {"all labels": {1.0: 0.2, 4.0: 0.5}, "weak labels": {1.0: 0.3, 4.0: 0.1}}
    shown = shows(figures.weak_labels(picks, chance=0.25))
    assert shown.alt == "all labels choose β = 4; weak labels choose β = 1."
    assert ">chance<" in shown.svg
    assert ">chance<" not in figures.weak_labels(picks).svg


def test_what_the_number_of_pairs_decides_follows_from_the_scores():
    pairs, scores = (1, 5, 20), {"true": 1.0, "without b": 0.7, "turned": 0.9}
    curves = {name: np.array([0.5, score, score]) for name, score in scores.items()}
    assert "turned: 0.50, 0.90, 0.90" in shows(figures.score_over_pairs(curves, pairs, 0.25)).alt
    assert "0.30 below the true factors: the score notices" in shows(figures.what_pairs_do(curves, pairs, 4)).caption


def test_the_latent_that_tells_most_of_a_factor_is_named():
    share = np.array([[0.9, 0.1], [0.0, 0.6]])
    assert shows(figures.information({"VAE": share}, ("a", "b"))).alt == "VAE: a in z0, b in z1."


def test_the_latents_that_swing_with_a_factor_are_named():
    factors = np.stack([axis.ravel() for axis in np.meshgrid(*[np.arange(n) for n in (4, 3, 5, 2)])], 1)
    codes = np.stack([factors[:, 0], factors[:, 2], factors[:, 1]], 1).astype(float)
    shown = shows(figures.latent_responses(codes, factors, [0, 1], ("x", "y", "orientation", "shape")))
    assert shown.alt == "Latents that swing with orientation: z1."
    assert shown.data.iloc[0][["x", "orientation"]].tolist() == pytest.approx([3, 0])
    # Where those four are not known: by the number of values.
    shown = figures.latent_responses(codes, factors, [0, 2], ("b", "a", "c", "d"))
    assert shown.alt == "Latents that swing with a: z2."
    few = shows(figures.latent_responses(codes, factors[:, :2], [0, 1], ("a", "b")))
    assert few.alt.startswith("z0 swings most with a")


def test_combinations_that_were_never_seen_stand_beside_those_that_were():
    rows = [
        {"beta": beta, "images": where, "nll": 20.0 + seed, "higgins": 0.5}
        for where, beta, seed in (("seen", 4.0, 0), ("seen", 4.0, 2), ("never", 4.0, 0), ("seen", 1.0, 0))
    ]
    shown = shows(figures.novelty_table(rows, {"shape": [2], "y": [3, 4]}))
    assert [(row["β"], row["combinations"], row["reconstruction, nats"]) for row in shown.data] == [
        (1.0, "seen", "20.00 ± 0.00"),
        (4.0, "seen", "21.00 ± 1.41"),
        (4.0, "never", "20.00 ± 0.00"),
    ]
    assert "shape 2 and y 3 to 4" in shown.caption


def test_scores_in_percent_stand_beside_the_published_ones():
    report = SimpleNamespace(mean=0.5, std=0.01, best_mean=0.6, best_std=0.02, scores=np.zeros((10, 3)))
    shown = shows(figures.score_table({"VAE": {5: report}}, {"VAE": "61.58", "InfoGAN": "73.5"}))
    assert "10 models and 3 classifier seeds" in shown.caption
    ours = {"L = 5, all": "50.0 ± 1.0", "L = 5, best half": "60.0 ± 2.0"}
    assert shown.data == [
        {"code": "VAE", **ours, "published": "61.58"},
        {"code": "InfoGAN", "published": "73.5"},
    ]


def test_figures_of_a_vae_render_and_describe_themselves():
    model, images = VAE((1, 16, 16), latent_dim=2, network="kingma", width=16), noise((1, 16, 16), 40)
    few = shows(figures.examples(images.select([0, 1, 2]), columns=4))
    assert few.caption.startswith("3 of the 3 images")
    shows(figures.reconstructions(model, images, count=5))
    shows(figures.manifold(model, side=4))
    with pytest.raises(InputError, match="2 latents"):
        figures.manifold(VAE((1, 16, 16), latent_dim=3))


def test_active_latents_are_counted_and_their_nats_added():
    shown = shows(figures.kl_spectrum(np.array([0.5, 2.0]), np.array([False, True])))
    assert shown.alt == "1 of 2 latents are active; all share 2.5 nats."


def test_the_interval_of_a_bound_is_of_the_gain_on_the_elbo():
    shown = shows(figures.importance_ladder((1, 5), np.array([[-10.0, -11.0, -9.0], [-9.5, -10.0, -8.0]])))
    assert shown.data["mean"].tolist() == pytest.approx([-10, -55 / 6])
    assert shown.data["sem"].tolist() == pytest.approx([0, 1 / 6])


def test_correlations_stand_beside_a_score_where_there_is_one():
    codes = {"a": np.eye(3), "b": np.ones((3, 3))}
    shown = shows(figures.correlations(codes, {"a": 0.5}, "score"))
    assert shown.alt == "a: mean 0.00, score 0.50; b: mean 1.00."
    assert "(score)" in shown.caption
    assert "two known factors" in shows(figures.correlations(codes, {}, "score")).caption


def test_the_least_and_the_most_variance_of_a_gradient_are_named():
    shown = shows(figures.gradient_spread({"A": {1: 4.0, 10: 0.4}, "B": {1: 2.0, 10: 0.2}}))
    assert shown.alt == "At L = 1 the variance is 2.000 for B and 4.000 for A."
    assert "mathdefault" not in shown.svg  # as matplotlib would name what lies within a decade


@pytest.mark.parametrize(("last", "end"), [(40, -50.0), (100, -80.0)])
def test_training_curves_leave_out_a_last_interval_that_is_shorter(last, end):
    seen = np.array([100, 200, 300, 300 + last])
    nll = np.array([90.0, 60.0, 40.0, 70.0])
    run = SimpleNamespace(
        history={"images_seen": seen, "nll_nats": nll, "kl_nats": nll * 0 + 10, "elbo_nats": -nll - 10}
    )
    shown = shows(figures.training_curves({"VAE": run}))
    assert shown.alt == f"Curves that end at VAE: ELBO −{-end:.1f} nats."
    assert shown.data["images_seen"].max() == (400 if last == 100 else 300)


def test_a_traversal_moves_one_latent_and_keeps_the_others():
    model, images = VAE((1, 16, 16), latent_dim=3, network="kingma", width=16), noise((1, 16, 16), 40)
    x = images.batch([0])
    (mean,) = model.encode(x)
    frames = figures.moving.traversal_frames(model, mean, [1, 2], torch.tensor([mean[0, 1].item(), 2.0]))
    torch.testing.assert_close(frames[0, :1], model.decode([mean]))
    moved = mean.clone()
    moved[0, 1] = 2
    torch.testing.assert_close(frames[0, 1:], model.decode([moved]))
    assert "z = −3.00" in shows(figures.traversal(model, images, frames=3))._repr_html_()


def test_figures_of_a_hierarchy_render():
    config = NVAEConfig.preset("smoke", shape=(3, 16, 16))
    model, images = NVAE(config).eval(), noise(config.shape, 40)
    x = images.batch(slice(0, 4))
    with torch.no_grad():
        kl = [group.numpy() for group in model.kl_per_latent(x)]
    shown = shows(figures.architecture(config))
    assert len(shown.data["group_shapes"]) == 3
    assert "p(x|z)" in shown.svg
    shown = shows(figures.kl_by_group({"β = 1": kl, "β = 2": [2 * group for group in kl]}))
    of = shown.data.groupby("model")["KL, nats per image"].sum()
    assert of["β = 1"] == pytest.approx(sum(group.sum() for group in kl) / 4, rel=1e-5)
    assert shows(figures.samples_by_temperature(model, (0.5, 1.0), "β = 1", count=3, passes=2)).data["finite"] is True
    shows(figures.below_a_fixed_top(model, x, count=2))
    shows(figures.interpolation(model, x, count=3))
    shows(figures.reconstructions_by_depth(model, x))


def test_the_nearest_training_image_of_a_copy_is_the_original():
    images = noise((3, 16, 16), 40)
    found = shows(figures.nearest_in_training(images.batch([7, 30]), images, batch=9))
    assert found.data["index"].tolist() == [7, 30]
    assert found.data["root_mean_squared_difference"] == pytest.approx([0, 0], abs=1e-3)
