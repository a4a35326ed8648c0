"""Files written whole or not at all, and what JSON holds of the study's objects."""

import dataclasses
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vaestudy.errors import InputError, first_line


def project_root() -> Path:
    """The checkout around the working directory, or the working directory: where data, runs and reports go."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "vaestudy" / "data").is_dir()), here)


def digest_of(path: Path, algorithm: str) -> str:
    """The hash of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Makes what a disk says that is full, read-only or has a quota into an InputError that names the path."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write to {path}: {error.strerror or first_line(error)}") from error


@contextmanager
def locked(path: Path, work: str) -> Iterator[None]:
    """Hold a lock, which dies with its process; where another process holds it, say at what work, and wait.

    OSError where there is no right to write, or a file system without locks, as some networks' are.
    """
    lock = FileLock(path, fallback_to_soft=False)  # a soft lock would outlive a process that was killed
    try:
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            print(f"waiting for the process that {work}", flush=True)  # noqa: T201
            held = lock.acquire()
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            error.strerror = "the file system has no locks, and two processes could not be told apart"
        raise
    with held:
        yield


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that takes the place of `path` once the block has ended well.

    InputError, and `path` is what it was, where there is no room or no right to write.
    """
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
    try:
        with writing(path):
            yield Path(name)
            os.chmod(name, 0o644)
            os.replace(name, path)
    finally:
        with suppress(OSError):  # where the disk has turned read-only
            os.unlink(name)


def remove_unfinished(folder: Path) -> None:
    """Take away what `replacing` has left in a folder where it was killed; nobody else may be writing there."""
    for path in folder.glob(".*.*.????????"):
        path.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False, default=plain) + "\n")


def plain(value: Any) -> Any:
    """What JSON should hold of a dataclass, an array, a tensor or a path."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no plain form")


def canonical(config: Any) -> Any:
    """The configuration as JSON gives it back: lists for tuples, plain numbers."""
    return json.loads(json.dumps(config, default=plain, sort_keys=True))
