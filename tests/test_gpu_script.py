"""The script for a GPU machine, end to end on a CPU at the size of a smoke test."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "gpu" / "run.sh"
PARTS = ("equality", "tests", "celeba64", "sweep", "vae", "nvae", "beta_vae")


def run(folder, *parts, budget=1200):
    environment = os.environ | {"SIZE": "smoke", "OUT": str(folder / "out"), "STATE": str(folder / "state")}
    environment |= {"BUDGET": str(budget), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([SCRIPT, *parts], env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def found(folder, part):
    return json.loads((folder / "out" / f"{part}.json").read_text())


@pytest.mark.long
def test_a_part_is_done_once_and_none_is_begun_without_time(tmp_path):
    assert run(tmp_path, "sweep", budget=5) == (3, "sweep: no time left, call again\n")
    status, said = run(tmp_path, "sweep")
    assert status == 0, said
    first = found(tmp_path, "sweep")
    assert {row["images_per_second"] > 0 for row in first["rows"].values()} == {True}
    (tmp_path / "out" / "sweep.json").unlink()  # a machine brings an empty folder to each call
    assert run(tmp_path, "sweep") == (0, "sweep: done before\n")
    assert found(tmp_path, "sweep") == first


def test_a_part_that_fails_says_why(tmp_path):
    status, said = run(tmp_path, "no such part")
    assert status == 1
    assert "no such part: failed" in said
    assert "KeyError" in json.loads((tmp_path / "out" / "no such part.failed.json").read_text())["output"]


@pytest.mark.long
def test_every_part_from_end_to_end(tmp_path):
    status, said = run(tmp_path)
    assert status == 0, said
    assert all(found(tmp_path, part)["ok"] for part in PARTS)
    assert max(found(tmp_path, "equality")["largest relative differences"].values()) == 0  # one device stands for both
    forms = found(tmp_path, "celeba64")["rows"]
    assert len(forms) == 4
    assert all(row["images_per_second"] > 0 and row["first_step_seconds"] > 0 for row in forms.values())
    for stage in ("vae", "beta_vae", "nvae"):
        records = found(tmp_path, stage)["records"]
        assert len(records) >= 2
        assert all(record["training"]["images_seen"] > 0 for record in records)
