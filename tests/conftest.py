import os
import shutil

# Test machines have two cores, and pytest-style parallelism is left to the caller.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from factor_grid import full_grid
from filelock import FileLock

from vaestudy import data
from vaestudy.metrics import factor_codes


@pytest.fixture(autouse=True, scope="session")
def _threads():
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _own_data_folder(tmp_path_factory):
    """Keeps the tests, and the processes they start, away from the user's data."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAESTUDY_DATA", str(folder))
        yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def dsprites_dir(_own_data_folder):
    """The default data folder, with dSprites rendered in it once for all tests."""
    data.load("dsprites")
    return _own_data_folder


@pytest.fixture(scope="session")
def grid():
    """The factors of all dSprites images, in their order."""
    return full_grid()


@pytest.fixture(scope="session")
def truth(grid):
    """The perfect code: the factors themselves."""
    return factor_codes(grid)


@pytest.fixture(scope="session")
def smoke_report(tmp_path_factory):
    """The folder of a smoke study, run once for all tests of all workers."""
    from vaestudy.report import site

    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    root = tmp_path_factory.getbasetemp().parent if is_worker else tmp_path_factory.mktemp("study")
    with FileLock(root / "smoke.lock"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "2")
        if not (root / "smoke" / "index.html").exists():
            site.study("smoke", root, say=lambda line: None)
    return root / "smoke"
