"""Files that are missing, damaged, swapped or set as a trap: one line each, and nothing changed."""

import gzip
import io
import struct

import numpy as np
import pytest
from own_images import idx_file as idx
from PIL import Image

from vaestudy import data
from vaestudy.data import cache
from vaestudy.errors import InputError

HTML = b"<!DOCTYPE html><html><body>503: this file has moved</body></html>"
PIXELS = np.zeros((4, 28, 28), np.uint8)


def mnist(**changed):
    """Four images and labels as MNIST has them, with some files' bytes changed or (None) taken away."""
    files = {"train-images-idx3-ubyte": idx(PIXELS), "train-labels-idx1-ubyte": idx(np.zeros(4, np.uint8))}
    files |= {name.replace("_", "-").replace("-gz", ".gz"): content for name, content in changed.items()}
    return {f"MNIST/raw/{name}": content for name, content in files.items() if content is not None}


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def picture(side=200):
    file = io.BytesIO()
    Image.new("RGB", (side, side), "grey").save(file, "png")
    return file.getvalue()


def faces(**changed):
    """Three images and the two lists of CelebA, with some files changed or taken away."""
    names = [f"{number:06d}.jpg" for number in (1, 2, 3)]
    files = {f"img_align_celeba/{name}": picture(220) for name in names}
    files["list_eval_partition.txt"] = "".join(f"{name} 0\n" for name in names).encode()
    files["list_attr_celeba.txt"] = ("3\nMale Young\n" + "".join(f"{name} 1 -1\n" for name in names)).encode()
    files |= {f"{name}.txt" if name.startswith("list") else name: content for name, content in changed.items()}
    return {f"celeba/{name}": content for name, content in files.items() if content is not None}


CASES = {
    "mnist: a page": ("mnist", mnist(train_images_idx3_ubyte=HTML), "train-images-idx3-ubyte is no whole"),
    "mnist: cut": ("mnist", mnist(train_images_idx3_ubyte=idx(PIXELS)[:-1]), "is no whole IDX file"),
    "mnist: too long": ("mnist", mnist(train_images_idx3_ubyte=idx(PIXELS) + b"\0"), "is no whole IDX file"),
    "mnist: other images": ("mnist", mnist(train_images_idx3_ubyte=idx(PIXELS[:, 1:])), "pixels and 4 labels"),
    "mnist: fewer labels": ("mnist", mnist(train_labels_idx1_ubyte=idx(np.zeros(3, np.uint8))), "and 3 labels"),
    "mnist: a promise of much": (
        "mnist",
        mnist(train_images_idx3_ubyte=struct.pack(">4I", 0x803, *[2**32 - 1] * 3)),
        "is no whole IDX file",
    ),
    "mnist: gzip cut": (
        "mnist",
        mnist(train_labels_idx1_ubyte=None, train_labels_idx1_ubyte_gz=gzip.compress(idx(np.arange(9)))[:-9]),
        "cannot read mnist",
    ),
    "mnist: a bomb": (
        "mnist",
        mnist(train_labels_idx1_ubyte=None, train_labels_idx1_ubyte_gz=gzip.compress(idx(np.zeros(10**8, np.uint8)))),
        "is no whole IDX file",
    ),
    "cifar10: a page": ("cifar10", {"cifar-10-python.tar.gz": HTML}, "is not the published file"),
    "cifar10: a pickle that runs": (
        "cifar10",
        {"cifar-10-batches-py/data_batch_1": b"cpytest\nfail\n(S'a pickle was opened'\ntR."},
        "cannot read cifar10",
    ),
    "dsprites: a page": (
        "dsprites",
        {"dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz": HTML},
        "is damaged or not the published file",
    ),
    "mpi3d: another array": (
        "mpi3d_toy",
        {"mpi3d_toy.npz": npz(pictures=np.zeros((3, 64, 64, 3), np.uint8))},
        "is damaged",
    ),
    "mpi3d: numbers": ("mpi3d_toy", {"mpi3d_toy.npz": npz(images=np.zeros((3, 64, 64, 3)))}, "float64"),
    "mpi3d: a pickle": ("mpi3d_toy", {"mpi3d_toy.npz": npz(images=np.array([{}], dtype=object))}, "holds images"),
    "celeba: no list": ("celeba", faces(list_eval_partition=None), "lacks list_eval_partition.txt"),
    "celeba: a page for a list": ("celeba", faces(list_eval_partition=HTML), "list_eval_partition.txt"),
    "celeba: binary list": ("celeba", faces(list_attr_celeba=b"\x00\xff\xfe" * 9), "list_attr_celeba.txt"),
    "celeba_hq: nothing": ("celeba_hq", {}, "there is no .*celeba_hq"),
    "celeba_hq: no images": ("celeba_hq", {"celeba_hq/readme.txt": HTML}, "holds no images"),
    "folder: texts named .jpg": ("folder", {"a.jpg": HTML, "b.jpg": b"text"}, "none of the 2 images"),
    "folder: a page for labels": ("folder", {"a.png": picture(), "labels.csv": HTML}, "labels.csv"),
}
reserved = cache.reserved


def small_only(path, shape):
    """Room for a whole published set, up to 12 GB, may not be taken for a file that turns out to be none."""
    assert np.prod(shape) < 1e6, f"room for {shape} was taken"
    return reserved(path, shape)


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_used_is_one_clear_line_and_stays_as_it_is(case, tmp_path, monkeypatch):
    name, files, words = CASES[case]
    root = tmp_path / "data"
    root.mkdir()
    monkeypatch.setenv("VAESTUDY_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "reserved", small_only)
    (tmp_path / "cache").mkdir()
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        data.load(name, data_dir=root)
    assert "\n" not in str(caught.value)
    assert {path: (root / path).read_bytes() for path in files} == files
    kept = [path for folder in (root, tmp_path / "cache") for path in folder.rglob("*.npy")]
    assert not kept
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "data"]
