import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vaestudy import data
from vaestudy.data.faces import render, sampled
from vaestudy.data.faces.rays import Rays
from vaestudy.data.faces.render import COUNTS, FACTORS, NAMES, SIZES, VARIATIONS
from vaestudy.errors import InputError

# A face with its features in sight: frontal, lit from the front, with short hair and a shut mouth.
PLAIN = {"azimuth": 4, "elevation": 2, "light": 3, "skin": 1, "hair_style": 1, "hair_colour": 1, "eyes_open": 3}
BOTH = pytest.mark.parametrize("variation", ["full", "mild"])


def row(**changed):
    return np.array([[{**PLAIN, **changed}.get(name, 0) for name in NAMES]])


def series(name, **changed):
    """The plain face with each value of one factor."""
    return np.concatenate([row(**{**changed, name: value}) for value in range(FACTORS[name])])


def difference(a, b):
    return (a.int() - b.int()).abs().sum(-3)


def centre(weight):
    """Where the weight (n, h, w) lies: rows and columns in [-1, 1], right and down positive."""
    steps = (torch.arange(weight.shape[-1]) + 0.5) * 2 / weight.shape[-1] - 1
    total = weight.sum((-2, -1))
    return (weight.sum(-1) @ steps) / total, (weight.sum(-2) @ steps) / total


def test_a_face_depends_on_its_own_row_alone():
    index = np.arange(70)
    values = sampled(index)
    together = render(values, 64, identity=index)
    assert torch.equal(together, render(values, 64, identity=index))
    alone = [render(values[i : i + 1], 64, identity=index[i : i + 1]) for i in range(12)]
    assert torch.equal(together[:12], torch.cat(alone))
    sevens = [render(values[i : i + 7], 64, identity=index[i : i + 7]) for i in range(0, 70, 7)]
    assert torch.equal(together, torch.cat(sevens))


def test_threads_change_nothing_and_leave_the_setting_alone():
    index, before = np.arange(150), torch.get_num_threads()  # three chunks at this size
    values = sampled(index)
    alone = render(values, 64, "mild", identity=index)
    torch.set_num_threads(3)
    try:
        assert torch.equal(render(values, 64, "mild", identity=index), alone)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_factor_values_are_fixed_uniform_and_independent():
    values = sampled(np.arange(40_000))
    assert np.array_equal(sampled(np.arange(50, 60)), values[50:60])
    codes = values / (np.array(SIZES) - 1)
    for column, size in zip(values.T, SIZES, strict=True):
        counts = np.bincount(column, minlength=size)
        assert len(counts) == size
        assert np.abs(counts - 40_000 / size).max() < 5 * np.sqrt(40_000 / size)
    correlation = np.corrcoef(codes.T) - np.eye(len(SIZES))
    assert np.abs(correlation).max() < 5 / np.sqrt(40_000)


def test_mild_faces_seldom_wear_glasses_and_are_otherwise_the_same():
    full, mild = (sampled(np.arange(40_000), variation) for variation in ("full", "mild"))
    glasses = NAMES.index("glasses")
    assert np.array_equal(np.delete(full, glasses, 1), np.delete(mild, glasses, 1))
    for values, shares in ((full, (1 / 3, 1 / 3, 1 / 3)), (mild, (0.8, 0.1, 0.1))):
        counts = np.bincount(values[:, glasses], minlength=3)
        assert np.abs(counts - 40_000 * np.array(shares)).max() < 5 * np.sqrt(40_000 / 3)


@BOTH
def test_every_step_of_every_factor_can_be_seen(variation):
    for name in NAMES:
        pictures = render(series(name), 32, variation)
        changed = (difference(pictures[1:], pictures[:-1]) > 12).sum((1, 2))
        # Irises and thin brows cover few pixels at this size, everything else more.
        assert (changed >= (1 if name in ("eye_colour", "brows") else 4)).all(), (name, changed)


@BOTH
def test_identity_changes_the_face_and_is_repeatable(variation):
    same = np.repeat(row(), 3, axis=0)
    pictures = render(same, 32, variation, identity=np.array([5, 6, 5]))
    assert (difference(pictures[0], pictures[1]) > 12).sum() > 50
    assert torch.equal(pictures[0], pictures[2])
    assert not torch.equal(pictures[0], render(same[:1], 32, variation)[0])


@BOTH
def test_a_mirrored_pose_and_lamp_give_the_mirrored_picture(variation):
    index = np.arange(60)
    values = sampled(index)
    values = values[values[:, NAMES.index("hair_style")] != 2]  # the parting is on one side
    index = index[: len(values)]
    mirrored = values.copy()
    for name in ("azimuth", "light"):
        mirrored[:, NAMES.index(name)] = FACTORS[name] - 1 - values[:, NAMES.index(name)]
    there, back = (render(v, 48, variation, identity=index) for v in (values, mirrored))
    assert (there.int() - back.flip(-1).int()).abs().max() <= 2
    parted = render(row(hair_style=2), 48, variation)
    assert difference(parted, parted.flip(-1)).max() > 50


@BOTH
def test_the_lamp_brightens_its_own_side(variation):
    pictures = render(series("light"), 32, variation).float().mean(1)
    head = pictures[:, 8:24]
    slant = head[..., 16:24].mean((1, 2)) - head[..., 8:16].mean((1, 2))
    assert (slant.diff() > 2).all()
    assert abs(slant[3]) < 0.5


@BOTH
def test_features_turn_with_the_head(variation):
    # What opens is the mouth: it lies in front of the axis, so it moves by the sine of the angle.
    for name, axis in (("azimuth", 1), ("elevation", 0)):
        shut, wide = (render(series(name, mouth_open=gap), 64, variation) for gap in (0, 3))
        place = centre(difference(shut, wide).float())[axis]
        angle = getattr(VARIATIONS[variation], name) * torch.linspace(-1, 1, FACTORS[name])
        moved = place - place[len(place) // 2]
        sine = angle.sin() * (1 if name == "azimuth" else -1)
        reach = (moved * sine).sum() / (sine * sine).sum()
        assert 0.3 < reach < 0.8  # of the picture's half side: the skull's half depth, zoomed
        assert torch.allclose(moved, reach * sine, atol=0.04)


def test_features_change_where_they_are():
    plain = render(row(), 64)
    for name, top, bottom in (("eye_colour", 24, 36), ("brows", 18, 32), ("smile", 36, 52), ("mouth_open", 36, 52)):
        where = difference(render(series(name), 64), plain).amax(0) > 12
        rows = where.any(1).nonzero()
        assert top <= rows.min() <= rows.max() < bottom, (name, rows.min(), rows.max())
    walls = difference(render(series("background"), 64), plain)
    assert walls[:, 20:40, 26:38].max() == 0
    assert (walls[1:, :8, :8] > 12).all()


def test_wider_mouths_show_more_of_their_inside_and_open_eyes_more_white():
    gaps = render(series("mouth_open", smile=4), 64, "mild")
    assert (difference(gaps, gaps[:1]).sum((1, 2)).diff() > 200).all()
    eyes = render(series("eyes_open", skin=4), 64, "mild").float().mean(1)
    assert ((eyes[:, 20:40, 16:48] > 150).sum((1, 2)).diff() > 2).all()


def test_hair_covers_the_crown_and_has_its_colour_only_where_it_is():
    crown = render(np.concatenate([row(hair_style=s, hair_colour=0) for s in (0, 1)]), 64).float().mean(1)
    crown = crown[:, 14:18, 28:36]
    assert crown[0].mean() > crown[1].mean() + 60  # black hair where a bald head shines
    bald = difference(render(series("hair_colour", hair_style=0), 64), render(row(hair_style=0), 64))
    assert (bald[:, :18] == 0).all()


@BOTH
@pytest.mark.parametrize("size", [16, 33, 128])
def test_a_picture_is_nearly_the_pooled_picture_of_twice_the_size(size, variation):
    index = np.arange(12)
    values = sampled(index)
    small, large = (render(values, side, variation, identity=index) for side in (size, 2 * size))
    assert small.shape == (12, 3, size, size)
    error = (F.avg_pool2d(large.float(), 2) - small.float()).abs()
    assert error.mean() < 45 / size + 0.1  # of 255: edges are the error, and their share falls with the side


@BOTH
def test_layers_are_cut_to_windows_that_nothing_reaches_beyond(variation, monkeypatch):
    index = np.arange(100)
    values = sampled(index)
    cut = render(values, 32, variation, identity=index)
    monkeypatch.setattr(Rays, "window", lambda self, across, along: (self, (..., slice(None), slice(None))))
    assert torch.equal(render(values, 32, variation, identity=index), cut)


def test_what_cannot_be_drawn_is_refused():
    for side, variation, message in (
        (15, "full", "image_size 16 to 256, not 15"),
        (257, "full", "image_size 16 to 256, not 257"),
        (16, "wild", "variation must be one of full, mild, not 'wild'"),
    ):
        with pytest.raises(InputError, match=message):
            render(row(), side, variation)
    for values in (row(nose=4), row(light=-1), row()[:, :5]):
        with pytest.raises(InputError, match="factor values must have 14 columns"):
            render(values, 32)


@pytest.fixture
def few(monkeypatch):
    """Sets of 30 faces to train on and 4 to test."""
    for counts in COUNTS.values():
        monkeypatch.setitem(counts, "train", 30)
        monkeypatch.setitem(counts, "test", 4)


def test_a_set_is_drawn_once_and_opened_as_it_was(tmp_path, few, monkeypatch):
    first = data.load("faces_mild", image_size=32, data_dir=tmp_path)
    assert first.name == "faces_mild"
    assert (len(first), first.shape, first.factors.sizes) == (30, (3, 32, 32), SIZES)
    values = first.factors.values([3, 20])
    assert torch.equal(first.storage[[3, 20]], render(values, 32, "mild", identity=np.array([3, 20])))
    monkeypatch.setattr(sys.modules["vaestudy.data.faces.render"], "render", None)
    again = data.load("faces_mild", image_size=32, data_dir=tmp_path)
    assert torch.equal(first.storage, again.storage)
    assert first.describe() == again.describe()


def test_splits_and_variations_are_different_sets_of_the_same_kind(tmp_path, few, monkeypatch):
    names, splits = ("faces", "faces_mild"), ("train", "test")
    sets = [data.load(name, image_size=16, split=split, data_dir=tmp_path) for name in names for split in splits]
    assert [len(images) for images in sets] == [30, 4, 30, 4]
    assert len({images.checksum for images in sets}) == 4
    assert not np.array_equal(sets[0].factors.values(slice(0, 4)), sets[1].factors.values(slice(None)))
    monkeypatch.setitem(COUNTS["full"], "train", 40)
    assert torch.equal(data.load("faces", image_size=16, data_dir=tmp_path).storage[:30], sets[0].storage)
    train, test = data.train_and_test("faces_mild", 3, image_size=16, data_dir=tmp_path)
    assert (train.name, len(train), len(test)) == ("faces_mild", 30, 3)
