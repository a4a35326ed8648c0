"""A disk that is full, has a quota or turns read-only: one line, nothing broken, and on once there is room."""

import resource
import subprocess
from contextlib import contextmanager, suppress

import numpy as np
import pytest
from small_notebook import write
from small_training import SHAPE, Interrupted, assert_same, assert_same_history, fit, interrupt_after, noise, small

from vaestudy.data.cache import cached_array
from vaestudy.errors import InputError
from vaestudy.models import VAE
from vaestudy.report import site
from vaestudy.training import Run, checkpoint

SIZE = 8 << 20  # of the disk


def model():
    return VAE(SHAPE, latent_dim=3, network="kingma", width=200)  # a state of a third of a megabyte


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return fit(model(), noise(), small(), tmp_path_factory.mktemp("whole"))


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own."""
    where = tmp_path / "disk"
    where.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(where)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only the superuser can mount a disk")
    yield where
    subprocess.run(["umount", "--lazy", str(where)], check=True)


@contextmanager
def full(disk):
    """Not a byte is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 12))
    yield
    filler.unlink(missing_ok=True)


@contextmanager
def read_only(disk):
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


@contextmanager
def small_quota(_disk):
    """Files of 20 kB at most; beyond it a write fails as one beyond a quota does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fails(folder, reason, **options):
    """The one line with which a training stops."""
    with pytest.raises(InputError, match=f"^cannot write to {folder}.*: {reason}$") as caught:
        fit(model(), noise(), small(), folder, **options)
    assert "\n" not in str(caught.value)


def stands(folder, whole, step):
    """What is there is whole, and the training goes on from its last state to the end of an undisturbed one."""
    assert checkpoint.load(folder)["step"] == step
    assert not list(folder.glob(".checkpoint-*"))
    run = fit(model(), noise(), small(), folder)
    assert_same(run.model.state_dict(), whole.model.state_dict())
    assert_same_history(run, whole)


TROUBLES = [(full, "No space left on device"), (read_only, "Read-only file system"), (small_quota, "File too large")]


@pytest.mark.parametrize(("trouble", "reason"), TROUBLES)
def test_a_training_in_trouble_before_it_goes_on(trouble, reason, disk, whole):
    folder = disk / "run"
    with pytest.raises(Interrupted):
        fit(model(), noise(), small(), folder, checkpoint_seconds=0, on_step=interrupt_after(5))
    with trouble(disk):
        fails(folder, reason, checkpoint_seconds=0)
    stands(folder, whole, 5)


@pytest.mark.parametrize(("trouble", "reason"), [TROUBLES[0], TROUBLES[2]])
def test_a_training_whose_disk_gets_into_trouble(trouble, reason, disk, whole):
    folder, happened = disk / "run", []

    def on_step(step):
        if step == 5:
            happened.append(trouble(disk))
            happened[0].__enter__()

    fails(folder, reason, checkpoint_seconds=0, on_step=on_step)
    happened[0].__exit__(None, None, None)
    stands(folder, whole, 5)


@pytest.mark.parametrize("lost", ["weights", "record"])
def test_a_disk_that_is_full_at_the_end(lost, disk, whole, monkeypatch):
    """The weights, or the record that makes a run a finished one, find no room."""
    folder, happened = disk / "run", full(disk)
    name = {"weights": "save_weights", "record": "update_record"}[lost]
    plain = getattr(Run, name)

    def then_full(*arguments, **named):
        happened.__enter__()
        return plain(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Run, name, then_full)
        fails(folder, "No space left on device")
    happened.__exit__(None, None, None)
    assert not Run(folder, model()).finished
    stands(folder, whole, 10)


def test_a_cache_finds_that_it_has_no_room_before_it_is_filled(disk, monkeypatch):
    """Also where the disk says that it has, as one with a quota does: a mapped file would end the process."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10**12}))
    with pytest.raises(InputError, match=r"cannot write .*\(No space left on device\): choose another data_dir"):
        cached_array(disk / "numbers.npy", (2 * SIZE, 1), lambda start: iter([np.zeros((1, 1), np.uint8)]))
    assert [path.name for path in disk.iterdir() if path.name[0] != "."] == []


def test_a_report_without_room_keeps_the_pages_of_before(disk, tmp_path):
    notebooks = tmp_path / "notebooks"
    source = write(notebooks / "01_vae.ipynb", cells=["# One", ["1 + 1"]])
    site.study("smoke", disk, notebooks, say=lambda line: None)
    before = {path.name: path.read_bytes() for path in (disk / "smoke").iterdir()}
    write(source, cells=["# One", ["print('x' * 100_000)"]])
    with full(disk), pytest.raises(InputError, match=r"cannot write to .*: No space left on device"):
        site.study("smoke", disk, notebooks, say=lambda line: None)
    after = {path.name: path.read_bytes() for path in (disk / "smoke").iterdir() if "partial" not in path.name}
    assert after == before
    site.study("smoke", disk, notebooks, say=lambda line: None)
    assert "xxxx" in (disk / "smoke" / "01_vae.html").read_text()
