"""The experiment on hierarchies: scores of groups whose answers are known, and the design of the trainings."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from factor_grid import full_grid
from scipy import stats

from vaestudy import claims, profiles, settings
from vaestudy.data import ImageSet
from vaestudy.experiments import devices, evidence, group_scores, hierarchy, nvae
from vaestudy.metrics import factor_codes, rotated

NAMES = ("shape", "scale", "orientation", "x", "y")
CLASSES = [1, 2, 3, 4]
SMOKE = settings.resolve("nvae", profile="smoke")
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


def test_a_code_of_x_and_y_stands_beside_what_x_and_y_get(truth, factors):
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


def test_the_night_has_every_setting_that_the_claims_name():
    sizes = profiles.sizes("nvae", "night")["parts"]["hierarchy"]
    wanted = pd.DataFrame(hierarchy.settings(sizes))
    for schedule in hierarchy.SCHEDULES:
        betas = wanted.loc[wanted["schedule"] == schedule, "beta"]
        assert {0.15, 1, 16} <= set(betas)
    assert {1, 16} <= set(wanted.loc[wanted["network"] == "one group", "beta"])
    assert not wanted.duplicated().any()
    assert sizes["seeds"] >= 10  # sign-flips need ten models


def test_schedules_differ_in_what_they_charge_alone(tmp_path):
    sizes = profiles.sizes("nvae", "night")["parts"]["hierarchy"]
    context = evidence.Context(sizes, None, tmp_path)
    images = ImageSet.from_array(torch.zeros(4, 1, 32, 32, dtype=torch.uint8))
    jobs = {
        (of["network"], of["schedule"], of["beta"]): hierarchy.job(context, of, 3, images)
        for of in hierarchy.settings(sizes)
    }
    assert len({job.run_dir for job in jobs.values()}) == len(jobs) == 20
    charged = {key[1]: job.training.objective for key, job in jobs.items() if key[::2] == ("hierarchy", 4.0)}
    assert [charged[name].balance for name in ("none", "balance", "top_first")] == [False, True, False]
    assert [charged[name].group_kl_anneal for name in ("none", "balance", "top_first")] == [0, 0, 4]
    flat = jobs["one group", None, 4.0]
    assert len(flat.model.group_shapes) == 1
    assert flat.training == jobs["hierarchy", "none", 4.0].training
    assert flat.training.seed == flat.model.config.seed == 3
    # Weights that agree within a tenth, so that the bound compares hierarchies and not sizes.
    weights = [sum(p.numel() for p in job.model.parameters()) for job in (flat, jobs["hierarchy", "none", 4.0])]
    assert max(weights) < 1.1 * min(weights)


@pytest.fixture(scope="module")
def toy(dsprites_dir, tmp_path_factory):
    """The smoke profile's models of both parts: their context, and their records by part."""
    root, found = tmp_path_factory.mktemp("evidence"), {}
    for name, sizes in evidence.plan("nvae", "smoke").items():
        context = evidence.Context(sizes, None, root / "runs")
        found[name] = evidence.run_piece(evidence.PARTS[name], context, [0], "00", root)
    return root, found


@pytest.mark.parametrize(
    ("name", "dataset", "channels"), [("hierarchy_faces", "faces_mild", 3), ("hierarchy_cells", "dsprites", 1)]
)
def test_the_experiment_is_made_on_faces_and_with_own_cells_too(name, dataset, channels, tmp_path):
    context = evidence.Context(evidence.plan("nvae", "night")[name], None, tmp_path, (0,))
    assert context.source == (dataset, 32)
    images = ImageSet.from_array(torch.zeros(4, channels, 32, 32, dtype=torch.uint8))
    jobs = evidence.PARTS[name].jobs(context, images)
    assert {job.model.config.group_shapes[0] for job in jobs} == {(8, 1, 1)}
    assert {job.model.config.decoder_cell == "depthwise" for job in jobs} == {name == "hierarchy_cells"}
    assert {job.training.objective.beta for job in jobs} == {1.0, 16.0}


def test_the_records_of_each_variant_are_found(toy):
    found = hierarchy.variants(pd.concat(toy[1].values()))
    assert list(found) == list(hierarchy.VARIANTS.values())
    assert {len(hierarchy.groups_of(of)) for of in found.values()} == {2 * 4}
    assert {"top_alone_azimuth", "top_r2_glasses"} <= set(found["on rendered faces"])


def test_a_record_has_every_column_that_the_claims_read(toy):
    records, on_devices = toy[1]["hierarchy"], toy[1]["devices"]
    hierarchies = records[records["network"] == "hierarchy"].dropna(axis=1, how="all")
    flat = records[records["network"] == "one group"].dropna(axis=1, how="all")
    for claim in claims.CATALOGUE:
        if claim.page != "03_nvae":
            continue
        text = repr(claim.test)
        table = on_devices if "'devices'" in text else hierarchies
        for name in re.findall(r"\b(?:top|second|all|higgins|elbo|nats)(?:_\w+)?\b", text):
            if name not in ("top_first", "higgins_5_draws"):
                assert name in table, (claim.id, name)
    assert {"elbo", "nats", "higgins_5_draws", "top_nats"} <= set(flat)
    more = {"all_mig_sup_draws", "third_live", "top_r2_x", "second_given_above_x", "all_higgins_1_draws"}
    assert more <= set(hierarchies)
    assert set(on_devices["without"]) == {"nothing", *devices.DEVICES}
    assert np.allclose(hierarchies["nats"], hierarchies[["top_nats", "second_nats", "third_nats"]].sum(axis=1))


def test_what_was_scored_is_not_scored_again(toy, monkeypatch):
    root, found = toy
    sizes = evidence.plan("nvae", "smoke")["hierarchy"]
    monkeypatch.setattr(hierarchy, "scores", None)
    row = hierarchy.trained_and_scored(evidence.Context(sizes, None, root / "runs"), hierarchy.settings(sizes)[0], 0)
    assert row["elbo"] == pytest.approx(found["hierarchy"]["elbo"].iloc[0])


def test_the_groups_of_records_say_what_they_know_and_add():
    row = {"network": "hierarchy", "schedule": "none", "beta": 16.0, "higgins_chance": 0.25, "higgins_5_ceiling": 1.0}
    for label in ("top_", "second_", "third_", "all_"):
        row |= {f"{label}{name}": 0.5 for name in ("nats", "live", "mig_draws", "mig_rotated", "mig_sup_draws")}
        row |= {f"{label}higgins_5_{name}": 0.5 for name in ("draws", "rotated", "known")}
        kinds = () if label == "all_" else ("alone", "given_above", "together")
        row |= {f"{label}{kind}_{factor}": 0.0 for kind in kinds for factor in "xy"}
    row |= {"second_alone_x": 1.0, "second_given_above_x": 0.04, "third_together_x": 1.2, "third_together_y": 2.0}
    rows = hierarchy.groups_of(pd.DataFrame([row | {"seed": seed} for seed in range(3)]))
    assert [one["group"] for one in rows] == ["top", "second", "third", "all"]
    assert [one["knows, nats"] for one in rows] == ["nothing", "x 1.0", "nothing", "y 2.0, x 1.2"]
    assert [one["adds, nats"] for one in rows] == ["nothing", "nothing", "nothing", "–"]
    assert {(one["seeds scored"], one["seeds"]) for one in rows} == {(3, 3)}
    row |= {"seed": 3, "top_live": 0.0, "top_mig_draws": np.nan}
    (top, *others) = hierarchy.groups_of(
        pd.DataFrame([*({**row, "seed": seed, "top_live": 0.5} for seed in range(3)), row])
    )
    assert (top["seeds scored"], top["seeds"], others[0]["seeds scored"]) == (3, 4, 4)


def test_a_device_is_on_or_off_and_its_gain_is_between_models_of_one_seed():
    rows = [{"without": "nothing", "seed": s, "elbo": 10.0 * s, "training_seconds": 3.0} for s in range(4)]
    rows += [{"without": "depthwise cells", "seed": s, "elbo": 9.0 * s - 1, "training_seconds": 2.0} for s in range(4)]
    rows += [{"without": "spectral regularisation", "seed": 0, "elbo": -1.0, "training_seconds": 3.0}]
    config, training = nvae.config(SMOKE, (3, 16, 16)), nvae.training(SMOKE, 1.0)
    table = {row["device"]: row for row in devices.table(pd.DataFrame(rows), config, training.objective)}
    assert table["depthwise cells"]["in the models shown"]
    assert not table["spectral regularisation"]["in the models shown"]
    gain = table["depthwise cells"]
    assert (gain["gain, nats"], gain["seeds"]) == (2.5, 4)
    interval = stats.t.interval(0.95, 3, 2.5, stats.sem([1, 2, 3, 4]))
    assert (gain["from"], gain["to"]) == pytest.approx(interval)
    one_seed = table["spectral regularisation"]
    assert (one_seed["gain, nats"], one_seed["seeds"]) == (1, 1)
    assert np.isnan([one_seed["from"], one_seed["to"]]).all()
    assert gain["time with it / without"] == 1.5
    assert "gain, nats" not in table["squeeze-and-excitation"]


def test_sides_that_convolutions_cannot_take_get_a_flat_model_all_the_same():
    digits = settings.resolve("nvae", profile="smoke", dataset="mnist", preset="mnist")
    assert nvae.flat_model(digits, (1, 28, 28)).config.network == "mlp"
    assert nvae.flat_model(SMOKE, (3, 16, 16)).config.network == "conv"


def test_images_without_factors_have_no_scores():
    images = ImageSet.from_array(torch.zeros(4, 3, 16, 16, dtype=torch.uint8))
    assert nvae.shown_scores(nvae.group_table(SMOKE, {}, images)) == []


def test_forms_of_a_map_keep_its_nats():
    draws = np.random.default_rng(0).standard_normal((50, 12)).astype(np.float32)
    nats = np.full((3, 2, 2), 0.5)
    nats[2] = 0.0
    found = nvae.forms(draws, nats)
    assert found["whole map"][0] is draws
    mean, kl = found["mean over space"]
    assert np.allclose(mean[:, 1], draws[:, 4:8].mean(1))
    assert kl.tolist() == [2, 2, 0]
    components, kl = found["principal components"]
    assert components.shape == (50, 8)
    assert np.allclose(np.cov(components.T, bias=True), np.eye(8), atol=1e-4)
    assert kl.sum() == pytest.approx(nats.sum())
    assert set(nvae.forms(draws[:, :2], np.ones(2))) == {"whole map", "principal components"}


LAPTOP = settings.resolve("nvae", profile="laptop")


def test_without_records_the_page_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(evidence, "project_root", lambda: tmp_path)
    own = evidence.of_page(LAPTOP)
    records, on_devices = evidence.either(own, "hierarchy"), evidence.either(own, "devices")
    assert len(own) == len(records) == len(on_devices) == len(evidence.either(own, "samples", "dsprites")) == 0
    assert hierarchy.groups_of(records) == []
    config, objective = nvae.config(LAPTOP, (3, 32, 32)), nvae.training(LAPTOP, 1.0).objective
    assert len(devices.table(on_devices, config, objective)) == len(devices.DEVICES)
    judged = evidence.judge(LAPTOP, own)
    assert {claim["verdict"] for claim in judged} == {"not tested"}
    assert "3.5 not tested" in {row["here"] for row in nvae.beside_earlier_work(judged)}
    known = [claim | {"published": "contradicted"} for claim in judged]
    assert "3.5 contradicted" in {row["here"] for row in nvae.beside_earlier_work(known)}


def test_the_laptop_shows_the_records_of_the_published_night(toy, monkeypatch, tmp_path):
    shutil.copytree(toy[0] / "records", tmp_path / "reports" / "published" / "night" / "records")
    monkeypatch.setattr(evidence, "project_root", lambda: tmp_path)
    own = evidence.of_page(LAPTOP)
    assert len(own) == 0
    records = evidence.either(own, "hierarchy")
    assert len(records) == len(toy[1]["hierarchy"])
    assert len(evidence.either(own, "devices")) == 1 + len(devices.DEVICES)
    assert len(evidence.either(own, "hierarchy", "dsprites")) == len(records)
    assert not len(evidence.either(own, "hierarchy", "shapes3d"))  # of other images than the page's
    groups = hierarchy.groups_of(records)
    assert {row["group"] for row in groups} == {"top", "second", "third", "all", "the only one"}
    assert {row["schedule"] for row in groups} == {"no schedule", "top first", "one group"}
