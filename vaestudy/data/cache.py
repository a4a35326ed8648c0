"""Arrays of bytes on disk: made once, piece by piece, and opened in an instant afterwards."""

import hashlib
import json
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
Shape = tuple[int, ...]
Pieces = Callable[[int], Iterator[np.ndarray | None]]  # from a row on: some rows, or None for one that cannot be had

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


def cached_array(path: Path, shape: Shape, pieces: Pieces, **about: object) -> tuple[UInt8[Tensor, "..."], dict]:
    """The uint8 array that stands in `path`, made of `pieces` if it does not stand there yet, and its details.

    Room is taken once the first piece is there, so that files which cannot be used are refused before that. A call
    that was stopped goes on behind the rows that it has left. The array is mapped into memory, and writes to it stay
    private. Its details, in a `.json` file beside it, are `about`, the rows left black ("unreadable") and the sha256
    of the bytes ("checksum"). InputError for a folder that cannot be written or has too little room, and where no row
    can be had.
    """
    try:
        if (found := _found(path, shape)) is None:
            if _only_found.get():
                raise InputError(f"{path} is not made yet")
            path.parent.mkdir(parents=True, exist_ok=True)
            # Several processes may ask for the same images at once: one makes them, the others wait and open them.
            with locked(path.with_name(f".{path.stem}.lock"), f"makes {path}"):
                found = _found(path, shape) or _make(path, shape, pieces, about)
    except OSError as error:
        advice = "choose another data_dir or $VAESTUDY_DATA"
        raise InputError(f"cannot write {path} ({error.strerror}): {advice}") from error
    array, details = found
    return torch.from_numpy(array), details


def _found(path: Path, shape: Shape, notes: str = ".json", mode: str = "c") -> tuple[np.memmap, dict | list] | None:
    """An array and the notes beside it; None where one of them is not there, not whole or of something else."""
    with suppress(FileNotFoundError, ValueError, EOFError):
        # Copy-on-write is the one mapping that torch takes without a warning and that cannot harm the file.
        array = np.load(path, mmap_mode=mode, allow_pickle=False)
        if array.shape == shape and array.dtype == np.uint8:
            return array, json.loads(path.with_suffix(notes).read_text())
    return None


def _make(path: Path, shape: Shape, pieces: Pieces, about: dict) -> tuple[np.memmap, dict]:
    unfinished, progress = path.with_suffix(".partial"), path.with_suffix(".progress")
    array, (row, unreadable) = _found(unfinished, shape, ".progress", "r+") or (None, (0, []))

    def save() -> None:
        array.flush()  # before the note: what it counts must be there after a power cut, too
        write_json(progress, [row, unreadable])

    def remove() -> None:
        progress.unlink(missing_ok=True)
        unfinished.unlink(missing_ok=True)

    saved = time.monotonic()
    try:
        with tqdm(total=shape[0], initial=row, desc=path.stem, unit=" images", disable=None) as bar:
            for piece in pieces(row):
                if array is None:
                    remove()
                    array = reserved(unfinished, shape)
                if piece is None:
                    unreadable.append(row)
                    piece = np.zeros((1, *shape[1:]), np.uint8)
                array[row : row + len(piece)] = piece
                row += len(piece)
                bar.update(len(piece))
                if time.monotonic() - saved > SAVED_EVERY:
                    save()
                    saved = time.monotonic()
        if len(unreadable) == shape[0]:
            none = f"none of the {shape[0]:,} images in {about['source']} can be decoded"
            raise InputError(f"{none}: convert them to JPEG or PNG")
    except BaseException as error:
        if array is None or isinstance(error, InputError):  # of files that are no use: nobody goes on with them
            remove()
        else:
            save()
        raise
    checksum = hashlib.sha256(array).hexdigest()
    write_json(path.with_suffix(".json"), {**about, "unreadable": unreadable, "checksum": checksum})
    unfinished.replace(path)
    remove()
    return _found(path, shape)


def reserved(path: Path, shape: Shape) -> np.memmap:
    """An array of zeros whose room on the disk is taken: a full disk shows here, not as the end of the process."""
    needed, free = np.prod(shape), shutil.disk_usage(path.parent).free
    if needed > free:
        raise InputError(f"{path} needs {needed:,} bytes and {free:,} are left: make room there")
    array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array
