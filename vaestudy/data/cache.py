"""Arrays of bytes on disk: made once, all or nothing, and opened in an instant afterwards."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import UInt8
from torch import Tensor

from vaestudy.errors import InputError
from vaestudy.files import replacing

_only_found = ContextVar("only_found", default=False)


@contextmanager
def only_found() -> Iterator[None]:
    """Inside the block, an array that is not there yet is an InputError, not the work of minutes."""
    before = _only_found.set(True)
    try:
        yield
    finally:
        _only_found.reset(before)


def cached_array(
    path: Path, shape: tuple[int, ...], fill: Callable[..., dict], *, resume: bool = False
) -> tuple[UInt8[Tensor, "..."], dict]:
    """The uint8 array that stands in `path`, made by `fill` if it does not stand there yet.

    `fill(array)` writes into a memory-mapped array, all zero at first, and returns what should be remembered of it.
    Those details and the sha256 of the bytes ("checksum") stand in a `.json` file beside the array, so opening never
    reads the array. What a failure leaves unfinished is thrown away. With `resume` it is kept instead, together with
    one byte of progress for each row, all zero at first, and the next call hands both to `fill(array, done)`.

    Returns:
        the array as a memory-mapped tensor (writes to it stay private), and the details.

    Raises:
        InputError: the folder cannot be written or has too little room.
    """
    try:
        if (found := _open(path, shape)) is None:
            if _only_found.get():
                raise InputError(f"{path} is not made yet")
            path.parent.mkdir(parents=True, exist_ok=True)
            # Several processes may ask for the same images at once: one makes them, the others wait and open them.
            with FileLock(path.with_name(f".{path.stem}.lock")):
                if (found := _open(path, shape)) is None:
                    _make(path, shape, fill, resume)
                    found = _open(path, shape)
    except OSError as error:
        raise InputError(
            f"cannot write {path} ({error.strerror}): choose another data_dir or $VAESTUDY_DATA"
        ) from error
    return found


def _open(path: Path, shape: tuple[int, ...]) -> tuple[Tensor, dict] | None:
    try:
        # Copy-on-write is the one mapping that torch takes without a warning and that cannot harm the file.
        array = np.load(path, mmap_mode="c", allow_pickle=False)
        details = json.loads(path.with_suffix(".json").read_text())
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return (torch.from_numpy(array), details) if array.shape == shape and array.dtype == np.uint8 else None


def _make(path: Path, shape: tuple[int, ...], fill: Callable[..., dict], resume: bool) -> None:
    partial, done = path.with_suffix(".partial"), path.with_suffix(".done")
    arrays = [_unfinished(partial, shape), _unfinished(done, shape[:1])] if resume else []
    if not arrays or any(array is None for array in arrays):
        needed, free = math.prod(shape), shutil.disk_usage(path.parent).free
        if needed > free:  # a full disk would end the process without a word once the mapping is written to
            raise InputError(f"{path} needs {needed:,} bytes and {free:,} are left: make room there")
        arrays = [_reserved(partial, shape)] + ([_reserved(done, shape[:1])] if resume else [])
    try:
        details = fill(*arrays)
        arrays[0].flush()
        details["checksum"] = hashlib.sha256(arrays[0]).hexdigest()
        with replacing(path.with_suffix(".json")) as file:
            file.write_text(json.dumps(details, indent=1))
        os.replace(partial, path)
        done.unlink(missing_ok=True)
    except BaseException:
        if not resume:
            partial.unlink(missing_ok=True)
        raise


def _reserved(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """An array of zeros whose room on the disk is taken: a quota shows here, not as the end of the process."""
    array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    if hasattr(os, "posix_fallocate"):
        try:
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError:
            path.unlink()
            raise
    return array


def _unfinished(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        array = np.load(path, mmap_mode="r+", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return array if array.shape == shape else None
