"""DCI, SAP and explicitness: matrices with known scores, ceilings, floors, bad input."""

import inspect

import numpy as np
import pytest
import torch
from factor_grid import full_grid

from vaestudy.errors import InputError
from vaestudy.metrics import dci, explicitness, factor_codes, noise_codes, rotated, sap
from vaestudy.metrics.classifiers import logistic
from vaestudy.metrics.dci import dci_from_importance
from vaestudy.metrics.predict import _squared_correlations
from vaestudy.metrics.table import Rows

SMALL = {"seed": 0, "train": 800, "test": 400}


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


def test_dci_of_truth_and_noise(grid, truth):
    codes = np.concatenate([truth, noise_codes(len(grid), 3, seed=0)], axis=1)
    sizes = {"seed": 0, "train": 4_000, "test": 1_000}
    forest, lasso = dci(codes, grid, **sizes), dci(codes, grid, method="lasso", **sizes)
    assert forest == pytest.approx((1, 1, 1), abs=0.02)
    assert lasso == pytest.approx((1, 1, 1), abs=0.02)
    floor = dci(noise_codes(len(grid), 5, seed=1), grid[:, :2], **SMALL)
    assert max(floor.disentanglement, floor.completeness) < 0.1
    assert floor.informativeness == pytest.approx((1 / 3 + 1 / 6) / 2, abs=0.06)
    assert dci(noise_codes(len(grid), 5, seed=1), grid, method="lasso", **SMALL).informativeness < 0.02


@pytest.mark.parametrize("method", ["forest", "boosted_trees", "lasso"])
def test_dci_falls_when_codes_are_entangled(method):
    factors = full_grid((3, 4, 5, 5))
    codes, sizes = factor_codes(factors), {"seed": 0, "train": 200, "test": 100}
    straight, turned = (dci(c, factors, method=method, **sizes) for c in (codes, rotated(codes, seed=0)))
    assert straight.disentanglement > 0.95
    assert turned.disentanglement < straight.disentanglement - 0.3
    assert turned.completeness < straight.completeness - 0.3


def test_dci_of_constant_codes():
    factors = full_grid((3, 4, 5))
    constant = np.ones((60, 3), np.float32)
    score = dci(constant, factors, seed=0, train=40, test=20)
    assert score[:2] == (0, 0)
    assert score.informativeness < 0.6  # the commonest value


# --- SAP ------------------------------------------------------------------------------------------------------------


def test_sap_has_two_variants_with_two_ceilings(grid, truth):
    assert sap(truth, grid, seed=0) == pytest.approx(0.9995, abs=0.001)
    assert sap(truth, grid, seed=0, method="linear_svc") == pytest.approx(0.245, abs=0.01)


@pytest.mark.parametrize("method", ["r2", "linear_svc"])
def test_sap_of_duplicates_noise_and_constants(method, grid, truth):
    assert sap(truth.repeat(2, axis=1), grid, method=method, **SMALL) == pytest.approx(0, abs=1e-9)
    assert sap(noise_codes(len(grid), 4, seed=0), grid, method=method, **SMALL) < 0.03
    assert sap(np.ones_like(truth), grid, method=method, **SMALL) == 0


def test_squared_correlations_are_those_of_numpy():
    rng = np.random.default_rng(0)
    factors = rng.integers(5, size=(200, 3))
    codes = factors[:, :2] @ rng.normal(size=(2, 4)) + rng.normal(size=(200, 4))
    expected = np.corrcoef(codes, factors, rowvar=False)[:4, 4:] ** 2
    np.testing.assert_allclose(_squared_correlations(Rows(codes, factors)), expected, atol=1e-12)


# --- explicitness ---------------------------------------------------------------------------------------------------


def test_explicitness_of_truth_rotation_and_noise(grid, truth):
    assert explicitness(truth, grid, seed=0) == pytest.approx(0.99, abs=0.005)
    sizes = {"seed": 0, "train": 4_000, "test": 2_000}
    ceiling = explicitness(truth, grid, **sizes)
    assert explicitness(rotated(truth, seed=0), grid, **sizes) == pytest.approx(ceiling, abs=0.003)
    assert explicitness(noise_codes(len(grid), 10, seed=0), grid, **sizes) == pytest.approx(0.506, abs=0.02)
    assert explicitness(np.ones_like(truth), grid, **sizes) == 0.5
    assert explicitness(truth, grid, rescale=True, **sizes) == pytest.approx(2 * ceiling - 1)


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


# --- what holds for all ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [dci, sap, explicitness])
def test_a_seed_decides_and_no_global_generator_is_touched(metric):
    factors = full_grid((3, 4, 50))
    codes, sizes = rotated(factor_codes(factors), seed=0), {"train": 300, "test": 200}
    numbers, state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first = metric(codes, factors, seed=3, **sizes)
    assert (np.random.get_state()[1] == numbers).all()  # noqa: NPY002
    assert (torch.get_rng_state() == state).all()
    np.random.seed(99)  # noqa: NPY002
    assert metric(codes, factors, seed=3, **sizes) == first
    assert metric(codes, factors, seed=4, **sizes) != first


@pytest.mark.parametrize("metric", [dci, sap, explicitness])
def test_bad_tables_and_sizes_are_refused(metric):
    factors = full_grid((3, 4, 5))
    codes = factor_codes(factors)
    broken = codes.copy()
    broken[3, 1] = np.nan
    with pytest.raises(InputError, match="NaN or inf"):
        metric(broken, factors, seed=0, train=40, test=20)
    with pytest.raises(InputError, match="do not fit a table of 60"):
        metric(codes, factors, seed=0)
    with pytest.raises(InputError, match="do not fit"):
        metric(codes, factors, seed=0, train=40, test=0)
    with pytest.raises(InputError, match="larger train"):
        metric(codes, factors, seed=0, train=1, test=20)


def test_methods_and_shapes_that_make_no_sense_are_refused():
    factors = full_grid((3, 4, 5))
    codes, sizes = factor_codes(factors), {"seed": 0, "train": 40, "test": 20}
    for metric in (dci, sap):
        with pytest.raises(InputError, match="two"):
            metric(codes[:, :1], factors, **sizes)
    with pytest.raises(InputError, match="two factors"):
        dci(codes, factors[:, :1], **sizes)
    with pytest.raises(InputError, match="larger test"):
        explicitness(codes, factors, seed=0, train=40, test=1)
    for metric in (dci, sap):
        with pytest.raises(InputError, match="method must be"):
            inspect.unwrap(metric)(codes, factors, method="trees", **sizes)
