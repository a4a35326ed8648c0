"""Arrays of bytes on disk: made once, piece by piece, and opened in an instant afterwards."""

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from tqdm import tqdm

from vaestudy.data.paths import default_dir
from vaestudy.errors import InputError
from vaestudy.files import locked, write_json

SAVED_EVERY = 1.0  # seconds between two notes of how far an array has come

# From a row on, some rows at a time: an array, or a list of one array a row, None for a row that cannot be had.
Pieces = Callable[[int], Iterator[np.ndarray | list[np.ndarray | None]]]

_only_found = ContextVar("only_found", default=False)


@contextmanager
def only_found() -> Iterator[None]:
    """Inside the block, an array that is not there yet is an InputError, not the work of minutes."""
    before = _only_found.set(True)
    try:
        yield
    finally:
        _only_found.reset(before)


def cache_path(folder: Path, name: str) -> Path:
    """Where an array made from the files in `folder` is kept: beside them, or in `default_dir()` if that is barred."""
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    kept_there = (folder / name).exists() or os.access(nearest, os.W_OK)
    return (folder if kept_there else default_dir()) / name


def cached_array(
    path: Path, shape: tuple[int, ...], pieces: Pieces, **about: object
) -> tuple[UInt8[Tensor, "..."], dict]:
    """The uint8 array that stands in `path`, made of `pieces` if it does not stand there yet.

    `pieces(start)` yields the rows from `start` on. Room is taken once the first of them is there, so that files
    which cannot be used are refused before that. A call that was stopped goes on behind the rows that it has left.
    The details stand in a `.json` file beside the array, so opening never reads the array: `about`, the rows left
    black ("unreadable") and the sha256 of the bytes ("checksum").

    Returns:
        the array as a memory-mapped tensor (writes to it stay private), and the details.

    Raises:
        InputError: the folder cannot be written or has too little room, or no row can be had.
    """
    try:
        if (found := _open(path, shape)) is None:
            if _only_found.get():
                raise InputError(f"{path} is not made yet")
            path.parent.mkdir(parents=True, exist_ok=True)
            # Several processes may ask for the same images at once: one makes them, the others wait and open them.
            with locked(path.with_name(f".{path.stem}.lock"), f"makes {path}"):
                if (found := _open(path, shape)) is None:
                    _make(path, shape, pieces, about)
                    found = _open(path, shape)
    except OSError as error:
        raise InputError(
            f"cannot write {path} ({error.strerror}): choose another data_dir or $VAESTUDY_DATA"
        ) from error
    return found


def _open(path: Path, shape: tuple[int, ...]) -> tuple[Tensor, dict] | None:
    # Copy-on-write is the one mapping that torch takes without a warning and that cannot harm the file.
    array = _mapped(path, shape, "c")
    with suppress(FileNotFoundError, ValueError):
        return None if array is None else (torch.from_numpy(array), json.loads(path.with_suffix(".json").read_text()))


def _mapped(path: Path, shape: tuple[int, ...], mode: str) -> np.ndarray | None:
    try:
        array = np.load(path, mmap_mode=mode, allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return array if array.shape == shape and array.dtype == np.uint8 else None


def _make(path: Path, shape: tuple[int, ...], pieces: Pieces, about: dict) -> None:
    partial, progress = path.with_suffix(".partial"), path.with_suffix(".progress")
    array, row, unreadable = _mapped(partial, shape, "r+"), 0, []
    if array is not None:
        with suppress(FileNotFoundError, ValueError):
            row, unreadable = json.loads(progress.read_text())

    def save() -> None:
        if array is not None:
            array.flush()  # before the note: what it counts must be there after a power cut, too
            write_json(progress, [row, unreadable])

    def remove() -> None:
        for unfinished in (progress, partial):
            unfinished.unlink(missing_ok=True)

    saved = time.monotonic()
    try:
        with tqdm(total=shape[0], initial=row, desc=path.stem, unit=" images", disable=None) as bar:
            for piece in pieces(row):
                if array is None:
                    remove()
                    array = _reserved(partial, shape)
                if isinstance(piece, list):
                    unreadable += [row + k for k, image in enumerate(piece) if image is None]
                    piece = [np.zeros(shape[1:], np.uint8) if image is None else image for image in piece]
                array[row : row + len(piece)] = piece
                row += len(piece)
                bar.update(len(piece))
                if time.monotonic() - saved > SAVED_EVERY:
                    save()
                    saved = time.monotonic()
        if len(unreadable) == shape[0]:
            raise InputError(
                f"none of the {shape[0]:,} images in {about['source']} can be decoded: convert them to JPEG or PNG"
            )
    except InputError:  # of files that are no use: nobody goes on with them
        remove()
        raise
    except BaseException:
        save()
        raise
    checksum = hashlib.sha256(array).hexdigest()
    write_json(path.with_suffix(".json"), {**about, "unreadable": unreadable, "checksum": checksum})
    os.replace(partial, path)
    remove()


def _reserved(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """An array of zeros whose room on the disk is taken: a full disk shows here, not as the end of the process."""
    needed, free = math.prod(shape), shutil.disk_usage(path.parent).free
    if needed > free:
        raise InputError(f"{path} needs {needed:,} bytes and {free:,} are left: make room there")
    array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    if hasattr(os, "posix_fallocate"):
        try:
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError:
            path.unlink()
            raise
    return array
