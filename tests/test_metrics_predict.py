"""DCI, DCI-ES, SAP, explicitness, nearest neighbours: known matrices, witnesses, ceilings, floors, bad input."""

import inspect

import numpy as np
import pytest
from factor_grid import full_grid, witness

from vaestudy.errors import InputError
from vaestudy.metrics import dci, dci_es, explicitness, factor_codes, knn_r2, noise_codes, read_out, rotated, sap
from vaestudy.metrics.predict import dci_from_importance, explicitness_of_curves
from vaestudy.metrics.votes import logistic

SIZES = {"seed": 0, "train": 800, "test": 400}
FACTORS = full_grid((4, 25, 30)).repeat(4, axis=0)

# --- DCI ------------------------------------------------------------------------------------------------------------


def entropy_bits(p):
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))


@pytest.mark.parametrize(
    ("importance", "disentanglement", "completeness"),
    [
        (np.eye(5), 1, 1),
        (np.eye(5).repeat(2, axis=0), 1, 1 - np.log(2) / np.log(10)),
        (np.eye(5).repeat(2, axis=1), 0.69897, 1),
        (np.zeros((3, 4)), 0, 0),
        (np.ones((3, 4)), 0, 0),
        (np.pad(np.eye(5), ((0, 3), (0, 0))), 1, 1),
        (np.array([[3.0, 0], [1, 1]]), 3 / 5, (4 * (1 - entropy_bits(1 / 4)) + 1) / 5),
    ],
)
def test_dci_of_known_matrices(importance, disentanglement, completeness):
    assert dci_from_importance(importance, len(importance)) == pytest.approx((disentanglement, completeness), abs=1e-5)


def test_dci_of_truth_noise_and_constants(grid, truth):
    codes = np.concatenate([truth, noise_codes(len(grid), 3, seed=0)], axis=1)
    for method in ("forest", "lasso"):
        assert dci(codes, grid, seed=0, method=method, train=4_000, test=1_000) == pytest.approx((1, 1, 1), abs=0.02)
    floor = dci(noise_codes(len(grid), 5, seed=1), grid[:, :2], **SIZES)
    assert max(floor.disentanglement, floor.completeness) < 0.1
    assert floor.informativeness == pytest.approx((1 / 3 + 1 / 6) / 2, abs=0.06)
    assert dci(noise_codes(len(grid), 5, seed=1), grid, method="lasso", **SIZES).informativeness < 0.02
    constant = dci(np.ones_like(truth), grid, **SIZES)
    assert constant[:2] == (0, 0)
    assert constant.informativeness < 0.3  # the commonest value


@pytest.mark.parametrize("method", ["forest", "boosted_trees", "lasso"])
def test_dci_falls_when_codes_are_entangled(method):
    factors = full_grid((3, 4, 5, 5))
    codes, sizes = factor_codes(factors), {"seed": 0, "train": 200, "test": 100}
    straight, turned = (dci(c, factors, method=method, **sizes) for c in (codes, rotated(codes, seed=0)))
    assert straight.disentanglement > 0.95
    assert turned.disentanglement < straight.disentanglement - 0.3
    assert turned.completeness < straight.completeness - 0.3


@pytest.mark.parametrize(
    ("name", "disentanglement", "completeness", "informativeness", "explicitness", "size"),
    [
        ("rotated", 0.446, 0.448, 0.988, 0.948, 1),
        ("mixed", 0.326, 0.327, 0.972, 0.930, 1),
        ("dropped", 0.69, 0.80, 0.80, 0.99, 1.25),
    ],
)
def test_dci_es_is_that_of_another_implementation(
    name, disentanglement, completeness, informativeness, explicitness, size, grid
):
    score = dci_es(witness(name), grid, seed=0)
    assert score[:2] == pytest.approx((disentanglement, completeness), abs=0.025)
    assert score.informativeness == pytest.approx(informativeness, abs=0.012)
    assert score.explicitness == pytest.approx(explicitness, abs=0.012)
    assert score.size == size


def test_dci_es_of_noise_is_explicit_and_uninformative(grid):
    score = dci_es(witness("noise"), grid, seed=0, depths=[1, 2, 8])
    assert score.explicitness > 0.98
    assert score.informativeness == pytest.approx(0.06, abs=0.03)


def test_explicitness_of_known_curves():
    """A straight fall from the loss of a guess to 0 is no explicitness at all; a flat curve is all of it."""
    curves = np.array([[1, 0.5, 0], [0.2, 0.2, 0.2], [0.5, 0, 0], [0, 0.4, 0.2], [0.5, 0.25, 0]])
    expected = [0, 1, 1 - (0.5 * 2 / 2) / (4 / 2), 1, 0]
    guess = np.array([1, 1, 1, 1, 0.5])
    np.testing.assert_allclose(explicitness_of_curves(curves, np.array([1, 3, 5]), guess), expected, atol=1e-12)


# --- SAP, explicitness, nearest neighbours --------------------------------------------------------------------------


def test_sap_has_two_variants_with_two_ceilings_and_no_floor(grid, truth):
    for method, ceiling, error in (("r2", 0.9995, 0.001), ("linear_svc", 0.245, 0.01)):
        assert sap(truth, grid, seed=0, method=method) == pytest.approx(ceiling, abs=error)
        assert sap(truth.repeat(2, axis=1), grid, method=method, **SIZES) == pytest.approx(0, abs=1e-9)
        assert sap(noise_codes(len(grid), 4, seed=0), grid, method=method, **SIZES) < 0.03
        assert sap(np.ones_like(truth), grid, method=method, **SIZES) == 0


def test_sap_is_the_gap_of_squared_correlations():
    rng = np.random.default_rng(0)
    factors = rng.integers(5, size=(300, 3))
    codes = factors[:, :2] @ rng.normal(size=(2, 4)) + rng.normal(size=(300, 4))
    rows = np.random.default_rng(0).choice(300, 300, replace=False)[:200]
    squares = np.sort(np.corrcoef(codes[rows], factors[rows], rowvar=False)[:4, 4:] ** 2, axis=0)
    assert sap(codes, factors, seed=0, train=200, test=100) == pytest.approx((squares[-1] - squares[-2]).mean())


def test_explicitness_is_the_area_of_a_plain_count():
    """Each value against the rest: how often a row of the value gets more odds, a tie counting half."""
    rng = np.random.default_rng(0)
    factors = rng.integers([2, 5], size=(900, 2))
    codes = np.round(factors + rng.normal(size=factors.shape))  # rounded, so that there are ties
    rows = np.random.default_rng(0).choice(900, 900, replace=False)
    learnt, unseen = rows[:600], rows[600:]
    x = (codes - codes[learnt].mean(axis=0)) / codes[learnt].std(axis=0)
    areas = []
    for k in range(2):
        odds = logistic(x[learnt], factors[learnt, k]).predict_proba(x[unseen])
        truth, own = factors[unseen, k], []
        for value in range(odds.shape[1]):
            gaps = odds[truth == value, value][:, None] - odds[truth != value, value]
            own.append((gaps > 0).mean() + (gaps == 0).mean() / 2)
        areas.append(np.mean(own))
    assert explicitness(codes, factors, seed=0, train=600, test=300) == pytest.approx(np.mean(areas), abs=1e-9)
    assert explicitness(np.ones_like(codes), factors, seed=0, train=600, test=300) == 0.5


def test_nearest_neighbours_know_factors_and_their_rotation_and_nothing_of_noise():
    codes, sizes = factor_codes(FACTORS), {"seed": 0, "train": 9_000, "test": 1_000}
    known = knn_r2(codes, FACTORS, **sizes)
    assert (known > 0.97).all()
    assert knn_r2(rotated(codes, seed=1), FACTORS, **sizes) == pytest.approx(known, abs=0.03)
    assert (knn_r2(noise_codes(len(FACTORS), 3, seed=0), FACTORS, **sizes) < 0.05).all()
    without = knn_r2(factor_codes(FACTORS, without=0), FACTORS, **sizes)
    assert without[0] < 0.2
    assert (without[1:] > 0.97).all()


def test_what_neighbours_know_is_that_of_a_plain_search():
    rng = np.random.default_rng(0)
    factors = rng.integers([2, 9], size=(250, 2))
    codes = factors + rng.normal(size=factors.shape)
    rows = np.random.default_rng(0).permutation(250)
    learnt, unseen = rows[:200], rows[200:]
    distances = np.linalg.norm(codes[unseen, None] - codes[learnt], axis=2)
    guess = factors[learnt][distances.argsort(axis=1)[:, :5]].mean(axis=1)
    truth = factors[unseen]
    lost = ((guess - truth) ** 2).mean(axis=0) / truth.var(axis=0)
    assert lost[0] > 1  # two values in so much noise: worse than the mean
    assert knn_r2(codes, factors, seed=0) == pytest.approx([0, 1 - lost[1]])


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "wrong", "message"),
    [
        (dci, {"train": 1, "test": 20}, "larger train"),
        (sap, {"train": 40, "test": 0}, "both need some"),
        *((inspect.unwrap(metric), {"method": "trees"}, "method") for metric in (dci, sap)),
        *((dci_es, {"depths": depths}, "depths") for depths in ([], [3], [0, 1], [3, 2], [2, 2])),
        (dci_es, {"unordered": [9]}, "unordered"),
        (explicitness, {"train": 40, "test": 1}, "larger test"),
        (knn_r2, {}, "100 rows"),
    ],
)
def test_settings_and_sizes_that_make_no_sense_are_refused(metric, wrong, message):
    factors = full_grid((3, 4, 5))
    with pytest.raises(InputError, match=message):
        metric(factor_codes(factors), factors, seed=0, **wrong)


def test_one_latent_or_one_factor_is_not_enough():
    factors = full_grid((3, 4, 5))
    codes = factor_codes(factors)
    for metric, z, v in ((dci, codes[:, :1], factors), (sap, codes[:, :1], factors), (dci, codes, factors[:, :1])):
        with pytest.raises(InputError, match="two"):
            metric(z, v, seed=0)


def test_a_read_out_is_right_on_separate_classes_and_guesses_on_noise():
    rng = np.random.default_rng(0)
    values = rng.choice([2, 5, 7], size=3_000, p=[0.5, 0.25, 0.25])
    sure = read_out(np.eye(8)[values] + 0.01 * rng.normal(size=(3_000, 8)), values, seed=0)
    assert sure.accuracy == 1
    assert sure.nats == pytest.approx(1.5 * np.log(2), abs=0.02)  # the entropy of a half and two quarters
    lost = read_out(rng.normal(size=(3_000, 4)), values, seed=0)
    assert lost.accuracy == pytest.approx(lost.chance, abs=0.02)
    assert lost.chance == pytest.approx(0.5, abs=0.03)
    assert abs(lost.nats) < 0.01
    with pytest.raises(InputError, match="two values or more"):
        read_out(np.zeros((5, 2)), np.arange(5), seed=0)
