"""Photographs decoded once, by several processes, into one array of bytes."""

import hashlib
import json
import logging
import os
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from torch import Tensor
from tqdm import tqdm

from vaestudy.data.cache import keep
from vaestudy.errors import InputError

logger = logging.getLogger(__name__)

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
# What PIL's readers raise for bytes that are damaged, beside its own error for bombs.
DAMAGE = (OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, struct.error, zlib.error)
DONE, UNREADABLE = 1, 2
CHUNK = 256  # images that a worker takes at a time, and the most that a kill loses
POOL_PAYS = 30e6  # bytes of files below which starting processes takes longer than decoding

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Recipe:
    """How a photograph becomes an array: cut to `crop` (left, top, right, bottom) or to its middle square, then
    resized to `side` pixels by PIL's bilinear filter, in RGB. `version` changes whenever the pixels do."""

    side: int
    crop: Box | None = None
    version: int = 1


def listing(folder: Path) -> list[tuple[str, int]]:
    """Relative name (with /) and size in bytes of every image file at any depth, sorted by name.

    Raises:
        InputError: the folder is missing, unreadable or has no image.
    """

    def walk(path: str, prefix: str) -> Iterator[tuple[str, int]]:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    yield from walk(entry.path, f"{prefix}{entry.name}/")
                elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                    yield prefix + entry.name, entry.stat().st_size

    try:
        found = sorted(walk(str(folder), ""))
    except OSError as error:
        raise InputError(f"cannot read the images in {folder}: {error.strerror} ({error.filename})") from error
    if not found:
        raise InputError(f"{folder} holds no images ({' '.join(sorted(SUFFIXES))})")
    return found


def decoded(
    name: str, folder: Path, files: list[tuple[str, int]], recipe: Recipe, cache_dir: Path, workers: int | None = None
) -> tuple[UInt8[Tensor, "n 3 side side"], dict]:
    """All files of a listing as uint8 (n, 3, side, side), with "checksum" and "unreadable" (rows left black).

    The array is kept in `cache_dir` under a name that depends on the listing and the recipe, so a changed folder is
    decoded anew. A call that was stopped goes on where it was. `workers` is the number of processes, by default one
    for each core that this process may use.

    Raises:
        InputError: a file cannot be opened, none can be decoded, or the cache cannot be written.
    """
    identity = hashlib.sha256(json.dumps([asdict(recipe), files]).encode()).hexdigest()[:16]
    workers = workers or _cores()

    def fill(array: np.ndarray, done: np.ndarray) -> dict:
        todo = np.flatnonzero(done == 0)
        size = min(CHUNK, -(-len(todo) // (4 * workers)) or 1)
        jobs = [[(int(row), files[row][0]) for row in todo[i : i + size]] for i in range(0, len(todo), size)]
        with tqdm(total=len(files), initial=len(files) - len(todo), desc=name, unit=" images", disable=None) as bar:
            few = sum(files[row][1] for row in todo) < POOL_PAYS
            for rows, states in _work(jobs, str(folder), Path(array.filename), recipe, 1 if few else workers):
                array.flush()  # before the marks: what is marked must be there after a power cut, too
                done[rows] = states
                done.flush()
                bar.update(len(rows))
        bad = np.flatnonzero(done == UNREADABLE)
        if len(bad) == len(files):
            raise InputError(f"none of the {len(files):,} images in {folder} can be decoded")
        return {"source": f"{len(files):,} files", **asdict(recipe), "unreadable": bad.tolist()}

    path = cache_dir / f"{name}-{recipe.side}-{identity}.npy"
    storage, details = keep(path, (len(files), 3, recipe.side, recipe.side), fill, resume=True)
    if bad := details["unreadable"]:
        names = ", ".join(files[row][0] for row in bad[:5]) + (", ..." if len(bad) > 5 else "")
        logger.warning("%s: skipped %d of %d images that cannot be decoded: %s", folder, len(bad), len(files), names)
    return storage, details


def _work(jobs: list, folder: str, target: Path, recipe: Recipe, workers: int) -> Iterator[tuple[list, list]]:
    if workers == 1:
        for job in jobs:
            yield decode_some(job, folder, target, recipe)
        return
    context = get_context("forkserver")  # this process runs threads, whose locks a plain fork would copy
    context.set_forkserver_preload([__name__])
    pool = ProcessPoolExecutor(workers, mp_context=context)
    try:
        for future in as_completed([pool.submit(decode_some, job, folder, target, recipe) for job in jobs]):
            yield future.result()
    except BrokenProcessPool as error:
        raise InputError("a decoding process died (out of memory?); the same call goes on where it was") from error
    finally:
        pool.shutdown(cancel_futures=True)


def decode_some(job: list[tuple[int, str]], folder: str, target: Path, recipe: Recipe) -> tuple[list[int], list[int]]:
    """Decode some files into their rows of the array in `target`: the rows, and `DONE` or `UNREADABLE` for each."""
    array = np.load(target, mmap_mode="r+")
    states = []
    for row, name in job:
        pixels = decode(os.path.join(folder, name), recipe)
        if pixels is not None:
            array[row] = pixels.transpose(2, 0, 1)
        states.append(UNREADABLE if pixels is None else DONE)
    return [row for row, _ in job], states


def decode(path: str, recipe: Recipe) -> UInt8[np.ndarray, "side side 3"] | None:
    """One photograph, or None where its bytes are no whole image.

    Raises:
        InputError: the file cannot be read at all.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            if recipe.crop is None:
                # JPEG can skip detail while decoding; what is left is still twice what the filter needs.
                scale = 2 * recipe.side / min(image.size)
                image.draft(None, tuple(int(scale * length) + 1 for length in image.size))
            image = _rgb(ImageOps.exif_transpose(image))
            box = recipe.crop or _middle(image.size)
            if box[2] > image.width or box[3] > image.height:
                raise ValueError(f"{image.size} is smaller than the crop")
            image = image.crop(box).resize((recipe.side, recipe.side), Image.Resampling.BILINEAR)
            return np.asarray(image)
    except (*DAMAGE, Image.DecompressionBombError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's trouble, not the image's
            raise InputError(f"cannot read {path}: {error.strerror}") from error
        return None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _middle(size: tuple[int, int]) -> Box:
    side = min(size)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return left, top, left + side, top + side


def _rgb(image):
    from PIL import Image

    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed white")
    if image.mode.startswith("I"):  # 16 bits a pixel, which PIL would clip to 255
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
