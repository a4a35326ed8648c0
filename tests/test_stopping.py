"""SIGTERM and Ctrl-C: the state is saved, one line says how to go on, and the exit status is 143 or 130."""

import json
import signal
import time

import nbformat
import pytest
from small_notebook import write
from small_training import SHAPE, assert_same, fit, noise, small, start

from vaestudy import stopping
from vaestudy.errors import InputError, NotebookError
from vaestudy.models import VAE
from vaestudy.training import Run
from vaestudy.training.run import owned

SIGNALS = [(signal.SIGTERM, 143), (signal.SIGINT, 130)]
WAITS = """
import time
from pathlib import Path
import small_training as shared
from vaestudy.models import VAE


def wait(folder, step):
    if step == 5:
        Path(folder, "here").touch()
        while Path(folder, "here").exists():
            time.sleep(0.01)


def train(folder):
    model = VAE(shared.SHAPE, latent_dim=3, width=16)
    return shared.fit(model, shared.noise(), shared.small(), folder, on_step=lambda step: wait(folder, step))
"""
PROGRAM = """
import sys
from vaestudy import stopping
sys.exit(stopping.status(lambda: train(sys.argv[1]) and 0))
"""


def stopped_at_step_5(child, folder, number):
    """Send a signal to a process whose training waits after five steps; its exit status and standard error."""
    while not (folder / "here").exists():
        assert child.poll() is None, child.communicate()
        time.sleep(0.05)
    child.send_signal(number)
    time.sleep(0.5)  # until the kernel of a notebook has heard of it
    (folder / "here").unlink()
    return child.communicate(timeout=100)[1].splitlines(), child.returncode


def steps_to_go(folder):
    """How many steps the training in a folder is from its end."""
    steps = []
    resumed = fit(VAE(SHAPE, latent_dim=3, width=16), noise(), small(), folder, on_step=steps.append)
    whole = fit(VAE(SHAPE, latent_dim=3, width=16), noise(), small(), folder / "whole")
    assert_same(resumed.model.state_dict(), whole.model.state_dict())
    return len(steps)


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_a_training_of_the_command_line(number, status, tmp_path):
    child = start(["-c", WAITS + PROGRAM], tmp_path)
    said, found = stopped_at_step_5(child, tmp_path, number)
    assert found == status
    assert said == ["vaestudy: stopped after 120 images: the same command goes on there"]
    assert steps_to_go(tmp_path) == 4


STUDY = """
import sys
from pathlib import Path
from vaestudy import stopping
from vaestudy.report import site
root = Path(sys.argv[1])
sys.exit(stopping.status(lambda: site.study("smoke", root / "reports", root / "notebooks", say=lambda line: 0) and 0))
"""


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_a_study_whose_notebook_trains(number, status, tmp_path):
    cells = ["# One", [*WAITS.splitlines(keepends=True), "\n", f"train({str(tmp_path / 'run')!r})"], ["print('over')"]]
    write(tmp_path / "notebooks" / "01_vae.ipynb", cells=cells)
    (tmp_path / "run").mkdir()
    child = start(["-c", STUDY], tmp_path)
    said, found = stopped_at_step_5(child, tmp_path / "run", number)
    assert found == status
    assert said == ["vaestudy: stopped after 120 images: the same command goes on there"]
    partial = nbformat.read(tmp_path / "reports" / "smoke" / "01_vae.partial.ipynb", as_version=4)
    assert not partial.cells[-1].outputs
    assert "stopped after 120 images" in (tmp_path / "reports" / "smoke" / "index.html").read_text()
    assert steps_to_go(tmp_path / "run") == 4


SIDE_BY_SIDE = """
import os, sys
from dataclasses import replace
from pathlib import Path
import small_training as shared
from vaestudy import stopping
from vaestudy.models import NVAE, NVAEConfig
from vaestudy.training import Job, fit_many, memory
memory.usable_cores = lambda: 2
net = {"channels": 4, "groups": (1, 1), "latents": 2, "mixtures": 2, "encoder_cells": 1, "decoder_cells": 1}
jobs = [
    Job(NVAE(NVAEConfig(shape=shared.SHAPE, seed=seed, **net)), shared.noise(), shared.small(images=100_000), path)
    for seed, path in enumerate(Path(sys.argv[1], name) for name in ("a", "b"))
]
if __name__ == "__main__":
    sys.exit(stopping.status(lambda: fit_many(jobs) and 0))
"""


def wait_for_logs(child, root):
    while not all((root / name / "metrics.jsonl").exists() for name in "ab") or not all(
        (root / name / "metrics.jsonl").stat().st_size for name in "ab"
    ):
        assert child.poll() is None, child.communicate()
        time.sleep(0.1)


KILLED = pytest.param(signal.SIGKILL, -signal.SIGKILL, marks=pytest.mark.long)


@pytest.mark.parametrize(("number", "status"), [SIGNALS[0], KILLED])
def test_trainings_side_by_side_are_saved_too(number, status, tmp_path):
    """Whatever ends the process that waits for them, as `kill` does, alone."""
    script = tmp_path / "script.py"
    script.write_text(SIDE_BY_SIDE)
    child = start([script], tmp_path)
    wait_for_logs(child, tmp_path)
    child.send_signal(number)
    assert child.wait(100) == status
    # Only once all of its processes have left is the pipe closed.
    said = child.communicate(timeout=60)[1].splitlines()
    if status > 0:
        assert said == ["vaestudy: stopped 2 models: the same command goes on there"]
    for run in (Run(tmp_path / name, VAE(SHAPE)) for name in "ab"):
        assert len(list(run.path.glob("checkpoint-*.pt"))) == 1
        with owned([run]):  # its process has let it go
            assert not run.finished


THREADS = """
import json, threading, time
from vaestudy.training import memory
from vaestudy.training.parallel import side_by_side


def threads(seconds):  # long enough for both processes to get one
    time.sleep(seconds)
    return threading.active_count()


memory.usable_cores = lambda: 2
print(json.dumps([side_by_side(threads, [(0.5,), (0.5,)]) for _ in range(3)]))
"""


def test_a_process_that_works_again_is_watched_once(tmp_path):
    """Two that watch it would send two signals, and the second one means: at once."""
    script = tmp_path / "script.py"
    script.write_text(THREADS)
    said, errors = start([script], tmp_path).communicate(timeout=100)
    first, second, third = json.loads(said)
    assert first == second == third, errors


def test_what_ends_a_program_is_one_line_and_a_status(capsys):
    def ends(error):
        def run():
            raise error

        found = stopping.status(run)
        return found, capsys.readouterr().err

    before = signal.getsignal(signal.SIGTERM)
    assert stopping.status(lambda: 0) == 0
    assert ends(InputError("beta must be 0 or more")) == (2, "vaestudy: beta must be 0 or more\n")
    assert ends(NotebookError("cell 3")) == (1, "vaestudy: cell 3\n")
    assert ends(KeyboardInterrupt()) == (130, f"vaestudy: {stopping.GOES_ON}\n")
    assert ends(OSError(28, "No space left on device", "a/b")) == (
        2,
        "vaestudy: cannot write a/b: No space left on device\n",
    )
    with pytest.raises(FileNotFoundError):
        ends(FileNotFoundError(2, "no such file"))
    assert signal.getsignal(signal.SIGTERM) == before


def test_sigterm_ends_the_command_line_in_one_line_before_any_training_too():
    waits = "import sys, time; from vaestudy.__main__ import main; from vaestudy.report import site\n"
    waits += "site.study = lambda *_, **__: (print('here', flush=True), time.sleep(60))\n"
    child = start(["-c", waits + "sys.exit(main(['study', '--profile', 'smoke']))"])
    assert child.stdout.readline() == "here\n"
    child.send_signal(signal.SIGTERM)
    assert child.communicate(timeout=100)[1] == f"vaestudy: {stopping.GOES_ON}\n"
    assert child.returncode == 143
