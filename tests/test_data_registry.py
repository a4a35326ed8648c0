from pathlib import Path

import numpy as np
import pytest
import torch

from vaestudy import data
from vaestudy.data import Factors, ImageSet, photos, registry
from vaestudy.data.registry import REGISTRY, DataSetInfo
from vaestudy.errors import InputError


def test_a_data_set_is_added_by_one_entry(monkeypatch, tmp_path):
    def stripes(side: int, split: str, folder: Path, download: bool) -> ImageSet:
        pixels = torch.zeros(8, 1, side, side, dtype=torch.uint8)
        pixels[4:, :, ::2] = 255
        return ImageSet.from_array(pixels, Factors(["striped", "copy"], [2, 4]), name="stripes")

    entry = DataSetInfo(
        name="stripes",
        loader=stripes,
        image_sizes=(16, 32),
        default_image_size=16,
        channels=1,
        splits={"train": 8},
        labels="grid",
        factors={"striped": 2, "copy": 4},
        how_to_get="drawn here",
    )
    monkeypatch.setattr(registry, "REGISTRY", {**REGISTRY, "stripes": entry})
    assert data.load("stripes", image_size=32, data_dir=tmp_path).shape == (1, 32, 32)
    train, test = data.train_and_test("stripes", 3)
    assert (len(train), len(test)) == (5, 3)
    assert data.about("stripes").factors == {"striped": 2, "copy": 4}
    with pytest.raises(InputError, match="stripes has image_size 16 or 32, not 64"):
        data.load("stripes", image_size=64)
    assert "stripes" not in REGISTRY


def test_the_registry_knows_what_the_sets_turn_out_to_be(tmp_path, dsprites_dir, monkeypatch):
    for counts in (REGISTRY["faces"].splits, REGISTRY["faces_mild"].splits):
        monkeypatch.setitem(counts, "train", 6)
    for name, folder in (("dsprites", dsprites_dir), ("faces", tmp_path), ("faces_mild", tmp_path)):
        info, images = data.about(name), data.load(name, data_dir=folder)
        side = info.default_image_size
        assert images.shape == (info.channels, side, side)
        assert len(images) == info.splits["train"]
        assert dict(zip(images.factors.names, images.factors.sizes, strict=True)) == dict(info.factors)
        assert images.factors.is_grid == (info.labels == "grid")


def test_every_entry_is_whole():
    for name, info in REGISTRY.items():
        assert info.name == name
        assert info.check(None) == info.default_image_size
        assert info.how_to_get
        assert "train" in info.splits
        assert bool(info.factors) == (info.labels not in ("none", "labels.csv"))
    assert len(data.about("celeba").factors) == 40
    assert REGISTRY["mpi3d_real"].splits["train"] == 1_036_800
    assert REGISTRY["shapes3d"].splits["train"] == 480_000


def test_what_cannot_be_loaded_is_refused_before_any_work(monkeypatch):
    for name, info in REGISTRY.items():
        monkeypatch.setitem(REGISTRY, name, registry.replace(info, loader=lambda *_: pytest.fail("loaded")))
        for wrong in ({"image_size": 63}, {"image_size": True}, {"split": "all"}):
            if wrong.get("image_size") != 63 or 63 not in info.image_sizes:
                with pytest.raises(InputError, match=rf"^{name} has "):
                    data.load(name, data_dir="anywhere", **wrong)
    with pytest.raises(InputError, match=r"unknown dataset 'celebb': choose from dsprites, faces, faces_mild, mnist"):
        data.load("celebb")
    with pytest.raises(InputError, match="needs data_dir"):
        data.load("folder")


def test_a_folder_s_labels_are_known_before_its_images_are_read(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.png").write_text("never opened")
    assert data.about("folder").labels == "labels.csv"
    assert data.about("folder", tmp_path).labels == "none"
    (tmp_path / "labels.csv").write_text("file,colour\na.png,red\nb.png,blue\n")
    info = data.about("folder", tmp_path)
    assert (info.labels, info.factors) == ("factors", {"colour": 2})
    assert sum(info.splits.values()) == 2


def test_labels_are_read_once_and_again_after_a_change_in_the_folder(tmp_path):
    """Files at any depth and labels may change."""
    (tmp_path / "inner" / "most").mkdir(parents=True)
    (tmp_path / "a.png").write_text("never opened")
    first = photos.look(tmp_path)
    assert photos.look(tmp_path) is first
    (tmp_path / "inner" / "most" / "b.png").write_text("never opened")
    assert photos.look(tmp_path).files == ["a.png", "inner/most/b.png"]
    (tmp_path / "labels.csv").write_text("file,colour\na.png,red\ninner/most/b.png,blue\n")
    assert data.about("folder", tmp_path).factors == {"colour": 2}
    (tmp_path / "a.png").unlink()
    (tmp_path / "labels.csv").unlink()
    assert data.about("folder", tmp_path).labels == "none"


def test_anyone_s_own_array_becomes_a_set():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8)
    images = ImageSet.from_array(pixels, Factors(["a", "b"], [2, 3]))
    np.testing.assert_array_equal((images.batch(slice(None)) * 255).round(), pixels)
    assert images.factors.values([5]).tolist() == [[1, 2]]
    assert images.checksum != ImageSet.from_array(pixels[::-1]).checksum
    floats = ImageSet.from_array(pixels.astype(np.float64) / 255)
    assert torch.equal(floats.storage, images.storage)
    assert ImageSet.from_array(np.ones((2, 1, 8, 8), dtype=bool)).batch([0]).min() == 1
    kept = ImageSet.from_array(pixels)
    pixels[:] = 0
    assert kept.storage.any()


@pytest.mark.parametrize(
    ("pixels", "factors", "says"),
    [
        (np.zeros((5, 8, 8, 3), np.uint8), None, r"\(5, 8, 8, 3\); channels come second: pixels.transpose"),
        (np.zeros((5, 8, 8), np.uint8), None, r"must be \(n, c, h, w\)"),
        (np.zeros((5, 4, 8, 8), np.uint8), None, "1 or 3 channels"),
        (np.full((5, 1, 8, 8), 255.0), None, r"must lie in \[0, 1\]"),
        (np.full((5, 1, 8, 8), np.nan), None, r"must lie in \[0, 1\]"),
        (np.zeros((5, 1, 8, 8), np.int64), None, "bytes .* or floats"),
        (np.zeros((5, 1, 8, 8), np.uint8), Factors(["a"], [4]), "4 rows of factors do not fit 5 images"),
    ],
)
def test_arrays_that_would_be_scrambled_are_refused(pixels, factors, says):
    with pytest.raises(InputError, match=says):
        ImageSet.from_array(pixels, factors)


def test_a_set_stores_bytes_of_its_shape_and_factors_in_range():
    with pytest.raises(InputError, match=r"torch.uint8 \(n, 1, 8, 8\), not torch.float32"):
        ImageSet("floats", (1, 8, 8), torch.zeros(2, 1, 8, 8))
    with pytest.raises(InputError, match=r"\(n, 3, 8, 8\), not torch.uint8 \(2, 8, 8, 3\)"):
        ImageSet("last", (3, 8, 8), torch.zeros(2, 8, 8, 3, dtype=torch.uint8))
    for table in ([[0], [2]], [[-1], [0]], [[0.5], [0.0]]):
        with pytest.raises(InputError, match="whole numbers from 0"):
            Factors(["a"], [2], np.array(table))
