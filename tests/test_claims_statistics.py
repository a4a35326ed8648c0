from itertools import permutations, product

import numpy as np
import pytest
from scipy import stats

from vaestudy.claims import statistics


def welch_t(a, b, axis):
    return stats.ttest_ind(a, b, equal_var=False, axis=axis).statistic


@pytest.mark.parametrize(("n", "m"), [(5, 5), (4, 7)])
def test_exact_permutations_are_those_of_scipy(n, m):
    rng = np.random.default_rng(n)
    a, b = rng.normal(0.6, 1, (3, n)), rng.normal(0, 0.3, (3, m))
    up, down = statistics.permutation_p(a, b)
    for row in range(3):
        for ours, side in ((up, "greater"), (down, "less")):
            theirs = stats.permutation_test((a[row], b[row]), welch_t, vectorized=True, alternative=side)
            assert ours[row] == pytest.approx(theirs.pvalue)


def test_drawn_permutations_are_near_all_of_them():
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.9, 1, (1, 10)), rng.normal(0, 1, (1, 10))
    drawn, exact = statistics.permutation_p(a, b, draws=50_000)[0][0], statistics.permutation_p(a, b, draws=10**6)[0][0]
    assert statistics.labelling_count((0,) * 10, (0,) * 10) == 184_756
    assert abs(drawn - exact) < 5 * np.sqrt(exact * (1 - exact) / 50_000)
    assert drawn != exact


def test_labels_are_permuted_within_pieces_alone():
    a, b = np.array([[3.0, 9.0, 8.5]]), np.array([[1.0, 2.0, 7.0, 8.0]])
    pieces = ((0, 1, 1), (0, 0, 1, 1))
    first, second = [3.0, 1.0, 2.0], [9.0, 8.5, 7.0, 8.0]
    results = []
    for i, pair in product(range(3), [(j, k) for j in range(4) for k in range(j)]):
        one = [first[i], *(second[j] for j in pair)]
        rest = [first[j] for j in range(3) if j != i] + [second[j] for j in range(4) if j not in pair]
        results.append(welch_t(np.array(one), np.array(rest), 0))
    observed = welch_t(a[0], b[0], 0)
    up, down = statistics.permutation_p(a, b, pieces)
    assert statistics.labelling_count(*pieces) == len(results) == 18
    assert up[0] == pytest.approx(np.mean(np.array(results) >= observed - 1e-9))
    assert down[0] == pytest.approx(np.mean(np.array(results) <= observed + 1e-9))


@pytest.mark.parametrize(("n", "m"), [(8, 8), (6, 9)])
def test_p2_is_the_larger_of_both_tests(n, m):
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 3, (200, n)), rng.normal(0, 1, (200, m))
    up, down = statistics.two_setting_p(a, b)
    for ours, side, tail in ((up, "greater", 0), (down, "less", 1)):
        t_test = stats.ttest_ind(a, b, axis=1, equal_var=False, alternative=side).pvalue
        np.testing.assert_allclose(ours, np.maximum(t_test, statistics.permutation_p(a, b)[tail]))


def test_equal_values_decide_nothing_and_a_gap_without_spread_all():
    same, more = np.full((1, 6), 0.5), np.full((1, 6), 0.6)
    assert statistics.two_setting_p(same, same)[0][0] == 1 == statistics.two_setting_p(same, same[:, :5])[1][0]
    for lower in (same, same[:, :5]):
        up, down = statistics.two_setting_p(more, lower)
        assert up[0] == pytest.approx(1 / statistics.labelling_count((0,) * 6, (0,) * lower.shape[1]))
        assert down[0] == 1


def test_sign_flips_are_those_of_scipy():
    values = np.random.default_rng(1).normal(0.4, 1, (4, 10))
    up, down = statistics.sign_flip_p(values)
    for row in range(4):
        for ours, side in ((up, "greater"), (down, "less")):
            theirs = stats.permutation_test(
                (values[row],), np.mean, permutation_type="samples", alternative=side, vectorized=True
            )
            assert ours[row] == pytest.approx(theirs.pvalue)
    drawn = statistics.sign_flip_p(values, draws=1_000)[0]
    assert np.all(np.abs(drawn - up) < 5 * np.sqrt(up * (1 - up) / 1_000) + 1e-3)


def test_slopes_permute_the_settings_within_each_seed():
    x, values = np.log([1.0, 4.0, 16.0]), np.array([[[0.1, 0.3, 0.2], [0.0, 0.2, 0.5]]])
    centred = x - x.mean()
    orders = [np.array(order) for order in permutations(centred)]
    sums = np.array([values[0, 0] @ first + values[0, 1] @ second for first, second in product(orders, orders)])
    exact = np.mean(sums >= values[0, 0] @ centred + values[0, 1] @ centred - 1e-9)
    up, down = statistics.slope_p(values, x)
    assert abs(up[0] - exact) < 5 * np.sqrt(exact * (1 - exact) / 99_999)
    assert down[0] > 0.9


def test_holm_takes_the_whole_family():
    adjusted, levels = statistics.holm([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(adjusted, [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(levels, [0.05 / 3, 0.05 / 2, 0.05 / 2, 0.05 / 4])
    assert statistics.holm([0.02], size=5)[0] == [0.1]  # four more were not tested


def test_the_smallest_visible_difference_is_seen_in_80_of_100_runs():
    rng, models, level = np.random.default_rng(2), 10, 0.01
    shift = statistics.smallest_visible(np.sqrt(2 / models), 2.0 * models - 2, level)
    a, b = rng.normal(shift, 1, (4_000, models)), rng.normal(0, 1, (4_000, models))
    found = np.mean(statistics.two_setting_p(a, b, draws=9_999)[0] <= level)
    assert abs(found - 0.8) < 0.05
