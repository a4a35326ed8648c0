import sys
from io import BytesIO

import numpy as np
import pytest
from own_images import gradient
from PIL import Image

from vaestudy import data
from vaestudy.data import decode
from vaestudy.errors import InputError

ATTRIBUTES = ("Smiling", "Eyeglasses", "Male")


@pytest.fixture
def celeba_dir(tmp_path):
    """A small tree as torchvision lays CelebA out: 20 faces, 14 train, 3 valid, 3 test."""
    root = tmp_path / "celeba"
    (root / "img_align_celeba").mkdir(parents=True)
    names = [f"{number:06d}.jpg" for number in range(1, 21)]
    for number, name in enumerate(names):
        gradient(178, 218, number).save(root / "img_align_celeba" / name, quality=95)
    parts = [0] * 14 + [1] * 3 + [2] * 3
    lines = [f"{name} {part}\n" for name, part in zip(names, parts, strict=True)]
    (root / "list_eval_partition.txt").write_text("".join(lines))
    signs = np.random.default_rng(0).integers(0, 2, (20, 3)) * 2 - 1
    rows = [f"{name} " + " ".join(f"{sign:2d}" for sign in row) for name, row in zip(names, signs, strict=True)]
    (root / "list_attr_celeba.txt").write_text("\n".join(["20", " ".join(ATTRIBUTES) + " ", *rows]) + "\n")
    return tmp_path, (signs + 1) // 2


def test_celeba_is_cropped_resized_and_labelled(celeba_dir):
    root, marks = celeba_dir
    first = 0
    for split, count in (("train", 14), ("valid", 3), ("test", 3)):
        images = data.load("celeba", split=split, data_dir=root)
        assert (len(images), images.shape) == (count, (3, 64, 64))
        assert images.factors.names == ATTRIBUTES
        assert images.factors.sizes == (2, 2, 2)
        np.testing.assert_array_equal(images.factors.values(slice(None)), marks[first : first + count])
        for number in range(count):
            with Image.open(root / "celeba" / "img_align_celeba" / f"{first + number + 1:06d}.jpg") as photo:
                face = photo.crop((15, 40, 163, 188)).resize((64, 64), Image.Resampling.BILINEAR)
            expected = np.asarray(face, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)
            np.testing.assert_array_equal(images.batch([number])[0], expected)
        first += count


def test_a_split_without_images_is_said_before_any_is_decoded(celeba_dir, monkeypatch):
    root, _ = celeba_dir
    lists = root / "celeba" / "list_eval_partition.txt"
    lists.write_text(lists.read_text().replace(".jpg 2", ".jpg 1"))
    monkeypatch.setattr(decode, "decode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(InputError, match="no image of celeba is in the split 'test'"):
        data.train_and_test("celeba", 100, image_size=16, data_dir=root)


def test_celeba_is_decoded_once_for_all_splits(celeba_dir, monkeypatch):
    root, _ = celeba_dir
    train = data.load("celeba", image_size=16, data_dir=root)
    monkeypatch.setattr(decode, "decode", lambda *_: pytest.fail("decoded again"))
    valid = data.load("celeba", image_size=16, split="valid", data_dir=root)
    assert train.checksum == valid.checksum
    assert train.describe() != valid.describe()


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("list_eval_partition.txt", "000020.jpg 2\n", "", "not listed, such as 000020.jpg"),
        ("list_eval_partition.txt", "000020", "000021", "absent, such as 000021.jpg"),
        ("list_eval_partition.txt", "000020.jpg 2\n", "000020.jpg 2\n" * 2, "each image once"),
        ("list_eval_partition.txt", "000003.jpg 0", "000003.jpg 7", "0, 1 or 2"),
        ("list_attr_celeba.txt", "000004.jpg", "000044.jpg", "do not list the same images"),
        ("list_attr_celeba.txt", "-1", "-2", "3 times 1 or -1"),
        ("list_attr_celeba.txt", "Male", "", "2 times 1 or -1"),
    ],
)
def test_lists_that_disagree_with_the_images_are_refused(celeba_dir, file, old, new, says):
    root, _ = celeba_dir
    path = root / "celeba" / file
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=says) as caught:
        data.load("celeba", data_dir=root)
    assert "\n" not in str(caught.value)
    assert not list(root.glob("celeba-*"))


def test_a_download_that_fails_says_what_to_fetch_by_hand(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)  # which then cannot be imported
    with pytest.raises(InputError, match=r"download of celeba failed \(.*gdown.*mmlab") as caught:
        data.load("celeba", data_dir=tmp_path, download=True)
    assert "\n" not in str(caught.value)


def as_csv(root):
    """The same files as the usual hub download lays them out: lists of commas, the images one folder deeper."""
    pictures = root / "celeba" / "img_align_celeba"
    pictures.rename(root / "celeba" / "deeper")
    pictures.mkdir()
    (root / "celeba" / "deeper").rename(pictures / "img_align_celeba")
    parts = root / "celeba" / "list_eval_partition.txt"
    rows = ["image_id,partition", *(line.replace(" ", ",") for line in parts.read_text().splitlines())]
    parts.with_suffix(".csv").write_text("\n".join(rows) + "\n")
    marks = root / "celeba" / "list_attr_celeba.txt"
    _, names, *lines = marks.read_text().splitlines()
    rows = [",".join(line.split()) for line in (f"image_id {names}", *lines)]
    marks.with_suffix(".csv").write_text("\r\n".join(rows) + "\r\n\r\n")
    parts.unlink()
    marks.unlink()


def test_both_layouts_of_lists_are_the_same_set(celeba_dir):
    root, _ = celeba_dir
    txt = data.load("celeba", image_size=16, split="valid", data_dir=root)
    as_csv(root)
    csv = data.load("celeba", image_size=16, split="valid", data_dir=root)
    assert csv.describe() == txt.describe()
    assert len(list(root.glob("celeba-*.npy"))) == 1  # found again by its content
    np.testing.assert_array_equal(csv.factors.values(slice(None)), txt.factors.values(slice(None)))
    inner = data.load("celeba", image_size=16, split="valid", data_dir=root / "celeba")
    assert inner.describe() == txt.describe()


def test_blank_lines_and_tabs_make_no_difference(celeba_dir):
    root, marks = celeba_dir
    for name in ("list_eval_partition.txt", "list_attr_celeba.txt"):
        path = root / "celeba" / name
        path.write_text(path.read_text().replace(".jpg ", ".jpg\t") + "\n\n")
    images = data.load("celeba", image_size=16, data_dir=root)
    np.testing.assert_array_equal(images.factors.values(slice(None)), marks[:14])


def parquet_files(root, marks):
    """Shards with the bytes of the images in a column of their own, each named after its split; image 2 is none."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    folder = root / "celeba" / "data"
    folder.mkdir(parents=True)
    for name, first, last in (("train-0", 0, 9), ("train-1", 9, 14), ("valid-0", 14, 17), ("test-0", 17, 20)):
        images = []
        for number in range(first, last):
            file = BytesIO()
            gradient(178, 218, number).save(file, "PNG")
            content = b"<html>" if number == 2 else file.getvalue()
            images.append({"bytes": content, "path": f"{number}.png"})
        columns = {"image": images, "celeb_id": list(range(first, last))}
        columns |= {name: marks[first:last, k].astype(bool) for k, name in enumerate(ATTRIBUTES)}
        parquet.write_table(pyarrow.table(columns), folder / f"{name}-of-4.parquet")
    return folder


def test_parquet_files_give_their_images_and_attributes(tmp_path):
    marks = np.random.default_rng(0).integers(0, 2, (20, 3))
    parquet_files(tmp_path, marks)
    first = 0
    for split, count in (("train", 14), ("valid", 3), ("test", 3)):
        images = data.load("celeba", image_size=16, split=split, data_dir=tmp_path)
        numbers = [n for n in range(first, first + count) if n != 2]
        assert len(images) == len(numbers)
        order = [ATTRIBUTES.index(name) for name in images.factors.names]
        np.testing.assert_array_equal(images.factors.values(slice(None)), marks[numbers][:, order])
        for row, number in enumerate(numbers):
            face = gradient(178, 218, number).crop((15, 40, 163, 188)).resize((16, 16), Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(images.batch([row])[0] * 255, np.asarray(face).transpose(2, 0, 1))
        first += count


def test_parquet_files_that_cannot_be_used_are_one_line(tmp_path):
    folder = parquet_files(tmp_path, np.zeros((20, 3)))
    (folder / "part-9.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="must begin with its split: train, valid, test"):
        data.load("celeba", data_dir=tmp_path)
    (folder / "part-9.parquet").unlink()
    pyarrow = pytest.importorskip("pyarrow")
    pyarrow.parquet.write_table(pyarrow.table({"picture": [1]}), folder / "test-0.parquet")
    for path in folder.glob("*0-of-4.parquet"):
        path.unlink()
    (folder / "train-1-of-4.parquet").unlink()
    with pytest.raises(InputError, match="no column image or no attribute"):
        data.load("celeba", data_dir=tmp_path)
    (folder / "test-0.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="cannot read the parquet files") as caught:
        data.load("celeba", data_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_parquet_files_need_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # which then cannot be imported
    (tmp_path / "celeba").mkdir()
    (tmp_path / "celeba" / "train-0.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"pip install 'vaestudy\[parquet\]'"):
        data.load("celeba", data_dir=tmp_path)
