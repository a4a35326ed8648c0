"""Small data sets in the layouts that people have them in, and the files that they are made of."""

import gzip
import hashlib
import pickle
import struct

import numpy as np
from PIL import Image
from torchvision import datasets

from vaestudy.data import celeba as published


def gradient(width, height, seed=0):
    """A smooth picture, different for each seed, that survives JPEG."""
    corners = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), dtype=np.uint8)
    return Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR)


def idx_file(array):
    """An IDX file: big-endian magic number with the number of axes, the sizes, the bytes."""
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def drawn(count, side, channels=3, seed=0):
    """Blobs (count, side, side, channels) in bytes, and what was drawn: (count, 3) of place, size and colour."""
    rng = np.random.default_rng(seed)
    factors = np.stack([rng.integers(5, size=count), rng.integers(3, size=count), rng.integers(4, size=count)], axis=1)
    y, x = np.mgrid[:side, :side] / side
    place, size, colour = factors.T[:, :, None, None]
    near = (x - 0.2 - 0.15 * place) ** 2 + (y - 0.5) ** 2
    blob = np.exp(-near / (0.01 + 0.02 * size))[..., None]
    shade = np.stack([0.3 + 0.2 * colour, 1 - 0.2 * colour, 0.5 + 0 * colour], axis=-1)[..., :channels]
    return (255 * blob * shade).astype(np.uint8), factors


def folder(root, count=300, labels=(), side=24):
    """Pictures in files, beside them a labels.csv with some of the columns place, size, colour, length."""
    root.mkdir(parents=True, exist_ok=True)
    pixels, factors = drawn(count, side)
    names = [f"own {number}.png" for number in range(count)]
    for name, picture in zip(names, pixels, strict=True):
        Image.fromarray(picture).save(root / name)
    columns = dict(zip(("place", "size", "colour"), factors.T.astype(str), strict=True))
    columns["length"] = (factors[:, 0] + np.random.default_rng(1).random(count)).astype("U6")
    if labels:
        lines = [",".join([name, *(columns[label][row] for label in labels)]) for row, name in enumerate(names)]
        (root / "labels.csv").write_text("\n".join([",".join(["file", *labels]), *lines]) + "\n")
    return root


def digits(count):
    """Pixels (count, 28, 28) and classes, made of the place of a blob and its size."""
    pixels, factors = drawn(count, 28, 1, seed=count)
    return pixels[..., 0], (factors[:, 0] + 5 * (factors[:, 1] > 0)).astype(np.uint8)


def idx(root, kind, train=300, test=120, pack=False):
    """MNIST's or Fashion-MNIST's four files, as .gz if they are to be packed."""
    raw = root / kind / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", train), ("t10k", test)):
        for name, array in zip(("images-idx3", "labels-idx1"), digits(count), strict=True):
            path, content = raw / f"{part}-{name}-ubyte", idx_file(array)
            if pack:
                path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content, mtime=0))
            else:
                path.write_bytes(content)
    return root


def cifar10(root, patch, train=300, test=120):
    """CIFAR-10's batches, whose digests take the place of the published ones."""
    batches = root / datasets.CIFAR10.base_folder
    batches.mkdir(parents=True)
    entries = {}
    for part, count in (("data_batch_1", train), ("test_batch", test)):
        pixels, factors = drawn(count, 32, seed=count)
        content = {"data": pixels.transpose(0, 3, 1, 2).reshape(count, -1), "labels": factors[:, 0].tolist()}
        packed = pickle.dumps(content)
        (batches / part).write_bytes(packed)
        entries[part] = [part, hashlib.md5(packed).hexdigest()]
    patch.setattr(datasets.CIFAR10, "train_list", [entries["data_batch_1"]])
    patch.setattr(datasets.CIFAR10, "test_list", [entries["test_batch"]])
    packed = pickle.dumps({"label_names": list("abcdefghij")})
    (batches / "batches.meta").write_bytes(packed)
    about = {"filename": "batches.meta", "key": "label_names", "md5": hashlib.md5(packed).hexdigest()}
    patch.setattr(datasets.CIFAR10, "meta", about)
    return root


def celeba(root, count=500):
    """CelebA as it is published: aligned faces and two lists, the splits and 40 attributes."""
    (root / "celeba" / published.IMAGES).mkdir(parents=True)
    pixels, factors = drawn(count, 218)
    names = [f"{number:06d}.jpg" for number in range(1, count + 1)]
    for name, picture in zip(names, pixels, strict=True):
        Image.fromarray(picture[:, 20:198]).save(root / "celeba" / published.IMAGES / name)
    split = np.digitize(np.arange(count), [count * 6 // 10, count * 8 // 10])
    lines = [f"{name} {part}\n" for name, part in zip(names, split, strict=True)]
    (root / "celeba" / f"{published.PARTITION}.txt").write_text("".join(lines))
    marks = np.random.default_rng(2).integers(2, size=(count, 40)) * 2 - 1
    marks[:, 0], marks[:, 1] = 2 * (factors[:, 0] > 2) - 1, 2 * (factors[:, 1] > 1) - 1
    rows = [f"{name} " + " ".join(map(str, row)) for name, row in zip(names, marks, strict=True)]
    text = "\n".join([str(count), " ".join(published.NAMES), *rows]) + "\n"
    (root / "celeba" / f"{published.ATTRIBUTES}.txt").write_text(text)
    return root


def celeba_hq(root, count=300):
    """Faces in a folder, as the archives of CelebA-HQ have them."""
    folder(root / "celeba_hq", count, side=48)
    return root
