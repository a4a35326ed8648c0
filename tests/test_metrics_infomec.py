"""InfoMEC, MIG-sup and DCI-ES: values of other implementations, matrices with known scores, ceilings, floors."""

import numpy as np
import pytest
from factor_grid import full_grid, witness

from vaestudy.errors import InputError
from vaestudy.metrics import dci_es, factor_codes, infomec, mig, mig_sup, noise_codes, rotated
from vaestudy.metrics.dci import explicitness_of_curves
from vaestudy.metrics.infomec import concentration

SMALL = full_grid((3, 4, 5, 8))

# --- InfoMEC --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "infom", "infoc", "infoe"),
    [
        ("factors", 0.998, 0.998, 1.000),
        ("rotated", 0.428, 0.543, 1.000),
        ("noisy_0.5", 0.986, 0.989, 0.357),
        ("mixed", 0.480, 0.453, 0.631),
    ],
)
def test_infomec_is_that_of_another_implementation(name, infom, infoc, infoe, grid):
    """Means over five draws of 10,000 rows; one draw is up to three of their standard deviations (.005) away.

    Counting the k-th neighbour, a known error, gives .464 in place of .428 on the rotated factors.
    """
    score = infomec(witness(name), grid, seed=0)
    assert score[:2] == pytest.approx((infom, infoc), abs=0.012)
    assert score.infoe == pytest.approx(infoe, abs=0.003)


def test_infomec_of_noise_and_of_missing_factors(grid):
    noise = infomec(witness("noise"), grid, seed=0)
    assert noise.infoe < 0.01
    assert min(noise[:2]) > 0.3  # the floor of the other two is high: one entry of chance is most of a sum of nothing
    dropped = infomec(witness("dropped"), grid, seed=0)
    assert dropped.infom > 0.99
    assert dropped.infoe == pytest.approx(0.8, abs=0.003)


def test_discrete_codes_are_counted():
    codes = SMALL.astype(float)
    assert infomec(codes, SMALL, seed=0, discrete=True) == pytest.approx((1, 1, 1), abs=1e-3)
    doubled = np.repeat(codes, 2, axis=1)
    assert infomec(doubled, SMALL, seed=0, discrete=True).infom == pytest.approx(1, abs=1e-9)
    assert infomec(doubled, SMALL, seed=0, discrete=True).infoc == pytest.approx((1 / 2 - 1 / 8) / (1 - 1 / 8))


def test_only_active_latents_are_compared_and_undefined_cases_are_zero():
    codes = factor_codes(SMALL).astype(float)
    faint = 0.01 * noise_codes(len(SMALL), 3, seed=0)
    with_faint = infomec(np.hstack([codes, faint, np.ones((len(SMALL), 1))]), SMALL, seed=0)
    assert with_faint[:2] == pytest.approx(infomec(codes, SMALL, seed=0)[:2], abs=0.01)
    assert infomec(np.ones_like(codes), SMALL, seed=0) == (0, 0, 0)
    one = infomec(codes[:, :1], SMALL, seed=0)
    assert one.infoc == 0
    assert one.infom > 0.9
    with pytest.raises(InputError, match="two factor columns"):
        infomec(codes, SMALL[:, :1], seed=0)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        (np.eye(3), 1),
        (np.ones((2, 4)), 0),
        (np.array([[0.5, 0.5, 0, 0]]), 1 / 3),
        (np.array([[1.0, 0], [0, 0]]), 1 / 2),
        (np.ones((3, 1)), 0),
    ],
)
def test_concentration_of_known_rows(shares, expected):
    assert concentration(shares) == pytest.approx(expected)


# --- MIG-sup --------------------------------------------------------------------------------------------------------


def test_mig_sup_asks_whether_a_latent_holds_one_factor(grid, truth):
    assert mig_sup(truth, grid, seed=0) == pytest.approx(mig(truth, grid, seed=0), abs=0.005)
    assert mig_sup(np.repeat(truth, 2, axis=1), grid, seed=0) == pytest.approx(mig_sup(truth, grid, seed=0))
    assert mig(np.repeat(truth, 2, axis=1), grid, seed=0) == 0
    assert mig_sup(noise_codes(len(grid), 5, seed=0), grid, seed=0) < 0.002
    assert mig_sup(rotated(truth, seed=2), grid, seed=0) < 0.2
    # Two factors in one latent, each of them nowhere else: MIG sees a gap, MIG-sup none.
    small = full_grid((4, 4, 4, 4))
    both = np.stack([4 * small[:, 0] + small[:, 1], small[:, 2], small[:, 3]], axis=1).astype(float)
    assert mig(both, small, seed=0, bins=None) == pytest.approx(1)
    assert mig_sup(both, small, seed=0, bins=None) == pytest.approx(2 / 3)


def test_mig_sup_leaves_latents_out_that_hardly_move(grid, truth):
    faint = np.hstack([truth, 0.09 * noise_codes(len(grid), 2, seed=0), np.ones((len(grid), 1), np.float32)])
    assert mig_sup(faint, grid, seed=0) == mig_sup(truth, grid, seed=0)
    assert mig_sup(np.ones_like(truth), grid, seed=0) == 0
    with pytest.raises(InputError, match="two factors"):
        mig_sup(truth, grid[:, :1], seed=0)


# --- DCI-ES ---------------------------------------------------------------------------------------------------------


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
    assert score.disentanglement < 0.25


def test_explicitness_of_known_curves():
    """A straight fall from the loss of a guess to 0 is no explicitness at all; a flat curve is all of it."""
    depths = np.array([1, 3, 5])
    curves = np.array([[1, 0.5, 0], [0.2, 0.2, 0.2], [0.5, 0, 0], [0, 0.4, 0.2]])
    expected = [0, 1, 1 - (0.5 * 2 / 2) / (4 / 2), 1]
    np.testing.assert_allclose(explicitness_of_curves(curves, depths, np.ones(4)), expected, atol=1e-12)
    halved = explicitness_of_curves(curves[:1] / 2, depths, np.array([0.5]))
    np.testing.assert_allclose(halved, 0, atol=1e-12)


def test_settings_of_dci_es_that_make_no_sense_are_refused():
    sizes = {"seed": 0, "train": 300, "test": 100}
    for depths in ([], [3], [0, 1], [3, 2], [2, 2]):
        with pytest.raises(InputError, match="depths"):
            dci_es(factor_codes(SMALL), SMALL, depths=depths, **sizes)
    with pytest.raises(InputError, match="unordered"):
        dci_es(factor_codes(SMALL), SMALL, unordered=[9], **sizes)
