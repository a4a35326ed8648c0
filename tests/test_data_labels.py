import logging

import numpy as np
import pytest
from PIL import Image

from vaestudy import data
from vaestudy.data.labels import read_labels
from vaestudy.errors import InputError

NAMES = [f"{number:02d}.png" for number in range(40)]


def write(folder, columns, names=NAMES, separator=",", encoding="utf-8"):
    lines = [separator.join(["file", *columns])]
    lines += [separator.join(map(str, row)) for row in zip(names, *columns.values(), strict=True)]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n\n", encoding=encoding)


@pytest.mark.parametrize(("separator", "encoding"), [(",", "utf-8"), (";", "utf-8-sig"), ("\t", "utf-8")])
def test_whole_numbers_and_texts_are_taken_as_they_stand(tmp_path, separator, encoding):
    rng = np.random.default_rng(0)
    size, colour = rng.choice([3, 7, 11], 40), rng.choice(["röt", "blue"], 40)
    write(tmp_path, {"size": size, "colour": colour, "fine": rng.choice([0.5, 0.75], 40)}, NAMES, separator, encoding)
    factors, note = read_labels(tmp_path, NAMES)
    assert (factors.names, factors.sizes) == (("size", "colour", "fine"), (3, 2, 2))
    values = factors.values(slice(None))
    np.testing.assert_array_equal(np.array([3, 7, 11])[values[:, 0]], size)
    np.testing.assert_array_equal(np.array(["blue", "röt"])[values[:, 1]], colour)
    assert set(note) == {"labels"}


def test_continuous_values_are_binned_evenly_and_the_note_says_so(tmp_path):
    angle = np.random.default_rng(1).permutation(np.linspace(-1, 1, 40) ** 3)
    write(tmp_path, {"angle": angle})
    factors, note = read_labels(tmp_path, NAMES)
    values = factors.values(slice(None))[:, 0]
    assert factors.sizes == (10,)
    assert np.bincount(values).tolist() == [4] * 10
    assert (np.diff(values[np.argsort(angle)]) >= 0).all()
    assert len(note["binned"]["angle"]) == 11


def test_columns_that_are_no_factors_are_left_out_and_named(tmp_path, caplog):
    many = [f"{number}.png" for number in range(120)]
    columns = {"same": ["x"] * 120, "title": [f"no. {n}" for n in range(120)], "year": range(120), "side": [0, 1] * 60}
    write(tmp_path, columns, many)
    with caplog.at_level(logging.WARNING):
        factors, note = read_labels(tmp_path, many)
    assert (factors.names, factors.sizes) == (("year", "side"), (10, 2))
    assert "same, title" in caplog.text
    assert list(note["binned"]) == ["year"]


def test_rows_find_their_images_in_any_order_and_spelling(tmp_path, caplog):
    names = ["deep/a.png", "e\u0301te\u0301.png", "c.png"]
    write(tmp_path, {"mark": [2, 1, 0, 3]}, ["c.png", "\u00e9t\u00e9.png", ".\\deep\\a.png", "gone.png"])
    with caplog.at_level(logging.WARNING):
        factors, _ = read_labels(tmp_path, names)
    assert factors.values(slice(None)).ravel().tolist() == [0, 1, 2]
    assert "lists 1 images that are not there" in caplog.text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file,a\n00.png,1\n", "lacks 1 images, such as 01.png"),
        ("file,a\n00.png,1\n01.png,NA\n", "has no a in line 3"),
        ("file,a\n00.png,1\n01.png,inf\n", "has no a in line 3"),
        ("file,a\n00.png,1\n00.png,2\n01.png,1\n", "lists 00.png twice"),
        ("00.png\n01.png\n", "a first line of names"),
        ("file,a\n00.png,1,2\n01.png,1,2\n", "a first line of names"),
        ("PK\xff\xfe", "save it as a UTF-8 table"),
        ("file,a\n00.png,5\n01.png,5\n", "no column that could be a factor"),
    ],
)
def test_labels_that_do_not_fit_are_one_clear_line(tmp_path, text, says):
    (tmp_path / "labels.csv").write_text(text, "latin-1")
    with pytest.raises(InputError, match=says) as caught:
        read_labels(tmp_path, NAMES[:2])
    assert "\n" not in str(caught.value)


def test_a_folder_is_loaded_with_its_labels_in_every_split(tmp_path):
    grey = np.random.default_rng(2).integers(0, 4, 40)
    for name, value in zip(NAMES, grey, strict=True):
        Image.new("L", (20, 20), int(value) * 60).save(tmp_path / name)
    write(tmp_path, {"grey": grey})
    identities = []
    for split in ("train", "valid", "test"):
        images = data.load("folder", image_size=16, split=split, data_dir=tmp_path)
        assert images.factors.sizes == (4,)
        shown = (images.batch(slice(None))[:, 0, 0, 0] * 255 / 60).round()
        np.testing.assert_array_equal(images.factors.values(slice(None))[:, 0], shown)
        identities.append(images.describe())
    write(tmp_path, {"grey": 3 - grey})
    changed = data.load("folder", image_size=16, split="test", data_dir=tmp_path).describe()
    assert changed != identities[2]
    assert changed["checksum"] == identities[2]["checksum"]


def test_tables_are_read_as_spreadsheets_write_them(tmp_path):
    """Empty cells after the last column and the last row, decimal commas, and texts that pandas takes for gaps."""
    lines = [
        "file;height;glasses;;",
        *(f"{name};{k % 4},5;{('None', 'round')[k % 2]};;" for k, name in enumerate(NAMES)),
    ]
    (tmp_path / "labels.csv").write_text("\n".join([*lines, ";;;;", ";;;;"]) + "\n")
    factors, _ = read_labels(tmp_path, NAMES)
    assert (factors.names, factors.sizes) == (("height", "glasses"), (4, 2))
    np.testing.assert_array_equal(factors.values(slice(None)), [[k % 4, k % 2] for k in range(40)])
    write(tmp_path, {"height": [f"{k},25" for k in range(40)]}, separator=";")
    assert list(read_labels(tmp_path, NAMES)[1]["binned"]) == ["height"]


def test_numbers_too_close_for_floats_are_no_factor(tmp_path):
    many = [f"{number}.png" for number in range(120)]
    write(tmp_path, {"id": [2**63 + k for k in range(120)], "side": [0, 1] * 60}, many)
    assert read_labels(tmp_path, many)[0].names == ("side",)


def test_a_long_name_is_shown_without_its_middle(tmp_path):
    """A name stands below axes; the same name of two factors would tell nobody which is which."""
    long = "temperature of the sensor at the front on the {} side of the camera"
    write(tmp_path, {long.format("left"): [k % 3 for k in range(40)], "明るさ 🙂": [k % 2 for k in range(40)]})
    assert read_labels(tmp_path, NAMES)[0].names == ("temperatur…he camera", "明るさ 🙂")
    write(tmp_path, {long.format(side): [k % 3 for k in range(40)] for side in ("left", "right")})
    with pytest.raises(InputError, match="two columns that would be shown as temperatur…he camera"):
        read_labels(tmp_path, NAMES)
