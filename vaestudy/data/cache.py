"""Arrays of bytes on disk: made once, all or nothing, and opened in an instant afterwards."""

import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaestudy.errors import InputError

Fill = Callable[[np.ndarray], dict]


def keep(path: Path, shape: tuple[int, ...], fill: Fill, *, resume: bool = False) -> tuple[Tensor, dict]:
    """The uint8 array that stands in `path`, written by `fill` if it does not stand there yet.

    `fill` writes into a memory-mapped array of this shape, all zero at first, and returns what should be
    remembered of it. Those details and the sha256 of the bytes ("checksum") are kept in a `.json` file beside the
    array, so opening never reads the array. An unfinished array is thrown away, or with `resume` handed to `fill`
    again.

    Returns:
        the array as a memory-mapped tensor (writes to it stay private), and the details.

    Raises:
        InputError: the folder cannot be written or has too little room.
    """
    if (found := _open(path, shape)) is None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _alone(path):
                if (found := _open(path, shape)) is None:
                    _make(path, shape, fill, resume)
                    found = _open(path, shape)
        except OSError as error:
            raise InputError(f"cannot keep {path.name} in {path.parent}: {error}; choose another data_dir") from error
    return found


def replace_text(path: Path, text: str) -> None:
    """Write a small file all or nothing."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text)
    os.replace(partial, path)


def _open(path: Path, shape: tuple[int, ...]) -> tuple[Tensor, dict] | None:
    try:
        # Copy-on-write is the one mapping that torch takes without a warning and that cannot harm the file.
        array = np.load(path, mmap_mode="c", allow_pickle=False)
        details = json.loads(path.with_suffix(".json").read_text())
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return (torch.from_numpy(array), details) if array.shape == shape and array.dtype == np.uint8 else None


def _make(path: Path, shape: tuple[int, ...], fill: Fill, resume: bool) -> None:
    partial = path.with_suffix(".partial")
    array = _reopen(partial, shape) if resume else None
    if array is None:
        needed, free = int(np.prod(shape)), shutil.disk_usage(path.parent).free
        if needed > free:
            raise InputError(f"{path.parent} has {free:,} bytes left, {path.name} needs {needed:,}: make room there")
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
    try:
        details = fill(array)
        array.flush()
        details["checksum"] = hashlib.sha256(array).hexdigest()
        replace_text(path.with_suffix(".json"), json.dumps(details, indent=1))
        os.replace(partial, path)
    except BaseException:
        if not resume:
            partial.unlink(missing_ok=True)
        raise


def _reopen(partial: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        array = np.load(partial, mmap_mode="r+", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return array if array.shape == shape else None


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    # Several processes may ask for the same images at once: one makes them, the others wait and open them.
    with open(path.with_name(f".{path.stem}.lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
