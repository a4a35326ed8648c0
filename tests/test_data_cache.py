import hashlib
import shutil
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from vaestudy.data import cache
from vaestudy.data.cache import cached_array
from vaestudy.errors import InputError

SHAPE = (6, 5)


ROWS = np.arange(30, dtype=np.uint8).reshape(SHAPE)


def numbers(start):
    yield ROWS[start:4]
    yield ROWS[max(start, 4) :]


def never(_):
    raise AssertionError("made again")


def test_what_is_kept_is_opened_without_being_made_again(tmp_path):
    path = tmp_path / "deep" / "numbers.npy"
    made, about = cached_array(path, SHAPE, numbers, source="counting")
    again, same = cached_array(path, SHAPE, never)
    assert made.tolist() == again.tolist() == ROWS.tolist()
    checksum = hashlib.sha256(bytes(range(30))).hexdigest()
    assert about == same == {"source": "counting", "unreadable": [], "checksum": checksum}


def test_writing_to_the_tensor_leaves_the_file_alone(tmp_path):
    array, _ = cached_array(tmp_path / "numbers.npy", SHAPE, numbers)
    array[0, 0] = 99
    assert cached_array(tmp_path / "numbers.npy", SHAPE, never)[0][0, 0] == 0


def test_rows_that_cannot_be_had_stay_black_and_are_noted(tmp_path):
    def pieces(start):
        yield from (ROWS[:1], None, None, ROWS[3:])

    array, about = cached_array(tmp_path / "rows.npy", SHAPE, pieces)
    assert about["unreadable"] == [1, 2]
    assert array.tolist() == [[0 if k in (1, 2) else value for value in row] for k, row in enumerate(ROWS.tolist())]
    with pytest.raises(InputError, match="none of the 6 images in here can be decoded"):
        cached_array(tmp_path / "black.npy", SHAPE, lambda start: iter([None] * 6), source="here")
    assert not list(tmp_path.glob("black*"))


@pytest.mark.parametrize("saved_every", [0, 1000])
def test_what_was_stopped_is_never_taken_for_the_whole_and_goes_on_where_it_was(tmp_path, monkeypatch, saved_every):
    monkeypatch.setattr(cache, "SAVED_EVERY", saved_every)

    def two_more(start):
        begun.append(start)
        yield from (None if row == 3 else ROWS[row : row + 1] for row in range(start, min(start + 2, 6)))
        if start < 4:
            raise KeyboardInterrupt

    begun = []
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            cached_array(tmp_path / "rows.npy", SHAPE, two_more)
        assert not (tmp_path / "rows.npy").exists()
    array, about = cached_array(tmp_path / "rows.npy", SHAPE, two_more)
    assert begun == [0, 2, 4]
    assert about["unreadable"] == [3]
    assert array[:, 0].tolist() == [0, 5, 10, 0, 20, 25]
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.name[0] != ".") == [".json", ".npy"]


def test_files_that_turn_out_to_be_no_use_leave_nothing_of_theirs(tmp_path):
    def cut(start):
        yield ROWS[:4]
        raise InputError("the file ends here")

    with pytest.raises(InputError, match="ends here"):
        cached_array(tmp_path / "rows.npy", SHAPE, cut)
    assert [path.name for path in tmp_path.iterdir()] == [".rows.lock"]


@pytest.mark.parametrize("lost", ["rows.partial", "rows.progress"])
def test_half_of_the_unfinished_pair_is_no_ground_to_resume_from(tmp_path, lost):
    def stop(start):
        yield ROWS[:4] + 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_array(tmp_path / "rows.npy", SHAPE, stop)
    (tmp_path / lost).unlink()
    assert cached_array(tmp_path / "rows.npy", SHAPE, numbers)[0].tolist() == ROWS.tolist()


def test_what_cannot_be_read_is_refused_before_any_room_is_taken(tmp_path, monkeypatch):
    """A published set takes 12 GB: reserved for a file that is none, they would leave nobody else any room."""
    monkeypatch.setattr(cache, "reserved", lambda *_: pytest.fail("room was taken"))

    def refuse(start):
        raise InputError("no such images")
        yield

    with pytest.raises(InputError, match="no such images"):
        cached_array(tmp_path / "rows.npy", SHAPE, refuse)


@pytest.mark.parametrize("damage", [b"", b"<html>"])
def test_a_damaged_file_is_made_again(tmp_path, damage):
    path = tmp_path / "numbers.npy"
    cached_array(path, SHAPE, numbers)
    path.write_bytes(damage)
    assert cached_array(path, SHAPE, numbers)[0][5, 4] == 29


def test_another_shape_is_made_again(tmp_path):
    cached_array(tmp_path / "numbers.npy", (2, 3), lambda start: iter([np.zeros((2, 3), np.uint8)]))
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

    def slow(start):
        calls.append(1)
        started.set()
        joined.wait()
        time.sleep(0.1)  # long enough for the other thread to reach the lock
        yield from numbers(start)

    ask = [threading.Thread(target=cached_array, args=(tmp_path / "numbers.npy", SHAPE, slow)) for _ in range(2)]
    ask[0].start()
    started.wait()
    ask[1].start()
    joined.set()
    for thread in ask:
        thread.join()
    assert calls == [1]
