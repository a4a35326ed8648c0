import json
import logging
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from own_images import gradient
from PIL import Image

from vaestudy import data
from vaestudy.data import celeba, decode, photos
from vaestudy.data.decode import Recipe, decode_all, list_images
from vaestudy.errors import InputError


@pytest.fixture
def album(tmp_path):
    """Photographs of several modes, sizes and depths, and things that are none."""
    root = tmp_path / "album"
    (root / "deep" / "er").mkdir(parents=True)
    gradient(90, 60).save(root / "wide.png")
    gradient(60, 90).convert("L").save(root / "deep" / "grey.PNG")
    red = Image.new("RGBA", (40, 40), (255, 0, 0, 255))
    red.paste((0, 0, 255, 0), (0, 0, 40, 20))
    red.save(root / "deep" / "er" / "glass.png")
    Image.fromarray(np.full((30, 30), 128 * 256, dtype=np.uint16)).save(root / "deep" / "sixteen.png")
    gradient(50, 50, 3).convert("P").save(root / "few.gif")
    gradient(50, 50, 4).convert("CMYK").save(root / "print.jpg")
    (root / "notes.txt").write_text("no image")
    (root / ".hidden.png").write_text("no image")
    return root


def everything(root, cache, side=16):
    """All splits of a folder together, by file name."""
    storage, _ = decode_all("folder", root, list_images(root), Recipe(side), cache)
    return dict(zip(list_images(root), storage.numpy(), strict=True))


def test_any_mode_and_size_becomes_a_square_in_rgb(album, tmp_path):
    found = everything(album, tmp_path)
    assert list(found) == ["deep/er/glass.png", "deep/grey.PNG", "deep/sixteen.png", "few.gif", "print.jpg", "wide.png"]
    middle = gradient(90, 60).crop((15, 0, 75, 60)).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found["wide.png"], np.asarray(middle).transpose(2, 0, 1))
    grey = found["deep/grey.PNG"]
    assert (grey[0] == grey[1]).all()
    assert np.ptp(grey) > 20
    assert (found["deep/sixteen.png"] == 128).all()
    assert (found["deep/er/glass.png"][:, :7] == 255).all()  # transparent blue is white
    assert (found["deep/er/glass.png"][:, 9:] == [[[255]], [[0]], [[0]]]).all()
    original = np.asarray(gradient(50, 50, 4).resize((16, 16), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.abs(found["print.jpg"].astype(int) - original).mean() < 8


def test_a_large_jpeg_read_at_reduced_detail_stays_the_same_picture(tmp_path):
    (tmp_path / "a").mkdir()
    gradient(1600, 1200, 6).save(tmp_path / "a" / "large.jpg", quality=95)
    expected = gradient(1600, 1200, 6).crop((200, 0, 1400, 1200)).resize((32, 32), Image.Resampling.BILINEAR)
    found = everything(tmp_path / "a", tmp_path, 32)["large.jpg"]
    assert np.abs(found.astype(int) - np.asarray(expected).transpose(2, 0, 1)).max() <= 3


def test_unreadable_files_are_skipped_counted_and_named(album, tmp_path, caplog):
    whole = tmp_path / "whole.jpg"
    gradient(200, 200, 7).save(whole)
    (album / "cut.jpg").write_bytes(whole.read_bytes()[:-400])
    (album / "page.jpg").write_text("<html>quota exceeded</html>")
    (album / "empty.png").write_bytes(b"")
    for _ in range(2):  # told again when the cache is reopened
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            images = data.load("folder", image_size=32, data_dir=album)
        assert len(images) == 6  # by their names the whole files all happen to be in "train"
        assert "skipped 3 of 9 images that cannot be decoded: cut.jpg, empty.png, page.jpg" in caplog.text
    assert images.batch(slice(None)).amax(dim=(1, 2, 3)).min() > 0.1
    assert photos.split_of("empty.png") == "valid"
    with pytest.raises(InputError, match="no image of folder is in the split 'valid'"):
        data.load("folder", image_size=32, split="valid", data_dir=album)


def test_splits_of_names_have_their_shares():
    names = [f"face{number}.png" for number in range(2000)]
    parts = np.array([photos.split_of(name) for name in names])
    shares = [(parts == split).mean() for split in celeba.SPLITS]
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.03)


def test_celeba_hq_finds_images_at_any_depth(tmp_path):
    for number in range(12):
        place = tmp_path / "celeba_hq" / f"part{number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        gradient(300, 300, number).save(place / f"{number}.png")
    images = data.load("celeba_hq", data_dir=tmp_path)
    assert images.shape == (3, 256, 256)
    assert images.factors is None
    assert images.describe()["crop"] == "middle square"


@pytest.fixture
def many(tmp_path):
    """600 small files, one of them no image."""
    root = tmp_path / "many"
    root.mkdir()
    for number in range(600):
        gradient(20, 20, number).save(root / f"{number:03d}.png")
    (root / "300.png").write_text("no image")
    return root


def test_several_processes_give_what_one_gives(many, tmp_path, monkeypatch):
    files = list_images(many)
    monkeypatch.setattr(decode, "processes", lambda _: 1)
    alone, one = decode_all("alone", many, files, Recipe(16), tmp_path)
    monkeypatch.setattr(decode, "processes", lambda _: 2)
    together, two = decode_all("together", many, files, Recipe(16), tmp_path)
    assert one == two
    assert one["unreadable"] == [300]
    np.testing.assert_array_equal(alone, together)


def test_a_killed_call_goes_on_where_it_was(many, tmp_path, monkeypatch):
    """A process that is killed in the middle leaves its finished rows to the next call, and no array."""
    script = (
        "import sys, time; from pathlib import Path; from vaestudy.data import decode\n"
        "whole = decode.decode\n"
        "def slow(path, recipe):\n    time.sleep(0.01)\n    return whole(path, recipe)\n"
        "decode.decode, root = slow, Path(sys.argv[1])\n"
        "decode.decode_all('kept', root, decode.list_images(root), decode.Recipe(16), Path(sys.argv[2]))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(many), str(tmp_path)], env=os.environ)
    while not (marks := [path for path in tmp_path.glob("kept-*.progress") if path.read_text()]):
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not list(tmp_path.glob("kept-*.npy"))
    finished = json.loads(marks[0].read_text())[0]
    assert 0 < finished < 600

    calls, whole = [], decode.decode
    monkeypatch.setattr(decode, "decode", lambda path, recipe: calls.append(path) or whole(path, recipe))
    kept, details = decode_all("kept", many, list_images(many), Recipe(16), tmp_path)
    assert len(calls) == 600 - finished
    assert details["unreadable"] == [300]
    fresh, _ = decode_all("fresh", many, list_images(many), Recipe(16), tmp_path)
    np.testing.assert_array_equal(kept, fresh)
    assert not list(tmp_path.glob("kept-*.p*"))


def test_names_that_are_no_text_are_names_all_the_same(tmp_path):
    root = tmp_path / os.fsdecode(b"caf\xe9")
    root.mkdir()
    gradient(20, 20).save(root / os.fsdecode(b"caf\xe9.png"))
    assert len(everything(root, tmp_path)) == 1
    (about,) = tmp_path.glob("folder-*.json")
    assert json.loads(about.read_text())["source"].endswith(r"caf\udce9")
