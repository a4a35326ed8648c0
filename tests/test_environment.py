"""pyproject.toml, requirements.lock and environment.yml describe one environment."""

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
import torch
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIRECT = [Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]]
LOCK_LINES = (ROOT / "requirements.lock").read_text().splitlines()
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
PIP = next(entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict))
CONDA_PYTHON = next(entry for entry in CONDA["dependencies"] if str(entry).startswith("python=")).split("=")[1]


def locked(python):
    """Name to version of all that the lock holds for a Python on Linux."""
    machine = {
        "python_full_version": f"{python}.7",
        "python_version": python,
        "sys_platform": "linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
        "implementation_name": "cpython",
    }
    found = [Requirement(line) for line in LOCK_LINES]
    chosen = [entry for entry in found if entry.marker is None or entry.marker.evaluate(machine)]
    names = [canonicalize_name(entry.name) for entry in chosen]
    assert len(names) == len(set(names)), "a name is locked twice"
    return {name: str(entry.specifier).removeprefix("==") for name, entry in zip(names, chosen, strict=True)}


def test_the_lock_fits_every_dependency_under_every_python():
    for python in ("3.11", "3.12", "3.13", "3.14"):
        versions = locked(python)
        for wanted in DIRECT:
            assert wanted.specifier.contains(versions[canonicalize_name(wanted.name)]), (python, wanted.name)


def test_the_lock_is_exact_and_names_no_index():
    for line in LOCK_LINES:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[\w.]+( ; .+)?", line), line
    assert not re.search(r"https?:|--(extra-)?index|\bgit\+", "\n".join([*LOCK_LINES, str(CONDA)]))


def test_conda_pins_what_the_lock_pins():
    pins = dict(entry.split("==") for entry in PIP if "==" in entry)
    assert list(pins) == [wanted.name for wanted in DIRECT]
    versions = locked(CONDA_PYTHON)
    assert pins == {name: versions[canonicalize_name(name)] for name in pins}


def test_conda_installs_the_project_under_the_lock():
    assert [entry for entry in PIP if "==" not in entry] == ["--constraint requirements.lock", "--editable ."]
    floor = PROJECT["requires-python"].removeprefix(">=")
    assert tuple(map(int, CONDA_PYTHON.split("."))) >= tuple(map(int, floor.split(".")))


def test_torch_and_torchvision_are_a_pair():
    """torchvision names the torch it was built for, and its compiled operators load beside the one that is here."""
    import torchvision

    versions = locked(f"{sys.version_info.major}.{sys.version_info.minor}")
    installed = importlib.metadata.version("torchvision").split("+")[0]
    if installed != versions["torchvision"]:
        pytest.skip(f"torchvision {installed} is here, not the one of the lock")
    wanted = next(Requirement(text) for text in importlib.metadata.requires("torchvision") if "torch" in text)
    assert wanted.specifier.contains(versions["torch"])
    assert wanted.specifier.contains(torch.__version__.split("+")[0])
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.9], [2.0, 2.0, 3.0, 3.0]])
    assert torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist() == [0, 2]
