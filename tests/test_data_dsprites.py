import hashlib
import json

import numpy as np
import pytest

from vaestudy import data
from vaestudy.data import dsprites
from vaestudy.data.dsprites import CORRECTIONS, SIZES
from vaestudy.errors import InputError


@pytest.fixture(scope="module")
def images(dsprites_dir):
    return data.load("dsprites", data_dir=dsprites_dir)


@pytest.fixture(scope="module")
def drawn(dsprites_dir):
    """Packed bits as the geometry alone gives them, without the corrections."""
    bits = data.load("dsprites", data_dir=dsprites_dir).storage.numpy()
    for values, (row, column), _ in CORRECTIONS:
        bits[np.ravel_multi_index(values, SIZES), row * 8 + column // 8] ^= 128 >> column % 8
    return bits


def test_whole_set_has_the_known_digest_and_totals(drawn):
    assert hashlib.sha256(drawn).hexdigest() == "3a228f4037ef3d42a42588e0e01f1078aa2df13cfa17584e88c95ed9fb5672da"
    white = [int(np.bitwise_count(part).sum(dtype=np.int64)) for part in np.split(drawn, 3)]
    assert white == [53_612_886, 42_070_950, 32_645_028]


def test_mean_agrees_with_the_published_one(images):
    white = int(np.bitwise_count(images.storage.numpy()).sum(dtype=np.int64))
    assert white == 128_328_864 - sum(1 if value == 0 else -1 for *_, value in CORRECTIONS)
    assert white / (len(images) * 4096) == pytest.approx(0.042494423521889584, rel=1e-7)


def fingerprints(bits):
    """64 bits for each picture; two different pictures could only make the count below too small."""
    keys = np.random.default_rng(0).integers(0, 2**64, 64, dtype=np.uint64) | np.uint64(1)
    words = bits.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ words >> np.uint64(32)) * keys
    return (words ^ words >> np.uint64(32)).sum(axis=1)


def test_repeated_pictures_are_those_of_the_full_turn_and_few_more(drawn):
    hashes = np.concatenate([fingerprints(part) for part in np.split(drawn, 30)]).reshape(SIZES)
    np.testing.assert_array_equal(hashes[:, :, 39], hashes[:, :, 0])
    assert len(np.unique(hashes)) == 715_706
    repeats = [part[:, :39].size - len(np.unique(part[:, :39])) for part in hashes]
    assert repeats == [2_620, 522, 0]


def test_corrections_are_in_place_and_the_checksum_is_of_the_bytes(images, dsprites_dir):
    for values, (row, column), value in CORRECTIONS:
        picture = images.batch(images.factors.index(np.array([values])))[0, 0]
        assert picture[row, column] == value
    assert images.checksum == hashlib.sha256(images.storage.numpy()).hexdigest()
    assert "9 pixels corrected" in json.loads((dsprites_dir / "dsprites-64.json").read_text())["source"]


def test_factors_are_a_row_major_grid(images):
    factors = images.factors
    assert (factors.names, factors.sizes) == (("shape", "scale", "orientation", "x", "y"), (3, 6, 40, 32, 32))
    assert factors.values([((1 * 6 + 2) * 40 + 3) * 1024 + 4 * 32 + 5]).tolist() == [[1, 2, 3, 4, 5]]
    assert len(images) == len(factors) == 737_280


def test_position_and_scale_mean_what_they_say(images):
    where = images.factors.index(np.array([[0, 5, 0, 31, 0], [0, 0, 0, 0, 31]]))
    big, small = images.batch(where)[:, 0]
    # Squares of side 19.2 about (48, 16) and 9.6 about (16, 48): centres from 38.5 to 57.5 and 11.5 to 20.5.
    assert big.sum() == 20**2
    assert small.sum() == 10**2
    assert big[16, 48] == 1
    assert small[48, 16] == 1


def inside(polygon, x, y):
    """Even-odd rule for one point, in exact integers; a point on a left or bottom edge counts as inside."""
    odd = False
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if (y0 < y) != (y1 < y):
            odd ^= (x - x0) * abs(y1 - y0) >= (y - y0) * (x1 - x0) * (1 if y1 > y0 else -1)
    return odd


@pytest.mark.parametrize("values", [(0, 2, 7, 3, 30), (1, 5, 11, 17, 9), (2, 0, 29, 31, 12)])
def test_filling_agrees_with_testing_each_pixel(images, values):
    centre = np.array([16 + 32 * values[3] / 31, 16 + 32 * values[4] / 31])
    polygon = [[int(v) for v in point] for point in np.rint(256 * (centre + dsprites.sprite(*values[:3])))]
    expected = [[inside(polygon, 256 * c + 128, 256 * r + 128) for c in range(64)] for r in range(64)]
    picture = images.batch(images.factors.index(np.array([values])))[0, 0]
    np.testing.assert_array_equal(picture.numpy(), np.array(expected, dtype=np.float32))


def test_centres_on_edges_belong_to_left_and_bottom():
    corners = np.array([[-2.5, -2.5], [2.5, -2.5], [2.5, 2.5], [-2.5, 2.5]])
    first = np.unpackbits(dsprites.rasterized(corners)[0]).reshape(64, 64)  # centre 16: edges through 13.5 and 18.5
    assert np.flatnonzero(first.any(axis=0)).tolist() == [13, 14, 15, 16, 17]
    assert np.flatnonzero(first.any(axis=1)).tolist() == [14, 15, 16, 17, 18]


@pytest.mark.parametrize("block", [2, 8])
def test_pooling_counts_the_white_pixels_of_each_block(block):
    bits = np.random.default_rng(0).integers(0, 256, (5, 512), dtype=np.uint8)
    bits[0] = 255
    side = 64 // block
    counts = np.unpackbits(bits, axis=1).reshape(5, side, block, side, block).sum(axis=(2, 4))
    np.testing.assert_array_equal(dsprites.block_counts(bits, block), counts)


def test_small_images_are_means_of_the_large_ones(images, dsprites_dir):
    small = data.load("dsprites", image_size=8, data_dir=dsprites_dir)
    index = np.random.default_rng(0).integers(0, len(images), 50)
    means = images.batch(index).reshape(50, 1, 8, 8, 8, 8).mean(dim=(3, 5))
    assert (small.batch(index) - means).abs().max() < 1e-7
    assert small.shape == (1, 8, 8)
    assert small.checksum != images.checksum


def test_archive_is_read_without_its_pickles(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 2, (7, 64, 64), dtype=np.uint8)
    pickled = np.array({"never": "opened"}, dtype=object)
    np.savez_compressed(tmp_path / "a.npz", metadata=pickled, imgs=pixels, latents_classes=np.zeros((7, 6)))
    md5 = hashlib.md5((tmp_path / "a.npz").read_bytes()).hexdigest()
    monkeypatch.setattr(dsprites, "ARCHIVE_MD5", md5)
    (tmp_path / "a.npz").rename(tmp_path / dsprites.ARCHIVE)
    with pytest.raises(InputError, match="holds images"):
        data.load("dsprites", data_dir=tmp_path)
    monkeypatch.setattr(dsprites, "COUNT", 7)
    monkeypatch.setattr(dsprites, "SIZES", (7, 1, 1, 1, 1))
    found = data.load("dsprites", data_dir=tmp_path)
    np.testing.assert_array_equal(found.batch(slice(None))[:, 0], pixels)
