import sys

import numpy as np
import pytest

from vaestudy import data
from vaestudy.data import grids
from vaestudy.data.registry import REGISTRY, replace
from vaestudy.errors import InputError

FACTORS = {"hue": 2, "scale": 3, "turn": 5}
SIZES = tuple(FACTORS.values())


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The published sets in the layouts that they have, with few factor values, and read in pieces of 8 images."""
    monkeypatch.setattr(grids, "PIECE", 8)
    for name in ("shapes3d", "mpi3d_toy"):
        loader = REGISTRY[name].loader
        shrunk = type(loader)(loader.func, **{**loader.keywords, "factors": FACTORS})
        monkeypatch.setitem(REGISTRY, name, replace(REGISTRY[name], loader=shrunk))


def write_h5(path, pixels, labels=None):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file["images"] = pixels
        values = np.stack(np.unravel_index(np.arange(30), SIZES), axis=1) * np.array([0.1, 0.5, 15.0]) - 3
        file["labels"] = values if labels is None else labels


def write_npz(path, pixels):
    np.savez(path, images=pixels, never=np.array({"a": "pickle"}, dtype=object))


WRITERS = {"shapes3d": ("3dshapes.h5", write_h5), "mpi3d_toy": ("mpi3d_toy.npz", write_npz)}
BOTH = pytest.mark.parametrize("name", WRITERS)


@BOTH
@pytest.mark.parametrize("side", [64, 8])
def test_images_come_in_order_at_the_side_asked_for(tmp_path, pixels, name, side):
    file, write = WRITERS[name]
    write(tmp_path / file, pixels)
    images = data.load(name, image_size=side, data_dir=tmp_path)
    assert (len(images), images.shape, images.factors.is_grid) == (30, (3, side, side), True)
    assert images.factors.names == tuple(FACTORS)
    block = 64 // side
    for row in (0, 7, 8, 29):
        means = pixels[row].astype(float).reshape(side, block, side, block, 3).mean(axis=(1, 3))
        np.testing.assert_array_equal(images.storage[row], np.rint(means).transpose(2, 0, 1))
    assert images.factors.values([29]).tolist() == [[1, 2, 4]]


@BOTH
def test_it_is_read_once_and_anew_when_the_file_changes(tmp_path, pixels, name, monkeypatch):
    file, write = WRITERS[name]
    write(tmp_path / file, pixels)
    first = data.load(name, image_size=16, data_dir=tmp_path)
    with monkeypatch.context() as closed:
        closed.setattr(grids, "block_means", lambda *_: pytest.fail("read again"))
        assert data.load(name, image_size=16, data_dir=tmp_path).describe() == first.describe()
    write(tmp_path / file, 255 - pixels)
    assert data.load(name, image_size=16, data_dir=tmp_path).checksum != first.checksum


@BOTH
def test_files_that_are_missing_damaged_or_others_are_one_line(tmp_path, pixels, name):
    file, write = WRITERS[name]
    with pytest.raises(InputError, match=rf"there is no .*{file}: put {file} from https://github.com"):
        data.load(name, data_dir=tmp_path)
    write(tmp_path / file, pixels[:29])
    with pytest.raises(InputError, match=r"holds images \(29, 64, 64, 3\) of uint8, not"):
        data.load(name, data_dir=tmp_path)
    write(tmp_path / file, pixels)
    whole = (tmp_path / file).read_bytes()
    for damage in (b"<html>quota exceeded</html>", b"", whole[: len(whole) // 2]):
        (tmp_path / file).write_bytes(damage)
        with pytest.raises(InputError, match=rf"{file} is damaged .*put {file}") as caught:
            data.load(name, data_dir=tmp_path)
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*.npy"))


def test_labels_in_another_order_are_refused(tmp_path, pixels):
    shuffled = np.random.default_rng(1).permutation(np.stack(np.unravel_index(np.arange(30), SIZES), axis=1))
    write_h5(tmp_path / "3dshapes.h5", pixels, shuffled)
    with pytest.raises(InputError, match="not in the published order"):
        data.load("shapes3d", data_dir=tmp_path)


def test_columns_before_rows_are_refused(tmp_path, pixels):
    write_npz(tmp_path / "mpi3d_toy.npz", np.asfortranarray(pixels))
    with pytest.raises(InputError, match="another order of the axes"):
        data.load("mpi3d_toy", data_dir=tmp_path)


def test_hdf5_files_need_h5py(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)  # which then cannot be imported
    (tmp_path / "3dshapes.h5").write_bytes(b"\x89HDF")
    with pytest.raises(InputError, match=r"pip install 'vaestudy\[hdf5\]'"):
        data.load("shapes3d", data_dir=tmp_path)
