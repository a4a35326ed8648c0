"""Files whole or not at all; locks with one owner at a time, and none where a file system has no locks."""

import errno
import fcntl
import threading

import pytest
import torch

from vaestudy import data, training
from vaestudy.data import ImageSet
from vaestudy.data.fetch import fetch
from vaestudy.errors import InputError
from vaestudy.files import locked, replacing
from vaestudy.models import VAE

IMAGES = ImageSet("dark", (1, 8, 8), torch.zeros(4, 1, 8, 8, dtype=torch.uint8))


def train(folder):
    training.fit(VAE((1, 8, 8), latent_dim=2, network="linear"), IMAGES, training.Training(images=8), folder / "run")


def draw(folder):
    data.load("dsprites", data_dir=folder)


def download(folder):
    fetch(["http://127.0.0.1:9/file"], "0" * 32, folder / "file")


@pytest.mark.parametrize(
    ("work", "number"), [(train, errno.ENOSYS), (draw, errno.ENOLCK), (download, errno.EOPNOTSUPP)]
)
def test_a_file_system_without_locks_is_one_line_before_any_work(work, number, tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(number, "no")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(InputError, match="no locks") as caught:
        work(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and not path.name.endswith(".lock")]


def test_the_second_waits_and_says_for_whom(tmp_path, capsys):
    order, held, leave = [], threading.Event(), threading.Event()

    def first():
        with locked(tmp_path / ".lock", "is first"):
            held.set()
            leave.wait(30)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    held.wait(30)
    threading.Timer(0.3, leave.set).start()
    with locked(tmp_path / ".lock", "is first"):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]
    assert capsys.readouterr().out == "waiting for the process that is first\n"


def test_replacing_is_all_or_nothing(tmp_path):
    target = tmp_path / "note"
    target.write_text("old")
    with pytest.raises(RuntimeError), replacing(target) as file:  # noqa: PT012
        file.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    with replacing(target) as file:
        file.write_text("new")
    assert target.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["note"]
