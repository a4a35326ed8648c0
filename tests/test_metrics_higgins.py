"""The Higgins and FactorVAE scores: known answers, brute force, invariances, bad input."""

import inspect

import numpy as np
import pytest
import torch
from factor_grid import full_grid
from hypothesis import given, settings
from hypothesis import strategies as st

from vaestudy.errors import InputError
from vaestudy.metrics import (
    Table,
    factor_codes,
    factor_vae_score,
    factor_vae_votes,
    higgins_curve,
    higgins_report,
    higgins_score,
    noise_codes,
    rotated,
)
from vaestudy.metrics.classifiers import accuracies, adagrad, logistic
from vaestudy.metrics.higgins import _mean_differences, _pairs

PAPER = (1, 2, 3, 4)  # the paper's classes leave shape out


def three_sigma(share, points=5_000):
    return 3 * np.sqrt(share * (1 - share) / points)


# --- known answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "pairs"), [(None, 64), (PAPER, 64), (PAPER, 10)])
def test_true_factors_are_told_apart_by_every_vote(grid, truth, classes, pairs):
    assert higgins_score(truth, grid, seed=0, classes=classes, pairs=pairs) >= 0.9995


def test_true_factors_with_few_pairs_stay_below_one(grid, truth):
    """One pair: .953 is published, .958 is the best any classifier can do when values agree by chance."""
    one, five = higgins_curve([truth], grid, seed=0, pairs=[1, 5], classes=PAPER, test=20_000)[0]
    assert one == pytest.approx(0.9555, abs=0.0025 + three_sigma(0.955, 20_000))
    assert five == pytest.approx(1, abs=0.005)


@pytest.mark.parametrize(("classes", "chance"), [(None, 0.2), (PAPER, 0.25)])
@pytest.mark.parametrize("classifier", ["logistic", "adagrad"])
def test_noise_scores_one_over_the_number_of_classes(grid, classes, chance, classifier):
    codes = noise_codes(len(grid), 10, seed=0)
    score = higgins_score(codes, grid, seed=1, classes=classes, classifier=classifier)
    assert score == pytest.approx(chance, abs=three_sigma(chance))


def test_an_entangled_rotation_scores_far_above_chance(grid, truth):
    """.81 with 5 classes and .86 with 4 are published for one rotation; others give up to 1 (see the next test)."""
    gaussian = [np.random.default_rng(seed).normal(size=(5, 5)) for seed in (0, 2)]
    first, second = (np.linalg.qr(g)[0].astype(np.float32) for g in gaussian)
    assert higgins_score(truth @ first.T, grid, seed=0) == pytest.approx(0.81, abs=0.02)
    assert higgins_score(truth @ second, grid, seed=0, classes=PAPER) == pytest.approx(0.86, abs=0.025)


def test_rotations_differ_and_rise_with_the_number_of_pairs(grid, truth):
    curves = higgins_curve(
        [rotated(truth, seed=s) for s in range(6)], grid, seed=0, pairs=[1, 10, 64, 200], classes=PAPER
    )
    assert (np.diff(curves, axis=1) >= 0).all()
    assert 0.3 < curves[:, 0].min() < curves[:, 0].max() < 0.56
    assert curves[:, 2].min() > 0.8
    assert np.ptp(curves[:, 2]) > 0.05


def test_one_missing_factor_is_not_noticed(grid):
    for missing in PAPER:
        codes = factor_codes(grid, without=missing)
        assert higgins_score(codes, grid, seed=0, classes=PAPER) >= 0.995


def test_position_alone_tells_three_classes_of_four(grid, truth):
    score = higgins_score(truth[:, 3:], grid, seed=0, classes=PAPER)
    assert score == pytest.approx(0.75, abs=0.04)  # x, y, and one guess for scale and orientation


def test_constant_codes_guess_one_class(grid):
    codes = np.full((len(grid), 3), 2.5)
    assert higgins_score(codes, grid, seed=0) == pytest.approx(0.2, abs=three_sigma(0.2))
    assert factor_vae_score(codes, grid, seed=0) == 0


def test_a_table_that_is_no_grid_is_enough():
    """Four attributes of 3,000 images, all dependent, as on photographs."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(3_000, 1))
    factors = (base + rng.normal(size=(3_000, 4)) > 0.3).astype(np.int8)
    codes = factor_codes(factors) + 0.1 * rng.normal(size=factors.shape).astype(np.float32)
    assert higgins_score(codes, factors, seed=0, train=2_000, test=1_000) > 0.99
    assert factor_vae_score(codes, factors, seed=0, train=2_000, test=1_000) > 0.99


def test_factor_vae_of_truth_noise_and_a_missing_factor(grid, truth):
    assert factor_vae_score(truth, grid, seed=0) == 1
    assert factor_vae_score(noise_codes(len(grid), 10, seed=0), grid, seed=1) == pytest.approx(0.2, abs=0.02)
    for missing in range(5):
        score = factor_vae_score(factor_codes(grid, without=missing), grid, seed=0, train=2_000, test=3_000)
        assert score == pytest.approx(0.79, abs=0.03)  # in theory 4 votes of 5, published as .78


def test_factor_vae_of_a_rotation(grid, truth):
    scores = [factor_vae_score(rotated(truth, seed=s), grid, seed=0, train=1_000, test=1_000) for s in range(4)]
    assert min(scores) < 0.69 < max(scores)


# --- conventions of FactorVAE ---------------------------------------------------------------------------------------


def test_pruning_is_by_standard_deviation_and_keeps_the_latents_own_index(grid, truth):
    faint = np.concatenate([np.zeros((len(grid), 1), np.float32), truth * [1, 1, 1, 0.04, 0.06]], axis=1)
    votes = factor_vae_votes(Table(faint, grid), np.random.default_rng(0), votes=500)
    assert votes.shape == (5, 6)
    assert votes.sum() == 500
    assert not votes[:, [0, 4]].any()  # the constant one, and x with a standard deviation of .04
    kept = factor_vae_votes(Table(faint, grid), np.random.default_rng(0), votes=500, prune_std=0.0)
    assert (kept.argmax(axis=0)[1:] == np.arange(5)).all()
    assert kept[:, 1:].sum() == np.trace(kept[:, 1:]) == 500


def test_factor_vae_ignores_scale_sign_order_and_dead_latents(grid, truth):
    mixed = rotated(truth, seed=3)
    score = factor_vae_score(mixed, grid, seed=0, train=1_000, test=500, prune_std=0.0)
    for other in (mixed * -(2.0 ** np.arange(-9, 1, 2)), mixed[:, ::-1], np.pad(mixed, ((0, 0), (2, 1)))):
        assert factor_vae_score(other.astype(np.float32), grid, seed=0, train=1_000, test=500, prune_std=0.0) == score


# --- brute force ----------------------------------------------------------------------------------------------------


def test_pairs_follow_the_table(grid):
    """Frequencies of ordered pairs: the first row uniform, the second uniform among the rows of its value."""
    column = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])
    table = Table(np.arange(9.0)[:, None], np.stack([column, np.arange(9) % 2], axis=1))
    first, second = _pairs(table, np.zeros(200, dtype=int), 1_000, np.random.default_rng(0))
    seen = np.histogram2d(first.ravel(), second.ravel(), bins=np.arange(10))[0] / first.size
    expected = np.where(column[:, None] == column, 1 / 9 / np.bincount(column)[column], 0)
    assert (seen[expected == 0] == 0).all()
    np.testing.assert_allclose(seen, expected, atol=5 * np.sqrt(expected.max() / first.size))


def test_mean_differences_are_those_of_a_plain_loop():
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(50, 3)).astype(np.float32)
    first, second = rng.integers(50, size=(2, 7, 12))
    means = _mean_differences(codes, first, second, np.array([1, 5, 12]))
    for row, pairs in enumerate((1, 5, 12)):
        for point in range(7):
            gaps = [np.abs(codes[first[point, p]] - codes[second[point, p]]) for p in range(pairs)]
            np.testing.assert_allclose(means[row, point], np.mean(gaps, axis=0), rtol=1e-5)


def generative_higgins(render, sizes, pairs, points, rng, signed=False):
    """The paper's protocol as written: draw factors, copy one, encode; one vote at a time."""
    features, labels = [], []
    for _ in range(points):
        shared = rng.integers(len(sizes))
        left, right = rng.integers(sizes, size=(2, pairs, len(sizes)))
        right[:, shared] = left[:, shared]
        gap = render(left) - render(right)
        features.append((gap if signed else np.abs(gap)).mean(axis=0))
        labels.append(shared)
    return np.array(features), np.array(labels)


def generative_factor_vae(render, sizes, images, votes, rng, variance):
    counts = np.zeros((len(sizes), len(variance)), dtype=int)
    for _ in range(votes):
        fixed = rng.integers(len(sizes))
        factors = rng.integers(sizes, size=(images, len(sizes)))
        factors[:, fixed] = factors[0, fixed]
        counts[fixed, (render(factors).var(axis=0, ddof=1) / variance).argmin()] += 1
    return counts


def test_scores_from_a_table_are_those_of_the_generative_protocol():
    sizes, rng = (3, 5, 8, 8), np.random.default_rng(0)
    factors = full_grid(sizes)
    mix = rng.normal(size=(4, 6))

    def render(values):
        return np.tanh(values / np.array(sizes) @ mix)

    codes = render(factors)
    x, y = generative_higgins(render, sizes, 10, 6_000, rng)
    slow = logistic(x[:4_000], y[:4_000]).score(x[4_000:], y[4_000:])
    fast = higgins_score(codes, factors, seed=0, pairs=10, train=4_000, test=2_000)
    assert 0.35 < slow < 0.95
    assert fast == pytest.approx(slow, abs=3 * np.sqrt(2 * slow * (1 - slow) / 2_000))

    x, y = generative_higgins(lambda v: v / np.array(sizes), sizes, 10, 3_000, rng, signed=True)
    assert logistic(x[:2_000], y[:2_000]).score(x[2_000:], y[2_000:]) < 0.35  # without |.| even the truth is chance

    slow = generative_factor_vae(render, sizes, 16, 6_000, rng, codes.var(axis=0, ddof=1)) / 6_000
    fast = factor_vae_votes(Table(codes, factors), rng, votes=6_000, images=16) / 6_000
    np.testing.assert_allclose(fast, slow, atol=5 * np.sqrt(slow.max() / 6_000))


# --- classifiers ----------------------------------------------------------------------------------------------------


def toy_problem(models=3):
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=500)
    return rng.normal(size=(models, 500, 4)) + np.eye(3, 4)[labels], labels


def test_adagrad_takes_the_steps_of_torch():
    x, y = toy_problem(1)
    weights, bias = adagrad(x, y, seed=5, batch=50, patience=4, tolerance=np.inf)  # one round of four epochs
    layer = torch.nn.Linear(4, 3).double()
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimiser, rng = torch.optim.Adagrad(layer.parameters(), lr=1e-2), np.random.default_rng(5)
    for _ in range(4):
        for rows in np.array_split(rng.permutation(500), 10):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(layer(torch.tensor(x[0, rows])), torch.tensor(y[rows])).backward()
            optimiser.step()
    np.testing.assert_allclose(weights[0], layer.weight.detach().numpy().T, atol=1e-12)
    np.testing.assert_allclose(bias[0, 0], layer.bias.detach().numpy(), atol=1e-12)


def test_a_stack_of_classifiers_is_each_of_them_alone():
    x, y = toy_problem(3)
    x[1] *= 0.01  # converges at another time than the rest
    weights, _ = adagrad(x, y, seed=0)
    for i in range(3):
        assert (adagrad(x[i : i + 1], y, seed=0)[0][0] == weights[i]).all()


def test_adagrad_that_does_not_converge_says_so():
    x, y = toy_problem(2)
    with pytest.warns(UserWarning, match="2 of 2 classifiers still improve after 20 epochs"):
        adagrad(x, y, seed=0, tolerance=0.0, patience=10, max_epochs=20)


def test_both_classifiers_find_the_same_optimum(grid, truth):
    codes = truth @ np.linalg.qr(np.random.default_rng(2).normal(size=(5, 5)))[0].astype(np.float32)
    both = [
        higgins_score(codes, grid, seed=0, classes=PAPER, pairs=20, train=3_000, test=2_000, classifier=c)
        for c in ("logistic", "adagrad")
    ]
    assert both[0] == pytest.approx(both[1], abs=0.02)
    assert 0.5 < both[0] < 0.9


# --- reports --------------------------------------------------------------------------------------------------------


def test_the_report_shows_all_scores_and_the_best_half(grid, truth):
    sizes = {"pairs": 5, "train": 600, "test": 300, "classes": PAPER}
    codes = [rotated(truth, seed=s) for s in range(4)]
    report = higgins_report(codes, grid, seed=0, classifier_seeds=3, **sizes)
    assert report.scores.shape == (4, 3)
    assert len(np.unique(report.scores)) > 6
    best = sorted(report.scores.ravel())[6:]
    assert report.best_mean == pytest.approx(np.mean(best))
    assert report.best_std == pytest.approx(np.std(best))
    assert report.mean == pytest.approx(report.scores.mean())
    assert report.std == pytest.approx(report.scores.std())


def test_a_curve_is_made_of_scores(grid, truth):
    """The largest number of pairs is the score itself, whatever else is in the curve and in whatever order."""
    codes, sizes = rotated(truth, seed=1), {"train": 600, "test": 300, "seed": 0}
    curve = higgins_curve([truth, codes, codes[:, :2]], grid, pairs=[20, 5, 20], **sizes)
    assert curve.shape == (3, 3)
    assert (curve[:, 0] == curve[:, 2]).all()
    assert curve[1, 0] == higgins_score(codes, grid, pairs=20, **sizes)


# --- seeds, invariances, bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [higgins_score, factor_vae_score])
def test_a_seed_decides_and_no_global_generator_is_touched(metric, grid, truth):
    codes = rotated(truth, seed=0)
    before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first = metric(codes, grid, seed=3, train=500, test=400)
    np.random.seed(99)  # noqa: NPY002
    assert metric(codes, grid, seed=3, train=500, test=400) == first
    assert len({metric(codes, grid, seed=s, train=500, test=400) for s in range(5)}) > 1
    np.random.seed(99)  # noqa: NPY002
    after = np.random.get_state()[1].copy()  # noqa: NPY002
    metric(codes, grid, seed=3, train=500, test=400)
    assert (np.random.get_state()[1] == after).all()  # noqa: NPY002
    assert (torch.get_rng_state() == torch_before).all()
    assert len(before) == len(after)


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_higgins_ignores_order_sign_and_standardised_scale(data):
    factors = full_grid((3, 4, 5))
    codes = rotated(factor_codes(factors), seed=data.draw(st.integers(0, 5)))
    order = data.draw(st.permutations(range(3)))
    signs = np.array(data.draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=3, max_size=3)))
    scale = 2.0 ** np.array(data.draw(st.lists(st.integers(-6, 6), min_size=3, max_size=3)))
    sizes = {"seed": 0, "pairs": 8, "train": 600, "test": 300}
    plain, other = higgins_score(codes, factors, **sizes), (codes * signs)[:, order]
    assert higgins_score(other, factors, **sizes) == pytest.approx(plain, abs=0.01)
    scaled = higgins_score(other * scale, factors, standardise=True, **sizes)
    assert scaled == pytest.approx(higgins_score(codes, factors, standardise=True, **sizes), abs=0.01)


def broken(codes, how):
    codes = codes.copy()
    codes[7, 1] = how
    return codes


@pytest.mark.parametrize("metric", [higgins_score, factor_vae_score])
@pytest.mark.parametrize("how", [np.nan, np.inf, -np.inf])
def test_codes_that_are_not_finite_are_refused(metric, how, grid, truth):
    with pytest.raises(InputError, match="NaN or inf in 1 of"):
        metric(broken(truth, how), grid, seed=0)


@pytest.mark.parametrize("metric", [higgins_score, factor_vae_score])
def test_tables_without_pairs_are_refused(metric):
    factors = full_grid((3, 4))
    with pytest.raises(InputError, match="factor column 1 has one value only"):
        metric(factor_codes(factors[:, :1]), factors * [1, 0], seed=0)
    with pytest.raises(InputError, match="two or more different columns"):
        metric(factor_codes(factors), factors[:, :1], seed=0)
    lonely = np.stack([np.arange(12) % 2, np.arange(12)], axis=1)  # each value of column 1 occurs once
    with pytest.raises(InputError, match="factor column 1 occurs in one row only"):
        metric(factor_codes(factors), lonely, seed=0)


@pytest.mark.parametrize(
    ("codes", "factors", "message"),
    [
        (np.zeros(5), np.zeros((5, 2), int), "metrics need codes"),
        (np.zeros((5, 2)), np.zeros(5, int), "metrics need codes"),
        (np.zeros((5, 2)), np.zeros((4, 2), int), "metrics need codes"),
        (np.zeros((0, 2)), np.zeros((0, 2), int), "metrics need codes"),
        (np.zeros((5, 2)), np.zeros((5, 2)), "factors must be integers"),
    ],
)
def test_shapes_and_types_that_do_not_fit_are_refused(codes, factors, message):
    with pytest.raises(InputError, match=message):
        Table(codes, factors)


def test_settings_that_make_no_sense_are_refused(grid, truth):
    for wrong in ({"pairs": 0}, {"train": 0}, {"test": 0}, {"classes": [1]}, {"classes": [1, 9]}, {"classes": [1, 1]}):
        with pytest.raises(InputError):
            higgins_score(truth, grid, seed=0, **wrong)
    with pytest.raises(InputError, match="larger train"):
        higgins_score(truth, grid, seed=0, train=3, test=100)
    for wrong in ({"images": 1}, {"train": 0}, {"test": 0}):
        with pytest.raises(InputError):
            factor_vae_score(truth, grid, seed=0, **wrong)
    with pytest.raises(InputError):
        higgins_report([], grid, seed=0)
    x, y = toy_problem()
    with pytest.raises(InputError, match="classifier must be"):
        inspect.unwrap(accuracies)(x, y, x, y, seed=0, classifier="forest")


def test_labels_may_be_sparse_negative_and_of_any_integer_type(grid, truth):
    """Values are names: renumbering them changes nothing."""
    names = np.array([-5, 1_000_000, 7, 3])
    factors = full_grid((4, 3, 3))
    codes, sizes = factor_codes(factors), {"seed": 0, "pairs": 4, "train": 300, "test": 200}
    renamed = factors.copy()
    renamed[:, 0] = np.sort(names)[factors[:, 0]]
    score = higgins_score(rotated(codes, seed=0), factors, **sizes)
    assert higgins_score(rotated(codes, seed=0), renamed, **sizes) == score
    assert higgins_score(rotated(codes, seed=0), factors.astype(np.uint8), **sizes) == score
