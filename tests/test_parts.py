"""The parts of stages 1 and 2 at toy size: that they give what claims read, and what is known of their numbers."""

import numpy as np
import pandas as pd
import pytest
import torch
from small_training import small

from vaestudy import claims, metrics
from vaestudy.data import Factors, ImageSet, dsprites
from vaestudy.errors import InputError
from vaestudy.experiments import (
    beta_vae,
    beta_vae_parts,
    controls,
    evidence,
    losses,
    scores,
    sweep_tables,
    vae,
    vae_parts,
)
from vaestudy.models import VAE
from vaestudy.settings import VAESettings
from vaestudy.training import Run, sweep

SIDE = 8
SIZES = {
    "dataset": "squares",
    "image_size": SIDE,
    "network": "mlp",
    "width": 16,
    "likelihood": "bernoulli",
    "training": small(images=400),
    "latent_dim": 4,
    "grid_images": 3_000,
    "test_images": 50,
    "pairs": 5,
    "labels": 100,
    "label_subsets": 2,
    "rotations": 2,
}
SWEEP = {"latent_dims": (10,), "betas": (1.0, 4.0, 8.0)}
CHANGES = {
    "gradients": {"gradient_draws": 20},
    "samples": {"batches": (100, 10)},
    "overfitting": {"latent_dims": (10, 50), "train_size": 2_000},
    "latents": {"latent_dims": (20, 50)},
    "codes": {"betas": (1.0, 4.0, 8.0)},
    "sweep32": {},
    "curve32": {},
    "spectra": {},
    "sizes": {"latent_dims": (4, 10, 32), "beta_norms": (0.1, 0.4, 1.6)},
    "paper64": {},
    "ica64": {},
    "faces": {},
    "dropping": {},
    "objectives": {"capacities": (2.0, 4.0), "tc": (4.0,)},
    "combinations": {},
}
CLAIMS = {
    "gradients": ["1.1"],
    "samples": ["1.2"],
    "overfitting": ["1.3"],
    "latents": ["1.4"],
    "codes": ["1.5"],
    "sweep32": ["2.1", "2.2", "2.3", "2.4", "2.6", "2.7", "2.10", "2.12"],
    "sizes": ["2.9"],
    "faces": ["2.8"],
    "dropping": ["2.13"],
    "spectra": ["2.14"],
}


def squares():
    """Squares of two sizes and twenty shades, at eight places each way: a full grid of factors."""
    known = Factors(("size", "shade", "y", "x"), (2, 20, SIDE, SIDE))
    pixels = np.zeros((len(known), 1, SIDE, SIDE), np.uint8)
    for image, (size, shade, y, x) in zip(pixels[:, 0], known.values(slice(None)), strict=True):
        rows, columns = np.arange(y, y + 2 + size) % SIDE, np.arange(x, x + 2 + size) % SIDE
        image[np.ix_(rows, columns)] = 255 - 10 * shade
    return ImageSet.from_array(pixels, known, name="squares")


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """The records of three seeds of each part, made when first asked for."""
    folder, made = tmp_path_factory.mktemp("parts"), {}
    patch = pytest.MonkeyPatch()
    patch.setattr(evidence.data, "load", lambda *_, **__: squares())

    def frame(name, records=folder):
        if (name, records) not in made:
            grid = SWEEP if evidence.PARTS[name].stage == "beta_vae" else {}
            context = evidence.Context({**SIZES, **grid, **CHANGES[name]}, None, folder / "runs")
            made[name, records] = evidence.run_piece(evidence.PARTS[name], context, (0, 1, 2), "00", records)
        return made[name, records]

    yield frame
    patch.undo()


@pytest.mark.parametrize("name", CHANGES)
def test_a_part_gives_what_its_claims_read(name, frames):
    frame = frames(name)
    assert set(frame["seed"]) == {0, 1, 2}
    assert frame["part"].eq(name).all()
    found = {claim["id"]: claim for claim in claims.evaluate(frame, "test")}
    for number in CLAIMS.get(name, ()):
        reason = found[number]["reason"] or ""
        assert not any(lack in reason for lack in ("cannot give", "no model has", "have no")), (number, reason)


def test_the_sweep_has_the_scores_that_its_page_shows(frames):
    frame = frames("sweep32")
    for name in ("factor_vae", "higgins_5_draws", "mig_draws", "higgins_5_rotated", "r2_x", "live", "elbo", "nats"):
        assert np.isfinite(frame[name]).all(), name


def test_linear_codes_and_the_paper_s_sweep_are_compared(frames):
    both = pd.concat([frames("paper64"), frames("ica64")], ignore_index=True)
    found = {claim["id"]: claim for claim in claims.evaluate(both, "test")}
    assert "sign-flips need ten" in found["2.5"]["reason"]
    assert frames("paper64").groupby("seed")["pca_higgins_5"].nunique().eq(1).all()
    assert frames("ica64")["converged"].isin([True, False]).all()


def test_few_training_images_are_of_every_kind(monkeypatch, tmp_path):
    monkeypatch.setattr(evidence.data, "load", lambda *_, **__: squares())
    few = vae_parts.smaller_set(evidence.Context(SIZES | {"train_size": 300}, None, tmp_path))
    assert len(few) == 300
    assert [len(np.unique(column)) for column in few.factors.values(slice(None)).T] == [2, 20, SIDE, SIDE]


@pytest.mark.parametrize("name", ["codes", "dropping"])
def test_live_latents_are_counted_over_images_of_every_kind(name, frames, monkeypatch, tmp_path):
    frames(name)  # trains
    seen, nats, bounds = [], Run.kl_by_latent, sweep.bounds

    def of_run(run, images, index):
        seen.append(images.select(index))
        return nats(run, images, index)

    def of_runs(runs, images):
        seen.append(images)
        return bounds(runs, images)

    monkeypatch.setattr(beta_vae_parts, "BOUND_IMAGES", 500)
    monkeypatch.setattr(Run, "kl_by_latent", of_run)
    monkeypatch.setattr(sweep, "bounds", of_runs)
    frames(name, tmp_path)
    assert seen
    for images in seen:
        assert [len(np.unique(column)) for column in images.factors.values(slice(None)).T] == [2, 20, SIDE, SIDE]


def test_larger_latents_have_the_same_normalised_pressure(frames):
    frame = frames("sizes")
    norm = (frame["beta"] * frame["latent_dim"] / SIDE**2).round(4)
    assert norm.groupby(frame["latent_dim"]).unique().map(sorted).tolist() == [[0.1, 0.4, 1.6]] * 3


def test_the_score_function_varies_most(frames):
    frame = frames("gradients")
    assert (frame["score_function_variance"] > frame["pathwise_variance"]).all()
    assert (frame["baseline_variance"] < frame["score_function_variance"]).all()


def test_factors_are_worth_what_shuffling_them_costs():
    known = Factors(("half", "one", "none"), (2, 2, 2))
    pixels = np.zeros((8, 1, 4, 4), np.uint8)
    values = known.values(slice(None))
    pixels[:, 0, :2] = 255 * values[:, 0, None, None]  # eight pixels
    pixels[:, 0, 3, 3] = 255 * values[:, 1]  # one pixel
    worth = losses.factor_worth(ImageSet.from_array(pixels, known))
    np.testing.assert_allclose(worth, [8 * np.log(2), np.log(2), 0], atol=1e-9)
    with pytest.raises(InputError, match="full grid"):
        losses.factor_worth(ImageSet.from_array(pixels))


@pytest.mark.parametrize(
    ("r2", "beta"),
    [
        ({1: 0.9, 4: 0.1}, 2.0),
        ({1: 0.1, 4: 0.1}, 0.0),
        ({1: 0.9, 4: 0.8}, 8.0),
        ({1: 0.9, 2: 0.4, 4: 0.6, 8: 0.4}, 4 * 2**0.5),  # it came back
    ],
)
def test_a_factor_is_dropped_between_two_betas(r2, beta):
    assert losses.dropped_at(r2) == pytest.approx(beta)


def test_the_spectrum_of_an_error_stands_at_its_frequency():
    class Wrong(VAE):
        def decode(self, latents):
            wave = torch.cos(2 * torch.pi * 3 * torch.arange(SIDE) / SIDE)
            return squares().batch(slice(0, len(latents[0]))) + 0.1 * wave

    images = squares().select(slice(0, 20))
    power = losses.error_spectrum(Run("", Wrong(images.shape, latent_dim=2, width=8)), images)
    assert power.shape == (SIDE // 2,)
    assert power.argmax() + 1 == 3
    assert power[[0, 1, 3]].max() < 1e-9 * power[2]


def test_a_code_that_knows_the_mean_image_alone_loses_all_of_every_frequency():
    images = squares()
    mean = images.batch(slice(None)).mean(0)

    class Mean(VAE):
        def decode(self, latents):
            return mean.expand(len(latents[0]), *mean.shape)

    error = losses.error_spectrum(Run("", Mean(images.shape, latent_dim=2, width=8)), images)
    np.testing.assert_allclose(error / losses.image_spectrum(images), 1, rtol=1e-5)


def test_weak_labels_know_a_perfect_code():
    exam = scores.examined(squares(), 3_000)
    sizes = {"labels": 100, "label_subsets": 3}
    perfect = exam.factors.astype(float)
    assert scores.weak_higgins(perfect, exam, 0, sizes) > 0.9
    noise = np.random.default_rng(0).normal(size=perfect.shape)
    assert scores.weak_higgins(noise, exam, 0, sizes) < 0.65


def test_the_model_shown_is_the_one_in_the_middle_of_its_ten(tmp_path):
    class Known(Run):
        recipe = None

    def run(beta, seed):
        found = Known(tmp_path, VAE((1, SIDE, SIDE), latent_dim=10, width=4))
        found.recipe = {"objective": {"beta": beta}, "seed": seed}
        return found

    rng, seeds = np.random.default_rng(0), range(12)
    scores = {(beta, seed): score for beta in (1.0, 8.0) for seed, score in zip(seeds, rng.random(12), strict=True)}
    table = pd.DataFrame([{"latent_dim": 10, "beta": b, "seed": s, "score": value} for (b, s), value in scores.items()])
    runs = [run(*of) for of in scores]
    for beta, found in zip((1.0, 8.0), beta_vae.plain_and_pressed(runs, table, 8.0), strict=True):
        first, *others = [of.recipe["seed"] for of in found]
        assert {first, *others} == set(range(10))
        below = sum(scores[beta, seed] < scores[beta, first] for seed in others)
        assert below == 5
    with pytest.raises(InputError, match="no model of β = 3"):
        beta_vae.plain_and_pressed(runs, table, 3.0)
    # Records made elsewhere, of which only one seed at β = 1 is among the runs.
    elsewhere = table[(table["beta"] == 1) & (table["seed"] == 7)]
    plain, pressed = beta_vae.plain_and_pressed(runs, elsewhere, 8.0)
    assert (plain[0].recipe["seed"], pressed[0].recipe["seed"]) == (7, 0)
    assert sweep_tables.beside_small_runs(elsewhere, 8.0) == []


def test_a_sentence_says_what_a_code_knows():
    settings = VAESettings(dataset="folder", seed=0)
    factors = pd.DataFrame(np.random.default_rng(0).integers(0, 8, (1_000, 3)), columns=["x", "y", "shape"])
    codes = factors[["x", "y"]].to_numpy(float)
    (said,) = vae.knowledge(settings, codes, factors)
    assert said.startswith("The code of the VAE shown knows x (1.00) and y (1.00), but not shape (")
    (said,) = vae.knowledge(settings, codes, factors[["x", "y"]])
    assert "but not" not in said
    (said,) = vae.knowledge(settings, np.zeros((1_000, 1)), factors)
    assert "knows none of the factors (" in said
    assert vae.knowledge(settings, codes, factors[["x"]]) == []


def test_a_code_that_holds_all_of_an_image_of_dsprites_knows_its_orientation():
    values = np.random.default_rng(0).integers(0, dsprites.SIZES, (12_000, 5))
    angle = dsprites.angle(values)
    seen = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    code = np.concatenate([3.0 * np.eye(3)[values[:, 0]], values[:, 1:2] / 5, seen, values[:, 3:] / 31], axis=1)
    r2 = scores.r2_by_factor("dsprites", code, values, dsprites.NAMES, 0)
    assert list(r2) == ["shape", "scale", "orientation_in_shape", "x", "y"]
    assert min(r2.values()) > 0.9
    assert metrics.knn_r2(code, values, seed=0)[2] < 0.5  # as a number
    code[:, 4:6] = np.random.default_rng(1).normal(size=(12_000, 2))
    assert scores.r2_by_factor("dsprites", code, values, dsprites.NAMES, 0)["orientation_in_shape"] < 0.05


def test_what_no_beta_holds_is_not_dropped_and_what_drops_together_is_tied(monkeypatch, frames, tmp_path):
    by_beta = [[0.9, 0.1, 0.9, 0.9], [0.9, 0.0, 0.9, 0.1], [0.1, 0.0, 0.1, 0.0]]
    known = iter([r2 for r2 in by_beta for _ in range(3)])  # a sweep's seeds stand side by side
    monkeypatch.setattr(losses, "r2_by_factor", lambda *_: dict(enumerate(next(known))))
    monkeypatch.setattr(losses, "threaded", lambda score, jobs: [score(*job) for job in jobs])
    monkeypatch.setattr(losses, "factor_worth", lambda _: [3.0, 9.0, 2.0, 1.0])
    (tau,) = frames("dropping", tmp_path)["worth_tau"].unique()
    assert tau == pytest.approx(2 / 6**0.5)  # of three factors: two pairs in order, one tie


def test_the_order_of_drops_is_that_of_worth_and_has_no_rows_without_records():
    about = {"worth_x": 9.0, "worth_shape": 2.0, "worth_tau": 1.0}
    rows = pd.DataFrame([{**about, "dropped_x": 8.0, "dropped_shape": beta} for beta in (0.0, 2.0)])
    low, high = sweep_tables.order_of_drops(rows)
    assert low == {"factor": "shape", "worth, nats": 2.0, "dropped at β": 2.0, "sweeps that hold it": "1 of 2"}
    assert high == {"factor": "x", "worth, nats": 9.0, "dropped at β": 8.0, "sweeps that hold it": "2 of 2"}
    assert sweep_tables.order_of_drops(rows[:0]) == sweep_tables.order_of_drops(pd.DataFrame()) == []


def test_linear_codes_are_fitted_anew_to_other_images(monkeypatch):
    monkeypatch.setattr(beta_vae_parts, "LINEAR_IMAGES", 300)
    exam = scores.examined(squares(), 3_000)
    first, second, _ = controls.linear_codes(exam, 0)["PCA"]
    x = exam.images.batch(slice(0, 50)).flatten(1).numpy()
    assert not np.allclose(np.abs(first.encode(x)), np.abs(second.encode(x)), atol=0.01)


def test_beside_its_claims_a_page_sets_other_batches_and_another_beta(frames):
    rows = vae.beside_claims(frames("samples"), frames("codes"))
    assert [row["what"].split(", ")[1] for row in rows] == [
        "batches of 10", "batches of 100", "β = 1", "β = 4", "β = 8",
    ]  # fmt: skip
    elbo = frames("samples").query("batch_size == 10").groupby("samples")["elbo"].mean()
    assert rows[0]["difference"] == pytest.approx(elbo[10] - elbo[1])
    assert all(row["from"] < row["difference"] < row["to"] and row["models"] == 3 for row in rows)
    assert vae.beside_claims(pd.DataFrame(), pd.DataFrame()) == []


def test_beside_a_rise_stand_its_live_latents():
    rows = [{"beta": 1.0, "live": live, "score": 0.6, "factor_vae": 0.5} for live in (4, 4, 5)]
    rows += [
        {"beta": 8.0, "live": live, "score": score, "factor_vae": 0.4} for live, score in ((3, 0.8), (3, 0.8), (4, 0.7))
    ]
    first, second = sweep_tables.beside_the_rise(pd.DataFrame(rows), 8.0)
    assert first == (
        "2 of 3 models of β = 1 have 4 live latents, 2 of 3 models of β = 8 have 3; "
        "with 4 live the scores are 0.60 (2 models) and 0.70 (1 model)."
    )
    assert second == "FactorVAE's score, which no claim is about, is 0.50 at β = 1 and 0.40 at β = 8."
    apart = pd.DataFrame(rows).drop(columns="factor_vae").query("live != 4 or beta == 1")
    (alone,) = sweep_tables.beside_the_rise(apart, 8.0)
    assert alone.endswith("no model of the one has as many as one of the other.")
    assert sweep_tables.beside_the_rise(apart, 2.0) == sweep_tables.beside_the_rise(apart, 1.0) == []
