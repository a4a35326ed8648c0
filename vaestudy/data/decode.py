"""Photographs decoded once, by several processes, into one array of bytes."""

import hashlib
import json
import logging
import os
import stat
import struct
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import joblib
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from vaestudy.data.cache import cache_path, cached_array
from vaestudy.errors import InputError
from vaestudy.files import digest_of, replacing

logger = logging.getLogger(__name__)

Held = tuple[int, Callable[[int], Iterable[bytes]]]  # how many photographs some files hold, and their bytes from one on

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")  # none that runs a program
SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff"}
SUFFIXES |= {".ppm", ".pgm", ".pbm", ".pnm", ".jp2"}
# Images that need a converter: they are named and left out, also where PIL would take a thumbnail for the whole.
FOREIGN = {".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".dcm", ".exr", ".jxl"}
LISTED = SUFFIXES | FOREIGN
# What PIL's readers raise for bytes that are damaged.
DAMAGE = (OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, struct.error, zlib.error)
DAMAGE += (Image.DecompressionBombError, ImageCms.PyCMSError)
POOL_PAYS = 30e6  # bytes of files below which starting processes takes longer than decoding
SETTLED = 2e9  # ns after which a change must show in a file's times, whatever their resolution


@dataclass(frozen=True)
class Recipe:
    """How a photograph becomes an array: cut to `crop` (left, top, right, bottom) or to its middle square, then
    resized to `side` pixels by PIL's bilinear filter, in RGB. `version` changes whenever the pixels do."""

    side: int
    crop: tuple[int, int, int, int] | None = None
    version: int = 2


def processes(paths: Iterable[Path]) -> int:
    """How many processes should decode these files: no more than this one's affinity and its container allow cores."""
    return 1 if sum(size_and_change(path)[0] for path in paths) < POOL_PAYS else joblib.cpu_count()


def list_images(folder: Path) -> list[str]:
    """Relative names (with /) of the image files at any depth, sorted; links are followed, but no folder twice.

    InputError for a folder that is missing, unreadable or has no image.
    """
    entered, found, barred = set(), [], []
    for path, folders, names in os.walk(str(folder), followlinks=True, onerror=barred.append):
        about = os.stat(path)
        if (about.st_dev, about.st_ino) in entered:
            folders.clear()
            continue
        entered.add((about.st_dev, about.st_ino))
        # Links come last: whether there are any does not change the names of what is reached without them.
        inner = ((os.path.islink(os.path.join(path, name)), name) for name in folders if name[0] != ".")
        folders[:] = [name for _, name in sorted(inner)]
        prefix = "" if path == str(folder) else f"{Path(os.path.relpath(path, folder)).as_posix()}/"
        images = (name for name in names if name[0] != "." and os.path.splitext(name)[1].lower() in LISTED)
        found += [prefix + name for name in images]
    if barred:
        raise InputError(f"cannot read the images in {folder}: {barred[0].strerror} ({barred[0].filename})")
    if not found:
        raise InputError(f"{folder} holds no images ({' '.join(sorted(SUFFIXES))})")
    return sorted(found)


def content_digest(folder: Path, names: list[str], cache_dir: Path) -> str:
    """A hash of the files' names and bytes, remembered in `cache_dir` by their folder, names, sizes and times.

    What changed a moment ago is not remembered: another change might leave the same times.
    """
    started, stamps = time.time_ns(), [size_and_change(folder / name) for name in names]
    place = json.dumps([os.path.realpath(folder), names, stamps]).encode()
    known = cache_path(cache_dir, f".content-{hashlib.sha256(place).hexdigest()[:24]}")
    if known.exists():
        return known.read_text()
    whole = hashlib.sha256()
    try:
        for name in names:
            whole.update(os.fsencode(name) + b"\0")
            if (path := folder / name).is_file():
                whole.update(bytes.fromhex(digest_of(path, "sha256")))
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from error
    if started - max(change for _, change in stamps) > SETTLED:
        with replacing(known) as file:
            file.write_text(whole.hexdigest())
    return whole.hexdigest()


def size_and_change(path: Path) -> tuple[int, int]:
    """Bytes of a file, -1 of what is none, and the time (ns) of its last change, 0 of what is not there."""
    try:
        about = os.stat(path)
    except OSError:
        return -1, 0
    # The change of the inode counts, too: a copy or an archive brings old times along.
    return (about.st_size if stat.S_ISREG(about.st_mode) else -1), max(about.st_mtime_ns, about.st_ctime_ns)


def decode_all(
    name: str, folder: Path, files: list[str], recipe: Recipe, cache_dir: Path, held: Held | None = None
) -> tuple[UInt8[Tensor, "n 3 side side"], dict]:
    """Some files of a folder, or the photographs `held` by them, with "checksum" and "unreadable" (rows left black).

    They are decoded by several processes where that pays, and kept in `cache_dir` under a name of the files' content
    and the recipe. A call that was stopped goes on where it was. InputError where a file cannot be opened, none can
    be decoded, or the cache cannot be written.
    """
    paths = [folder / file for file in files]
    count, photographs = held or (len(paths), lambda start: paths[start:])

    def pieces(start: int) -> Iterator[np.ndarray | None]:
        # loky's processes import neither a script without a main guard nor hold the locks of this one's threads.
        pool = joblib.Parallel(processes(paths), return_as="generator", backend="loky", idle_worker_timeout=10)
        for image in pool(joblib.delayed(decode)(photograph, recipe) for photograph in photographs(start)):
            yield None if image is None else image[None]

    content = content_digest(folder, files, cache_dir)
    identity = hashlib.sha256(json.dumps([asdict(recipe), content]).encode()).hexdigest()[:16]
    path = cache_path(cache_dir, f"{name}-{recipe.side}-{identity}.npy")
    shape = (count, 3, recipe.side, recipe.side)
    source = str(folder).encode("utf-8", "backslashreplace").decode()  # names may be no text
    try:
        storage, details = cached_array(path, shape, pieces, source=source, **asdict(recipe))
    except BrokenProcessPool as error:
        raise InputError("a decoding process died (out of memory?); the same call goes on where it was") from error
    if held is None and (bad := details["unreadable"]):
        names = ", ".join(files[row] for row in bad[:5]) + (", ..." if len(bad) > 5 else "")
        logger.warning("%s: skipped %d of %d images that cannot be decoded: %s", folder, len(bad), count, names)
    return storage, details


def decode(source: Path | bytes, recipe: Recipe) -> UInt8[np.ndarray, "3 side side"] | None:
    """One photograph, a path or a file's bytes, as a viewer shows it; None where those are no whole image.

    InputError for a file that cannot be read at all.
    """
    if isinstance(source, Path) and (not source.is_file() or source.suffix.lower() in FOREIGN):
        return None
    file = source if isinstance(source, Path) else BytesIO(source)
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=FORMATS) as image:
            if recipe.crop is None:
                # JPEG can skip detail while decoding; what is left is still twice what the filter needs.
                scale = 2 * recipe.side / min(image.size)
                image.draft(None, tuple(int(scale * length) + 1 for length in image.size))
            image.load()
            tags = getattr(image, "tag_v2", {})
            with suppress(*DAMAGE):  # a damaged note about the image is no damage to the image
                image = ImageOps.exif_transpose(image)
            image = _rgb(image, tags)
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        box = recipe.crop or (left, top, left + side, top + side)
        if box[2] > width or box[3] > height:
            raise ValueError(f"{image.size} is smaller than the crop")
        small = image.crop(box).resize((recipe.side, recipe.side), Image.Resampling.BILINEAR)
        return np.asarray(small).transpose(2, 0, 1)
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's trouble, not the image's
            raise InputError(f"cannot read {source}: {error.strerror}") from error
        return None


def _rgb(image, tags):
    """Eight bits of red, green and blue: what is transparent on white, wide pixels from their black to their white.

    `tags` are those of a TIFF: bits per sample (258), and whether 0 is white (262).
    """
    if image.mode[0] in "IF":
        white = 4095 if tags.get(258) == (12,) else 65535
        wide = np.asarray(image).astype(np.int64)
        if image.mode == "F" or wide.min() < 0 or wide.max() > white:
            raise ValueError("pixels of 32 bits have no agreed white")
        wide = white - wide if tags.get(262) == 0 else wide
        return Image.fromarray((wide * 255 / white).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if profile := image.info.get("icc_profile"):
        with suppress(*DAMAGE):  # nor is a damaged profile
            profile = ImageCms.ImageCmsProfile(BytesIO(profile))
            if "sRGB" not in ImageCms.getProfileDescription(profile):
                image = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return image.convert("RGB")
