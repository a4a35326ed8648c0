"""The experiment on hierarchies: scores of groups whose answers are known, and the design of the trainings."""

import numpy as np
import pytest
from factor_grid import full_grid

from vaestudy.experiments import group_scores
from vaestudy.metrics import factor_codes, rotated

NAMES = ("shape", "scale", "orientation", "x", "y")
CLASSES = [1, 2, 3, 4]
X, Y = 3, 4


@pytest.fixture(scope="module")
def factors():
    grid = full_grid()
    return grid[np.random.default_rng(0).permutation(len(grid))[:15_000]]


@pytest.fixture(scope="module")
def truth(factors):
    return factor_codes(factors)


@pytest.fixture(scope="module")
def noise(factors):
    return np.random.default_rng(1).standard_normal((len(factors), 5)).astype(np.float32)


def scored(codes, factors, nats=None):
    nats = np.ones(codes.shape[1]) if nats is None else nats
    return group_scores.scores(codes, factors, nats, names=NAMES, seed=0, classes=CLASSES, rotations=5)


def knows(row):
    return set(group_scores.known(row, NAMES))


def test_a_code_that_is_the_factors_is_at_the_ceiling_and_above_its_rotations(truth, factors):
    row, best = scored(truth, factors), group_scores.references(factors, seed=0, classes=CLASSES)
    assert knows(row) == set(NAMES)
    assert row["live"] == 5
    assert row["higgins_5_draws"] == row["higgins_5_known"] == best["higgins_5_ceiling"] > 0.99
    assert row["mig_draws"] == row["mig_known"] == best["mig_ceiling"]
    assert row["mig_draws"] > row["mig_rotated"] + 0.5
    assert row["mig_sup_draws"] > 0.8
    assert row["linear_r2"] == pytest.approx(1)
    assert best["higgins_chance"] == 0.25


def test_a_rotated_code_scores_what_its_rotations_score(truth, factors):
    found, rotations = [scored(rotated(truth, seed=seed), factors) for seed in range(6)], 5
    for name in ("higgins_5", "mig"):
        gains = [row[f"{name}_draws"] - row[f"{name}_rotated"] for row in found]
        assert abs(np.mean(gains)) < 3 * np.std(gains, ddof=1) * np.sqrt(1 / len(found) + 1 / rotations)
    assert np.mean([row["higgins_5_draws"] for row in found]) < 0.9
    assert all(knows(row) == set(NAMES) and row["linear_r2"] == pytest.approx(1) for row in found)


def test_noise_is_at_chance_and_knows_nothing(noise, factors):
    row = scored(noise, factors)
    assert abs(row["higgins_5_draws"] - 0.25) < 0.03
    assert abs(row["higgins_5_noise"] - 0.25) < 0.03
    assert row["mig_draws"] < 0.01
    assert knows(row) == set()
    assert row["mig_known"] == 0
    assert row["higgins_5_known"] == 0.25
    assert abs(row["linear_r2"]) < 0.01


def test_a_dead_group_scores_0_whatever_its_draws_say(truth, factors):
    row = scored(truth, factors, np.full(5, 0.01))
    assert row.pop("nats") == pytest.approx(0.05)
    assert set(row.values()) == {0}
    assert row.keys() == scored(truth, factors).keys() - {"nats"}


def test_dead_latents_are_left_out(truth, noise, factors):
    beside = np.concatenate([truth, noise], axis=1)
    assert scored(beside, factors, np.repeat([1.0, 0.0], 5)) == scored(truth, factors)


def test_one_live_latent_is_scored_against_nothing(truth, factors):
    row = scored(truth[:, [X]], factors)
    assert knows(row) == {"x"}
    assert row["mig_draws"] == pytest.approx(row["mig_rotated"])
    # One factor of five, of which 20 bins tell ln 20 of ln 32 nats.
    assert row["mig_draws"] == pytest.approx(np.log(20) / np.log(32) / 5, abs=0.02)


def test_a_code_of_x_and_y_stands_beside_what_x_and_y_get(truth, noise, factors):
    row = scored(truth[:, [X, Y]], factors)
    assert knows(row) == {"x", "y"}
    # x and y are told from each other and from the rest; of the two that are left one is guessed.
    assert row["higgins_5_draws"] == pytest.approx(row["higgins_5_known"]) == pytest.approx(0.75, abs=0.03)


def test_knowledge_is_nats_alone_beyond_and_together(truth, noise, factors):
    onehot = np.eye(3, dtype=np.float32)[factors[:, 0]]
    groups = [noise, truth[:, [X]], np.concatenate([truth[:, [X]], 20 * onehot], axis=1)]
    known = group_scores.knowledge(groups, factors, seed=0)
    assert np.abs(known.alone[0]).max() < 0.01
    assert known.alone[2, 0] == pytest.approx(np.log(3), abs=0.01)
    # x in eight parts: a softmax on a line tells neighbours apart but at their borders.
    assert np.log(8) - 0.5 < known.alone[1, X] < np.log(8)
    assert known.given_above[1, X] == pytest.approx(known.alone[1, X], abs=0.02)
    assert abs(known.given_above[2, X]) < 0.02
    assert known.given_above[2, 0] == pytest.approx(np.log(3), abs=0.02)
    assert np.allclose(known.together, known.given_above.cumsum(axis=0))
    assert np.abs(known.alone[:, Y]).max() < 0.01
