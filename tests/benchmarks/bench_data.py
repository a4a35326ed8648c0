"""Speed of the data: drawing, reopening, unpacking and decoding, each beside the plain way of doing the same."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import torch
from PIL import Image, ImageDraw

from vaestudy import data
from vaestudy.data import dsprites
from vaestudy.data.decode import Recipe, decode_all, list_images
from vaestudy.data.imageset import ImageSet

TENTH = dsprites.COUNT // 10


def rows() -> list[dict]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [*draw_and_reopen(folder), unpack(folder), decode(folder)]


def draw_and_reopen(folder: Path) -> list[dict]:
    drawing = seconds(lambda: data.load("dsprites", data_dir=folder))
    polygons = [dsprites.sprite(shape, 5, turn) + 32 for shape in range(3) for turn in range(40)]
    plain = min(seconds(lambda: [pil_polygon(polygon) for polygon in polygons]) for _ in range(5))
    reopening = min(seconds(lambda: data.load("dsprites", data_dir=folder)) for _ in range(5))
    pixels = np.unpackbits(data.load("dsprites", data_dir=folder).storage[:TENTH].numpy(), axis=1)
    np.savez_compressed(folder / "tenth.npz", imgs=pixels.reshape(-1, 64, 64))
    unzipping = 10 * seconds(lambda: np.load(folder / "tenth.npz")["imgs"])
    return [
        row(
            "dSprites drawn, checked and written, one process",
            dsprites.COUNT / drawing,
            "images/s",
            "PIL's polygon fill, image by image (in memory, other edge rules)",
            len(polygons) / plain,
        ),
        row("dSprites reopened", reopening, "s", "unzipping an .npz of the pixels (10 x a tenth)", unzipping),
    ]


def unpack(folder: Path) -> dict:
    images = data.load("dsprites", data_dir=folder)
    packed = ImageSet("packed", images.shape, images.storage[:TENTH].clone(), levels=1, packed=True)
    pixels = torch.from_numpy(np.unpackbits(packed.storage.numpy(), axis=1)).reshape(-1, 1, 64, 64)
    batches = [torch.randint(0, TENTH, (128,), generator=torch.Generator().manual_seed(k)) for k in range(200)]
    ours, plain = [], []
    for _ in range(5):
        ours.append(seconds(lambda: [packed.batch(batch) for batch in batches]))
        plain.append(seconds(lambda: [pixels[batch].float() / 1 for batch in batches]))
    count = 128 * len(batches)
    return row(
        "batches of 128 unpacked from bits",
        count / min(ours),
        "images/s",
        "indexing uint8 pixels (8 x the memory) and dividing",
        count / min(plain),
    )


def decode(folder: Path, different: int = 500, count: int = 20_000) -> dict:
    photos, workers = folder / "photos", joblib.cpu_count()
    photos.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        if number < different:
            small = Image.fromarray(rng.integers(0, 256, (20, 16, 3), dtype=np.uint8))
            small.resize((178, 218), Image.Resampling.BICUBIC).save(photos / f"{number}.jpg", quality=95)
        else:
            os.link(photos / f"{number % different}.jpg", photos / f"{number}.jpg")
    files, crop = list_images(photos), (15, 40, 163, 188)

    def plain() -> None:
        for name in files[: count // 5]:
            with Image.open(photos / name) as image:
                np.asarray(image.convert("RGB").crop(crop).resize((64, 64), Image.Resampling.BILINEAR))

    alone = seconds(plain)
    ours = seconds(lambda: decode_all("bench", photos, files, Recipe(64, crop), folder))
    return row(
        f"{count:,} JPEGs of 178x218 decoded and kept by {workers} processes, their start included",
        count / ours,
        "images/s",
        "a plain PIL loop that keeps nothing",
        count / 5 / alone,
    )


def pil_polygon(polygon: np.ndarray) -> np.ndarray:
    image = Image.new("1", (64, 64))
    ImageDraw.Draw(image).polygon([tuple(point) for point in polygon], fill=1)
    return np.asarray(image)


def seconds(work: Callable) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def row(name: str, value: float, unit: str, peer: str, peer_value: float) -> dict:
    ratio = peer_value / value if unit == "s" else value / peer_value
    return {"name": name, "value": value, "unit": unit, "peer": peer, "peer_value": peer_value, "ratio": ratio}


if __name__ == "__main__":
    for line in rows():
        print("{name}: {value:,.4g} {unit}; {peer}: {peer_value:,.4g}; ratio {ratio:.3g}".format(**line))
