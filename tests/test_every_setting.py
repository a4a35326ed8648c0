"""Any values that the declared bounds allow end in a finished stage, or in one line before anything is trained."""

import math
import time

import own_images
import pytest
from cells import run as run_notebook
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from vaestudy import experiments, profiles, settings, training
from vaestudy.errors import InputError
from vaestudy.experiments import plan
from vaestudy.training import memory
from vaestudy.training.loop import Diverged

SECONDS = 5  # within which a refusal comes
# Values that the bounds allow and that only cost time: so many models, pixels of images, or pairs of codes.
AT_MOST = {"seeds": 3, "image_size": 64, "pairs": 20}
SIDES = [0, 16, 24, 28, 32]  # that some set or network takes: of all that may be asked for they are few
PRESETS = ["", "laptop32", "laptop32_cells", "hierarchy32", "smoke"]  # the small ones
FIXED = ("profile", "data_dir", "runs_dir")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """The data_dir of images of one's own, with labels and without, and of MNIST's files."""
    root = tmp_path_factory.mktemp("sets")
    labelled, one = ("place", "size", "length"), ("place",)
    return {
        "folder": own_images.folder(root / "plain", 160),
        "folder, labels": own_images.folder(root / "labels", 160, labelled),
        "folder, one label": own_images.folder(root / "one", 160, one),
        "folder, few labels": own_images.folder(root / "few", 60, labelled),
        "folder, five": own_images.folder(root / "five", 5, labelled),
        "mnist": own_images.idx(root / "mnist", "MNIST", 160, 60),
    }


@pytest.fixture(scope="module", autouse=True)
def very_small():
    """The smoke profile with trainings of a few steps and scores of a few images."""
    few = training.Training(images=32, batch=16)
    small = {
        "vae": {"training": few, "plane_images": 32, "test_images": 40, "ladder": (1, 5), "parts": {}},
        "beta_vae": {"training": few, "grid_images": 160, "curve_pairs": (1, 5), "betas": (1.0,), "latent_dims": (3,)},
        "nvae": {"training": few, "flat_training": few, "test_images": 40, "weighted_images": 8, "parts": {}},
    }
    small["beta_vae"]["parts"] = {"sweep32": {}}
    with pytest.MonkeyPatch.context() as patch:
        for stage, changes in small.items():
            patch.setitem(profiles.OVERRIDES[stage], "smoke", {**profiles.OVERRIDES[stage]["smoke"], **changes})
        yield


def values(stage, sets):
    """Draws of all parameters of a stage: each its default or any value that its declared bounds allow."""
    drawn = {}
    for name, parameter in settings.fields(stage).items():
        if name not in FIXED:
            drawn[name] = st.just(parameter.default) | st.just(parameter.default) | within(name, parameter)
    return st.fixed_dictionaries(drawn | {"dataset": st.sampled_from(list(sets))})


def within(name, parameter):
    allowed = parameter.metadata
    least, most = allowed["least"], min(allowed["most"], AT_MOST.get(name, math.inf))
    if name == "preset" or allowed["choices"]:
        return st.sampled_from(PRESETS if name == "preset" else allowed["choices"])
    if parameter.type is float:  # training flushes subnormal numbers to zero
        return st.sampled_from([float(least), float(most)]) | st.floats(least, most, allow_subnormal=False)
    return st.sampled_from(SIDES if name == "image_size" else [least, most]) | st.integers(least, most)


def by_command(stage, given):
    chosen = experiments.prepare(stage, **given)
    plan.check_memory(chosen, experiments.STAGES[stage])
    assert all(run.finished for run in experiments.STAGES[stage].train_and_score(chosen))


def by_notebook(stage, given):
    assert len(run_notebook(stage, **given).splitlines()) > 20


def outcome(work, stage, sets, runs, drawn):
    """What became of a draw, "finished" or the line that refused it."""
    given = drawn | {"dataset": drawn["dataset"].partition(",")[0], "data_dir": str(sets[drawn["dataset"]])}
    start, said = time.process_time(), "finished"
    try:
        work(stage, given | {"profile": "smoke", "runs_dir": str(runs)})
    except InputError as error:
        said, diverged = str(error), isinstance(error, Diverged)  # as under a pressure too large to train under
        if not diverged:
            assert time.process_time() - start < SECONDS, said
            assert not list(runs.rglob("metrics.jsonl")), f"trained before it was refused: {said}"
    assert "\n" not in said
    return said


def check(work, stage, sets, tmp_path_factory, examples):
    """Draw settings, the same at each run; some of the draws must have got to the end."""
    outcomes, slow = [], [HealthCheck.too_slow, HealthCheck.filter_too_much]

    @hypothesis_settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=slow
    )
    @given(drawn=values(stage, sets))
    def one(drawn):
        outcomes.append(outcome(work, stage, sets, tmp_path_factory.mktemp("runs"), drawn))

    one()
    assert "finished" in outcomes


@pytest.mark.parametrize(("stage", "examples"), [("vae", 6), ("beta_vae", 8), ("nvae", 4)])
def test_some_allowed_settings_end_in_a_finished_stage_or_in_one_line(stage, examples, sets, tmp_path_factory):
    check(by_command, stage, sets, tmp_path_factory, examples)


@pytest.mark.long
@pytest.mark.parametrize(("work", "examples"), [(by_command, 40), (by_notebook, 15)])
@pytest.mark.parametrize("stage", settings.STAGES)
def test_many_allowed_settings_end_in_a_finished_stage_or_in_one_line(stage, work, examples, sets, tmp_path_factory):
    check(work, stage, sets, tmp_path_factory, examples)


def test_every_number_has_its_bounds():
    for stage in settings.STAGES:
        for parameter in settings.fields(stage).values():
            bounds = parameter.metadata["least"], parameter.metadata["most"]
            assert parameter.type is str or all(map(math.isfinite, bounds))


@pytest.fixture
def digits(sets, tmp_path):
    """The settings of MNIST's digits."""
    return {"profile": "smoke", "dataset": "mnist", "data_dir": str(sets["mnist"]), "runs_dir": str(tmp_path / "runs")}


@pytest.mark.parametrize("stage", settings.STAGES)
def test_what_the_free_memory_cannot_hold_is_said_before_any_work(stage, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 50_000)
    for work in (by_command, by_notebook):
        with pytest.raises(InputError, match=r"would take about 0\.\d+ GB of memory, and 0\.0 GB are free"):
            work(stage, digits)
    assert not (tmp_path / "runs").exists()


def test_a_part_of_the_evidence_that_does_not_fit_is_said_before_any_work(digits, tmp_path, monkeypatch):
    """The page's own models fit into 5 MB; those of a part are wider."""
    monkeypatch.setattr(memory, "free_bytes", lambda device: 5_000_000)
    chosen = experiments.prepare("vae", **digits)
    plan.check_memory(chosen, experiments.STAGES["vae"])
    wide = {"seeds": 2, "width": 500, "gradient_draws": 20, "training": training.Training(images=32, batch=16)}
    changed = profiles.OVERRIDES["vae"]["smoke"] | {"parts": {"gradients": wide}}
    monkeypatch.setitem(profiles.OVERRIDES["vae"], "smoke", changed)
    with pytest.raises(InputError, match=r"0\.0 GB of memory, and 0\.0 GB are free"):
        by_command("vae", digits)
    assert not (tmp_path / "runs").exists()
