"""The package works where it is installed: no clone around it, an empty folder to work in."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_installed_from_a_wheel_it_trains_in_an_empty_folder(tmp_path, dsprites_dir):
    site, here = tmp_path / "site", tmp_path / "empty"
    here.mkdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(ROOT)], check=True, capture_output=True)
    files = [path for path in (ROOT / "vaestudy").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    missing = [path for path in files if not (site / path.relative_to(ROOT)).is_file()]
    assert any(path.suffix == ".j2" for path in files)
    assert not missing
    environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "vaestudy", "train", "vae", "--profile", "smoke"]
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert list((here / "runs").glob("vae-*/record.json"))
    command = [sys.executable, "-m", "vaestudy", "study", "--profile", "smoke"]
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
