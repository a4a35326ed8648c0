"""Every recipe of the README, done on a copy of the project with the very lines that stand there."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RECIPES = (ROOT / "README.md").read_text().partition("## To add ...")[2]


def block(title):
    """The first block of code below the recipe of this title."""
    return re.search(r"```\w+\n(.*?)```", RECIPES[RECIPES.index(f"<b>... {title}</b>") :], re.S)[1]


@pytest.fixture
def copy(tmp_path):
    for name in ("vaestudy", "notebooks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))

    def run(*words, title=None):
        if title is not None:
            subprocess.run(["git", "apply", "-"], input=block(title), text=True, cwd=tmp_path, check=True)
        environment = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_parameter(copy, tmp_path):
    code = "from vaestudy import settings; print(settings.resolve('vae', plane_side=3).plane_side)"
    assert copy("-c", code, title="a parameter").strip() == "3"
    cells = json.loads((tmp_path / "notebooks" / "01_vae.ipynb").read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells]
    assert any("plane_side: int = 15" in source for source in sources)
    assert "figures.manifold(plane.model, side=settings.plane_side)" in sources


def test_a_data_set(copy):
    out = copy("-m", "vaestudy", "train", "vae", "--dataset", "stripes", "--profile", "smoke", title="a data set")
    assert "held-out ELBO, nats" in out


def test_a_metric(copy):
    code = (
        "from vaestudy import metrics as m; f = m.factor_codes; import numpy as np; v = np.arange(12).reshape(-1, 1)\n"
    )
    code += "v = np.concatenate([v % 2, v // 6], axis=1); print(m.scores(f(v), v, seed=0, only=['active']))"
    assert copy("-c", code, title="a metric").strip() == "{'active': 1.0}"


def test_a_model(copy, dsprites_dir):
    assert "higgins" in copy("-c", block("a model") + "\nprint(card, figure)")


def test_a_stage(copy, dsprites_dir):
    out = copy("-m", "vaestudy", "train", "pca", "--profile", "smoke", "--components", "5", title="a stage")
    assert re.findall(r"metric='(\w+)'", out) == ["higgins", "mig"]
