"""Real processes killed at any moment: what they leave goes on to the same weights, log and record, bit for bit."""

import itertools
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_training import assert_same, dense, fit, fit_many, noise, small, start

from vaestudy import experiments, settings
from vaestudy.models import NVAE
from vaestudy.training import Grid, Job, Run, checkpoint

PROCESSES = multiprocessing.get_context("forkserver")  # which imports torch once, and forks each child
PROCESSES.set_forkserver_preload(["small_training", "vaestudy.experiments", "torch._dynamo"])
STEPS = 8


def shortened(recipe):
    """Eight steps of a profile's own training, and four lines of the log."""
    return replace(recipe, images=STEPS * recipe.batch, log_every=2 * recipe.batch)


def tiny(root):
    return [Job(dense(), noise(), small(), root / "run")]


def vae(root):
    chosen, images = settings.resolve("vae", profile="laptop"), noise((1, 64, 64), 2_000)
    model = experiments.vae.model(chosen, images.shape, chosen.latent_dim)
    return [Job(model, images, shortened(experiments.vae.training(chosen)), root / "run")]


def sweep(root):
    chosen, images = settings.resolve("beta_vae", profile="laptop"), noise((1, 16, 16), 2_000)
    recipe = shortened(experiments.beta_vae.sizes(chosen)["training"])
    where = (images, recipe, root / "runs")
    others = Grid(betas=(4.0,), capacities=(4.0,), seeds=(0, 1), objectives=("capacity", "total_correlation"))
    grids = [experiments.beta_vae.grid(chosen), others]
    network = experiments.beta_vae_parts.network(experiments.evidence.page_sizes(chosen))
    return [job for grid in grids for job in grid.jobs(*where, **network)]


def nvae(root):
    chosen, images = settings.resolve("nvae", profile="laptop"), noise((3, 32, 32), 200)
    network = experiments.nvae.config(chosen, images.shape)
    recipe = shortened(experiments.nvae.training(chosen, 1.0))
    return [Job(NVAE(network), images.quantized(network.bits), recipe, root / "run")]


MODELS = {"tiny": tiny, "vae": vae, "sweep": sweep, "nvae": nvae}


def train(name, root, moment="", count=0):
    """What a child does: train, and at the `count`-th such moment die without a word."""
    torch.set_num_threads(1)
    counter, append, replacing, remove = [count], Run.append, checkpoint.replacing, checkpoint.remove

    def die(*_, **__):
        counter[0] -= 1
        if counter[0] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def half_a_line(run, row):
        if counter[0] == 1:
            with (run.path / "metrics.jsonl").open("a") as log:
                log.write(json.dumps(row)[:30])
        die()
        append(run, row)

    class HalfWritten:
        """A temporary file of which the middle is the last that reaches the disk."""

        def __init__(self, path):
            self.path = path

        def write_bytes(self, content):
            self.path.write_bytes(content[: len(content) // 2])
            die()
            self.path.write_bytes(content)

    class Replacing:
        def __init__(self, path):
            self.inner = replacing(path)

        def __enter__(self):
            found = self.inner.__enter__()
            return HalfWritten(found) if moment == "inside a checkpoint" else found

        def __exit__(self, *error):
            self.inner.__exit__(*error)
            if moment == "after a checkpoint":
                die()

    checkpoint.replacing = Replacing
    if moment == "inside a line of the log":
        Run.append = half_a_line
    if moment == "between the weights and the record":
        Run.update_record = die if count == 1 else _after(Run.update_record, die)
    if moment == "after the record":
        checkpoint.remove = lambda folder: (die(), remove(folder))
    hook = {"on_step": die} if moment == "after a step" else {}
    jobs = MODELS[name](root)
    if len(jobs) > 1:
        fit_many(jobs, device="cpu", checkpoint_seconds=0, **hook)
    else:
        fit(*jobs[0], device="cpu", checkpoint_seconds=0, **hook)


def _after(function, die):
    def first_die(*arguments, **named):
        die()
        return function(*arguments, **named)

    return first_die


def child(*arguments):
    """The exit status of a child that trains."""
    process = PROCESSES.Process(target=train, args=arguments)
    process.start()
    process.join(300)
    return process.exitcode


def killed_after(seconds, *arguments):
    """The same, killed from outside."""
    process = PROCESSES.Process(target=train, args=arguments)
    process.start()
    time.sleep(seconds)
    process.kill()
    process.join(300)
    return process.exitcode


def left(root):
    """What the runs in a folder have left, times and speeds aside: file names, weights, log and record."""
    found = {}
    for path in sorted(file for file in root.rglob("*") if file.is_file() and file.name != ".lock"):
        name = str(path.relative_to(root))
        found[name] = load_file(path) if path.suffix == ".safetensors" else path.name
        if path.name == "metrics.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
        if path.name == "record.json":
            record = json.loads(path.read_text())
            del record["training"]["images_per_second"], record["provenance"]["seconds"]
            for measured in ("peak_memory_gib", "commit", "modified"):
                del record["provenance"][measured]
            found[name] = record
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What trainings without a kill leave, and how long they take; each is done once."""
    known = {}

    def get(name):
        if name not in known:
            root, began = tmp_path_factory.mktemp(name), time.perf_counter()
            assert child(name, root) == 0
            known[name] = left(root), time.perf_counter() - began
            assert any(path.endswith("record.json") for path in known[name][0])
        return known[name]

    return get


MOMENTS = ("inside a checkpoint", "after a checkpoint", "inside a line of the log", "after a step")
KILLS = [(moment, count) for moment in MOMENTS for count in (1, 3, STEPS // 2)]
KILLS += [("between the weights and the record", 1), ("after the record", 1)]
KILLS += [("at any time", number) for number in range(20 - len(KILLS))]


def killed(name, moment, count, undisturbed, root):
    """Train with a kill at a moment; the whole training is not over then."""
    if moment != "at any time":
        return child(name, root, moment, count)
    expected, seconds = undisturbed(name)
    seconds *= random.Random(f"{name} {count}").uniform(0, 0.9)
    while (status := killed_after(seconds, name, root)) == 0 or whole(root, expected):
        shutil.rmtree(root)  # it was over sooner than the one that was timed, which had less of the machine
        seconds *= 0.7
    return status


def whole(root, expected):
    """Whether all that a training leaves is there."""
    return all((root / path).exists() for path in expected)


SHORT = [("tiny", "inside a checkpoint", 3), ("tiny", "inside a line of the log", 3)]
LONG = [(name, *kill) for name in ("vae", "sweep", "nvae") for kill in KILLS]


@pytest.mark.parametrize(
    ("name", "moment", "count"), [*SHORT, *(pytest.param(*kill, marks=pytest.mark.long) for kill in LONG)]
)
def test_a_killed_training_goes_on_to_the_same_end(name, moment, count, undisturbed, tmp_path):
    expected = undisturbed(name)[0]
    assert killed(name, moment, count, undisturbed, tmp_path) == -signal.SIGKILL
    assert not whole(tmp_path, expected) or moment == "after the record"
    assert child(name, tmp_path) == 0
    assert_same(left(tmp_path), expected)


def test_one_kill_after_the_other(undisturbed, tmp_path):
    """Of which each meets what the one before has left."""
    for moment in (*MOMENTS, "between the weights and the record"):
        assert child("tiny", tmp_path, moment, 1) == -signal.SIGKILL
    assert child("tiny", tmp_path) == 0
    assert_same(left(tmp_path), undisturbed("tiny")[0])


@pytest.mark.long
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_sweep_that_is_killed_while_its_members_are_recorded(share, undisturbed, tmp_path):
    expected = undisturbed("sweep")[0]
    members = sum(path.endswith("record.json") for path in expected)
    moment = "between the weights and the record"
    assert child("sweep", tmp_path, moment, math.ceil(share * members)) == -signal.SIGKILL
    assert 0 < len(list(tmp_path.rglob("record.json"))) < members
    assert child("sweep", tmp_path) == 0
    assert_same(left(tmp_path), expected)


STAGES = ("01_vae", "02_beta_vae", "03_nvae")


def study(root):
    """`python -m vaestudy study` in a project of its own."""
    return start(["-u", "-m", "vaestudy", "study", "--profile", "smoke"], cwd=root)


def wait_for(child, stage):
    """Until a study says that it runs a stage."""
    while line := child.stdout.readline():
        if line.startswith(f"{stage}.ipynb: running"):
            break


def kill_study(root, stage, seconds):
    """Kill a study so long after it has begun a stage, or sooner if the stage was over by then."""
    pages = root / "reports" / "smoke"
    while True:
        child = study(root)
        wait_for(child, stage)
        time.sleep(seconds)
        child.kill()
        child.communicate()
        if child.returncode == -signal.SIGKILL and not (pages / f"{stage}.html").exists():
            return
        for path in pages.glob(f"{stage}*"):
            path.unlink()
        seconds *= 0.5


def numbers(root):
    """What the pages of a study say, conclude and put beside the published numbers."""
    pages = json.loads((root / "reports" / "smoke" / "results.json").read_text())["notebooks"]
    kinds = ("statement", "headline", "claims")
    return {
        f"{name}, {number}": item["data"]
        for name, page in pages.items()
        for number, item in enumerate(page["shown"])
        if item["kind"] in kinds
    }


@pytest.mark.long
def test_a_study_that_is_killed_in_each_stage_shows_the_same_in_the_end(dsprites_dir, tmp_path):
    for name in ("whole", "killed"):
        for part in ("notebooks", "vaestudy"):
            shutil.copytree(Path(__file__).parents[1] / part, tmp_path / name / part)
    undisturbed, moments, began = study(tmp_path / "whole"), random.Random(0), []
    for stage in STAGES:
        wait_for(undisturbed, stage)
        began.append(time.monotonic())
    errors = undisturbed.communicate(timeout=600)[1]
    assert undisturbed.returncode == 0, errors
    for stage, (start_of, end_of) in zip(STAGES, itertools.pairwise([*began, time.monotonic()]), strict=True):
        for _ in range(2):
            kill_study(tmp_path / "killed", stage, moments.uniform(0, 0.5) * (end_of - start_of))
    last = study(tmp_path / "killed")
    last.communicate(timeout=600)
    assert last.returncode == 0
    found = [left(tmp_path / name / "runs") for name in ("killed", "whole")]
    assert_same(*found)
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "whole")
    assert not list((tmp_path / "killed" / "reports" / "smoke").glob("*.partial.ipynb"))
