import numpy as np
import pytest
import torch

from vaestudy.data import Factors, ImageSet
from vaestudy.errors import InputError


@pytest.fixture
def pictures():
    """24 images of 3x4x5 bytes over a factor grid of 2 x 3 x 4."""
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (24, 3, 4, 5), dtype=np.uint8))
    return ImageSet("toy", (3, 4, 5), pixels, factors_of_rows=Factors(["a", "b", "c"], [2, 3, 4]))


def test_it_says_what_it_holds_in_a_line(pictures):
    said = "ImageSet(toy: 24 images (3, 4, 5) on cpu, Factors(a: 2, b: 3, c: 4))"
    assert repr(pictures) == said


def test_batches_are_floats_between_0_and_1(pictures):
    batch = pictures.batch([3, 1])
    assert batch.dtype == torch.float32
    np.testing.assert_array_equal(batch, pictures.storage[[3, 1]].numpy().astype(np.float32) / np.float32(255))


def test_packed_bits_come_back_in_order():
    pixels = np.random.default_rng(1).integers(0, 2, (9, 1, 8, 8), dtype=np.uint8)
    packed = torch.from_numpy(np.packbits(pixels.reshape(9, 64), axis=1))
    images = ImageSet("bits", (1, 8, 8), packed, levels=1, packed=True)
    np.testing.assert_array_equal(images.batch(slice(None)), pixels)
    np.testing.assert_array_equal(images.batch(slice(2, 9, 3)), pixels[2:9:3])


def test_numbers_below_zero_count_from_the_end_and_those_beyond_it_are_refused(pictures):
    assert (pictures.batch([-1, -24]) == pictures.batch([23, 0])).all()
    few = pictures.select([4, 7, 20])
    assert (few.batch([-1]) == pictures.batch([20])).all()
    for beyond in ([24], [-25]):
        with pytest.raises(IndexError):
            pictures.batch(beyond)


def test_quantized_sets_keep_the_highest_bits(pictures):
    batch = pictures.quantized(5).batch(slice(None))
    np.testing.assert_array_equal((batch * 31).round(), pictures.storage // 8)
    assert batch.max() <= 1
    assert pictures.quantized(5).describe() != pictures.describe()
    with pytest.raises(InputError, match="1 to 8"):
        pictures.quantized(9)


def test_selecting_by_numbers_mask_or_twice_is_the_same(pictures):
    mask = torch.zeros(24, dtype=torch.bool)
    mask[[4, 7, 20]] = True
    for subset in (
        pictures.select([4, 7, 20]),
        pictures.select(mask),
        pictures.select([0, 4, 7, 20]).select([1, 2, 3]),
    ):
        assert len(subset) == 3
        assert (subset.batch(slice(None)) == pictures.batch([4, 7, 20])).all()
        assert subset.factors.values([0, 1, 2]).tolist() == [[0, 1, 0], [0, 1, 3], [1, 2, 0]]
        assert (subset.compact().batch([2]) == pictures.batch([20])).all()
        assert subset.compact().factors.values([2]).tolist() == [[1, 2, 0]]
    with pytest.raises(InputError, match="mask of 3"):
        pictures.select(mask[:3])


def test_factor_tables_and_grids_agree():
    grid = Factors(["a", "b"], [2, 3])
    table = Factors(["a", "b"], [2, 3], np.array([[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]], dtype=np.uint8))
    np.testing.assert_array_equal(grid.values(slice(None)), table.values(slice(None)))
    assert grid.index(np.array([[1, 1], [0, 2]])).tolist() == [4, 2]
    with pytest.raises(InputError, match="full factor grid"):
        table.index(np.array([[1, 1]]))
    with pytest.raises(InputError, match="do not fit"):
        Factors(["a"], [2, 3])


def test_holding_out_needs_factors_that_exist(pictures):
    rest, held = pictures.hold_out(a=[1], c=(c for c in (0, 3)))
    assert (len(rest), len(held)) == (18, 6)
    assert held.note == {"region": {"a": [1], "c": [0, 3]}}
    with pytest.raises(InputError, match="no factor"):
        pictures.hold_out()
    with pytest.raises(InputError, match="hue: the factors of toy are a, b, c"):
        pictures.hold_out(hue=[0])


def test_a_grid_is_thinned_to_a_grid_within_a_limit_and_other_sets_are_left_alone(pictures):
    assert pictures.subsample(24) is pictures
    assert pictures.subsample(12).factors.sizes == (2, 3, 2)
    sparse = pictures.subsample(11)
    assert sparse.factors.sizes == (2, 2, 2)
    assert sparse.factors.is_grid
    assert sparse.note == {"every": [1, 2, 2]}
    assert (sparse.batch(sparse.factors.index(np.array([[1, 1, 1]]))) == pictures.batch([12 + 8 + 2])).all()
    for other in (pictures.select([1, 2, 3]), ImageSet("none", (3, 4, 5), pictures.storage)):
        assert other.subsample(1) is other


def test_dividing_gives_two_parts_that_share_nothing_and_stay_the_same(pictures):
    train, test = pictures.train_test_split(7)
    again, _ = pictures.train_test_split(7)
    assert (len(train), len(test)) == (17, 7)
    assert sorted([*train.rows.tolist(), *test.rows.tolist()]) == list(range(24))
    assert torch.equal(train.rows, again.rows)
    assert train.describe() != test.describe()
    for wrong in (0, 24):
        with pytest.raises(InputError, match="cannot be held out"):
            pictures.train_test_split(wrong)


def test_moving_a_subset_keeps_its_images(pictures):
    subset = pictures.select([5, 6])
    assert (subset.to("cpu").batch([0, 1]) == pictures.batch([5, 6])).all()
    assert subset.to("meta").storage.shape == (2, 3, 4, 5)  # only its own rows travel to another device
