"""The score card, the baselines that frame it, and the ranking without labels."""

from functools import partial

import numpy as np
import pytest
from factor_grid import full_grid

from vaestudy import metrics as m
from vaestudy.errors import InputError
from vaestudy.metrics.udr import pair_score

FACTORS = full_grid((3, 5, 8, 8))
TRUTH = m.factor_codes(FACTORS)
HIGGINS = partial(m.higgins_score, pairs=8, train=1_000, test=1_000)

# --- card -----------------------------------------------------------------------------------------------------------


def test_the_card_holds_every_metric_between_its_floor_and_its_ceiling():
    card = {row.metric: row for row in m.score_card(m.rotated(TRUTH, seed=0), FACTORS, 0, classes=[1, 2, 3])}
    parts = ["disentanglement", "completeness", "informativeness"]
    whole = ["higgins", "factor_vae", "mig", "mig_sup", "sap", "modularity", "explicitness", "irs", "total_correlation"]
    assert list(card) == [*whole, *(f"dci_{part}" for part in parts)]
    for name, (_, value, floor, ceiling) in card.items():
        if name == "total_correlation":
            assert 0 <= ceiling <= value < 0.01
        elif name in ("modularity", "irs"):  # noise is modular and robust by chance, an entangled code is neither
            assert max(value, floor) < ceiling == pytest.approx(1, abs=0.01)
        else:
            assert floor < value < ceiling + 0.01
            assert ceiling > 0.9
    assert card["higgins"].floor == pytest.approx(1 / 3, abs=0.04)
    assert card["factor_vae"].floor == pytest.approx(1 / 4, abs=0.04)


def test_true_factors_reach_the_ceiling_and_noise_the_floor():
    settings = {"pairs": 8, "only": [name for name in m.METRICS if name not in ("dci", "dci_es", "infomec")]}
    for row in m.score_card(m.factor_codes(FACTORS), FACTORS, 1, **settings):
        assert row.value == row.ceiling
    noise = m.noise_codes(len(FACTORS), 4, seed=99)
    for row in m.score_card(noise, FACTORS, 1, **settings):
        assert row.value == pytest.approx(row.floor, abs=0.12 if row.metric in ("modularity", "irs") else 0.05)


def test_expensive_metrics_are_scored_when_asked_for_by_name():
    cheap = m.scores(TRUTH, FACTORS, seed=0)
    assert not [name for name in cheap if name.startswith(("infomec", "dci_es"))]
    asked = m.scores(TRUTH, FACTORS, seed=0, only=["infomec", "dci_es", "mig"], depths=[1, 2, 8])
    parts = [f"dci_es_{p}" for p in ("disentanglement", "completeness", "informativeness", "explicitness", "size")]
    assert list(asked) == ["mig", *parts, "infomec_infom", "infomec_infoc", "infomec_infoe"]
    assert asked["mig"] == cheap["mig"]
    assert min(asked.values()) > 0.85


def test_settings_reach_the_metric_that_they_name():
    few = m.scores(TRUTH, FACTORS, seed=0, only=["mig", "irs"], points=300)
    assert few == {"mig": m.mig(TRUTH, FACTORS, seed=0, points=300), "irs": m.irs(TRUTH, FACTORS, seed=0, points=300)}
    with pytest.raises(InputError, match="no metric has a setting pears"):
        m.scores(TRUTH, FACTORS, seed=0, pears=3)
    with pytest.raises(InputError, match="no metric is called migg"):
        m.scores(TRUTH, FACTORS, seed=0, only=["migg"])


# --- rotations and known factors ------------------------------------------------------------------------------------


def test_the_rotation_score_is_below_an_aligned_code_and_equal_to_a_rotated_one():
    reference = partial(m.rotation_score, factors=FACTORS, seed=0, rotations=30, metric=m.mig)
    assert reference(TRUTH) < m.mig(TRUTH, FACTORS, seed=0) - 0.5
    turned = [m.rotated(TRUTH, seed=s) for s in range(8)]
    alignments = [m.mig(codes, FACTORS, seed=0) - reference(codes) for codes in turned]
    assert np.mean(alignments) == pytest.approx(0, abs=4 * np.std(alignments) / np.sqrt(8))


def test_the_rotation_score_is_the_mean_of_single_ones_and_set_by_its_seed():
    once = [m.rotation_score(TRUTH, FACTORS, seed=s, rotations=3, metric=HIGGINS) for s in (0, 0, 1)]
    assert once[0] == once[1] != once[2]
    seeds = [int(s) for s in np.random.SeedSequence(0).generate_state(3)]
    white = m.whitened(TRUTH)
    assert once[0] == np.mean([HIGGINS(m.rotated(white, seed=s), FACTORS, seed=0) for s in seeds])
    constant = m.rotation_score(np.ones_like(TRUTH), FACTORS, seed=0, rotations=2, metric=HIGGINS)
    assert constant == pytest.approx(1 / 4, abs=0.05)
    with pytest.raises(InputError, match="rotations"):
        m.rotation_score(TRUTH, FACTORS, seed=0, rotations=0)


def test_a_code_that_knows_two_factors_scores_the_published_guess(grid, truth):
    both = m.higgins_score(m.factor_codes(grid[:, [3, 4]]), grid, seed=0, classes=(1, 2, 3, 4))
    assert both == m.higgins_score(truth[:, 3:], grid, seed=0, classes=(1, 2, 3, 4))
    assert both == pytest.approx(0.75, abs=0.04)  # x, y, and one guess for scale and orientation


# --- baselines ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pixels():
    """4,000 flat images of 40 pixels that mix three independent, non-Gaussian sources."""
    rng = np.random.default_rng(0)
    sources = np.stack([rng.uniform(-1, 1, 4_000), rng.laplace(size=4_000), rng.integers(2, size=4_000) - 0.5], axis=1)
    images = sources / sources.std(axis=0) @ rng.normal(size=(3, 40))
    return sources, (images + 0.01 * rng.normal(size=images.shape) + 5).astype(np.float32)


def test_pca_is_the_singular_value_decomposition(pixels):
    _, images = pixels
    codes = m.pca(images, 3, seed=0).encode(images)
    assert codes.dtype == np.float32
    assert codes.shape == (4_000, 3)
    np.testing.assert_allclose(np.cov(codes, rowvar=False), np.eye(3), atol=1e-3)
    left = np.linalg.svd(images.astype(float) - images.mean(axis=0), full_matrices=False)[0][:, :3]
    np.testing.assert_allclose(np.abs(left.T @ codes) / np.sqrt(4_000), np.eye(3), atol=0.01)


def test_ica_finds_the_sources_that_pca_mixes(pixels):
    sources, images = pixels

    def match(codes):
        return np.sort(np.abs(np.corrcoef(sources, codes, rowvar=False)[:3, 3:]), axis=0)

    unmixed, mixed = match(m.ica(images, 3, seed=0).encode(images)), match(m.pca(images, 3, seed=0).encode(images))
    assert unmixed[2].min() > 0.98
    assert unmixed[1].max() < 0.1
    assert mixed[2].min() < 0.95


def test_ica_says_when_nothing_sets_one_rotation_above_the_others(pixels):
    assert m.ica(pixels[1], 3, seed=0).converged
    # A rotation of independent Gaussians gives independent Gaussians.
    assert not m.ica(np.random.default_rng(0).normal(size=(2_000, 8)).astype(np.float32), 6, seed=0).converged


def test_linear_codes_need_more_rows_and_pixels_than_components(pixels):
    _, images = pixels
    assert (m.pca(images, 2, seed=0, rows=500).weights != m.pca(images, 2, seed=0).weights).any()
    for fit in (m.pca, m.ica):
        for few, components in ((images, 40), (images[:5], 5)):
            with pytest.raises(InputError, match="components must be 1 or more"):
                fit(few, components, seed=0)


def test_factor_codes_are_standardised_and_can_lack_one():
    codes = m.factor_codes(FACTORS)
    np.testing.assert_allclose(codes.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(codes.std(axis=0), 1, atol=1e-6)
    assert (m.factor_codes(FACTORS, without=1) == codes[:, [0, 2, 3]]).all()


def test_a_rotation_keeps_every_distance_and_mixes_every_factor():
    codes = m.factor_codes(FACTORS)
    turned = m.rotated(codes, seed=0)
    np.testing.assert_allclose((turned**2).sum(axis=1), (codes**2).sum(axis=1), rtol=1e-4)
    assert (np.abs(np.corrcoef(codes, turned, rowvar=False)[:4, 4:]).max(axis=0) < 0.95).all()
    assert (m.rotated(codes, seed=1) != turned).any()


# --- ranking without labels -----------------------------------------------------------------------------------------


def test_models_that_agree_up_to_order_and_sign_score_highest():
    """A standardised latent predicts its copy with 1 - alpha, so that a perfect match scores 0.9."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(2_000, 4))
    same = [truth[:, rng.permutation(4)] * rng.choice([-3, 1], size=4) for _ in range(3)]
    turned = [m.rotated(truth, seed=s) for s in range(3)]
    kls = [np.ones(4)] * 3
    assert m.udr(same + turned, kls * 2, seed=0).shape == (6,)
    agreeing = m.udr(same, kls, seed=0)
    assert agreeing == pytest.approx(np.full(3, 0.9), abs=0.05)
    assert agreeing.min() > m.udr(turned, kls, seed=0).max() + 0.1
    assert (m.udr(same, kls, seed=0) == agreeing).all()


def test_latents_without_information_do_not_count():
    truth = np.random.default_rng(0).normal(size=(2_000, 3))
    noise = [m.noise_codes(2_000, 2, seed=s) for s in range(2)]
    padded = [np.concatenate([truth, n], axis=1) for n in noise]
    kls = [np.array([2, 1, 3, 0.001, 0.01])] * 2
    assert m.udr(padded, kls, seed=0) == pytest.approx(m.udr([truth] * 2, [np.ones(3)] * 2, seed=0))
    assert (m.udr(padded, [np.zeros(5)] * 2, seed=0) == 0).all()


def test_the_score_of_a_pair_of_different_widths():
    strength = np.array([[1.0, 0, 0], [0, 0.5, 0.5]])
    rows, columns = [1, 0.25], [1, 0.5, 0.5]
    assert pair_score(strength) == pytest.approx(np.mean(rows + columns))
    assert pair_score(np.zeros((2, 3))) == 0


def test_rankings_that_make_no_sense_are_refused():
    codes, kl = np.random.default_rng(0).normal(size=(50, 3)), np.ones(3)
    for wrong in (([codes], [kl]), ([codes, codes], [kl]), ([codes, codes[:9]], [kl, kl])):
        with pytest.raises(InputError, match="two models or more"):
            m.udr(*wrong, seed=0)
    for refused, kls in (([codes, codes * np.nan], [kl, kl]), ([codes, codes], [kl, kl[:2]])):
        with pytest.raises(InputError, match="finite"):
            m.udr(refused, kls, seed=0)
