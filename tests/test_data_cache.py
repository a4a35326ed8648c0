import hashlib
import json
import shutil
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from vaestudy.data.cache import cached_array
from vaestudy.errors import InputError
from vaestudy.files import replacing

SHAPE = (6, 5)


def numbers(array):
    array[:] = np.arange(30).reshape(SHAPE)
    return {"source": "counting"}


def never(*_):
    raise AssertionError("made again")


def test_what_is_kept_is_opened_without_being_made_again(tmp_path):
    path = tmp_path / "deep" / "numbers.npy"
    made, about = cached_array(path, SHAPE, numbers)
    again, same = cached_array(path, SHAPE, never)
    assert made.tolist() == again.tolist() == np.arange(30).reshape(SHAPE).tolist()
    assert about == same == {"source": "counting", "checksum": hashlib.sha256(bytes(range(30))).hexdigest()}


def test_writing_to_the_tensor_leaves_the_file_alone(tmp_path):
    array, _ = cached_array(tmp_path / "numbers.npy", SHAPE, numbers)
    array[0, 0] = 99
    assert cached_array(tmp_path / "numbers.npy", SHAPE, never)[0][0, 0] == 0


@pytest.mark.parametrize("resume", [False, True])
def test_a_failure_is_never_taken_for_the_whole(tmp_path, resume):
    def half(array, *_):
        array[:3] = 7
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_array(tmp_path / "numbers.npy", SHAPE, half, resume=resume)
    assert not (tmp_path / "numbers.npy").exists()
    assert (tmp_path / "numbers.partial").exists() == resume


def test_resuming_goes_on_with_what_was_done(tmp_path):
    def one_more(array, done):
        row = int(np.argmin(done))
        array[row], done[row] = row + 1, 1
        if not done.all():
            raise KeyboardInterrupt
        return {}

    for _ in range(SHAPE[0] - 1):
        with pytest.raises(KeyboardInterrupt):
            cached_array(tmp_path / "rows.npy", SHAPE, one_more, resume=True)
    array, _ = cached_array(tmp_path / "rows.npy", SHAPE, one_more, resume=True)
    assert array[:, 0].tolist() == [1, 2, 3, 4, 5, 6]
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.name[0] != ".") == [".json", ".npy"]


@pytest.mark.parametrize("lost", ["rows.partial", "rows.done"])
def test_half_of_the_unfinished_pair_is_no_ground_to_resume_from(tmp_path, lost):
    def stop(array, done):
        array[:], done[:] = 9, 1
        raise KeyboardInterrupt

    def check(array, done):
        assert not array.any()
        assert not done.any()
        return {}

    with pytest.raises(KeyboardInterrupt):
        cached_array(tmp_path / "rows.npy", SHAPE, stop, resume=True)
    (tmp_path / lost).unlink()
    cached_array(tmp_path / "rows.npy", SHAPE, check, resume=True)


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"<html>"])
def test_a_damaged_file_is_made_again(tmp_path, damage):
    path = tmp_path / "numbers.npy"
    cached_array(path, SHAPE, numbers)
    path.write_bytes(damage)
    assert cached_array(path, SHAPE, numbers)[0][5, 4] == 29


def test_another_shape_is_made_again(tmp_path):
    cached_array(tmp_path / "numbers.npy", (2, 3), lambda array: {})
    assert cached_array(tmp_path / "numbers.npy", SHAPE, numbers)[0].shape == SHAPE


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot write .*another data_dir") as caught:
        cached_array(tmp_path / "file" / "numbers.npy", SHAPE, numbers)
    assert "\n" not in str(caught.value)


def test_too_little_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=29))
    with pytest.raises(InputError, match="needs 30 bytes and 29 are left"):
        cached_array(tmp_path / "numbers.npy", SHAPE, numbers)
    assert not [path for path in tmp_path.iterdir() if path.name[0] != "."]


def test_two_that_ask_at_once_make_it_once(tmp_path):
    calls, started, joined = [], threading.Event(), threading.Event()

    def slow(array):
        calls.append(1)
        started.set()
        joined.wait()
        time.sleep(0.1)  # long enough for the other thread to reach the lock
        return numbers(array)

    ask = [threading.Thread(target=cached_array, args=(tmp_path / "numbers.npy", SHAPE, slow)) for _ in range(2)]
    ask[0].start()
    started.wait()
    ask[1].start()
    joined.set()
    for thread in ask:
        thread.join()
    assert calls == [1]


def test_replacing_is_all_or_nothing(tmp_path):
    target = tmp_path / "note.json"
    target.write_text("old")

    def fail():
        with replacing(target) as file:
            file.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_text() == "old"
    with replacing(target) as file:
        file.write_text(json.dumps("new"))
    assert [path.name for path in tmp_path.iterdir()] == ["note.json"]
    assert target.read_text() == '"new"'
