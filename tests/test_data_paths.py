import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from vaestudy import data, experiments
from vaestudy.data import cache, paths
from vaestudy.errors import InputError


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A checkout with one photograph of each split in `my photos {1} é`, seen from its notebooks."""
    (tmp_path / "vaestudy" / "data").mkdir(parents=True)
    photos = tmp_path / "my photos {1} é"
    photos.mkdir()
    for number in range(12):
        Image.new("L", (16, 16), 10 * number).save(photos / f"{number}.png")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path


def test_default_folder_is_the_project_s(tmp_path, monkeypatch, project):
    assert str(data.default_dir()) == os.environ["VAESTUDY_DATA"]
    monkeypatch.delenv("VAESTUDY_DATA")
    assert data.default_dir() == project / "data"
    monkeypatch.setenv("VAESTUDY_DATA", "~/images")
    assert data.default_dir() == Path.home() / "images"


@pytest.mark.parametrize(
    ("here", "written"),
    [
        ("", "./my photos {1} é/"),
        ("notebooks", "my photos {1} é"),
        ("notebooks", "../my photos {1} é"),
        ("notebooks", "~/my photos {1} é"),
        ("notebooks", "link"),
    ],
)
def test_a_folder_is_found_however_it_is_written(project, monkeypatch, here, written):
    monkeypatch.chdir(project / here)
    monkeypatch.setenv("HOME", str(project))
    (project / "link").symlink_to(project / "my photos {1} é")
    images = data.load("folder", image_size=16, data_dir=written)
    whole = data.load("folder", image_size=16, data_dir=project / "my photos {1} é")
    assert torch.equal(images.batch(slice(None)), whole.batch(slice(None)))
    assert images.describe() == whole.describe()


def test_a_folder_that_is_nowhere_is_meant_at_the_project(project):
    assert paths.resolve("not yet/there") == project / "not yet" / "there"


def test_the_cache_of_a_read_only_folder_goes_to_the_default_one(project, monkeypatch):
    """As on a read-only mount, which nobody can write; a permission would not stop the superuser."""
    (project / "mount").mkdir()
    (project / "my photos {1} é").rename(project / "mount" / "celeba_hq")
    allowed = os.access
    barred = lambda path, how: how == os.W_OK and "mount" in str(path)  # noqa: E731
    monkeypatch.setattr(os, "access", lambda path, how: not barred(path, how) and allowed(path, how))
    before = set(data.default_dir().iterdir())
    images = data.load("celeba_hq", image_size=16, data_dir=project / "mount")
    assert images.batch([0]).shape == (1, 3, 16, 16)
    assert [path.name for path in (project / "mount").iterdir()] == ["celeba_hq"]
    made = {path.suffix for path in set(data.default_dir().iterdir()) - before}
    assert {".npy", ".json"} <= made
    kept = project / "mount" / "made-earlier.npy"
    kept.write_bytes(b"")
    assert cache.cache_path(project / "mount", "made-earlier.npy") == kept


@pytest.mark.parametrize(
    ("name", "written", "says"),
    [
        ("folder", "my photos {1} é/a.png", "is no folder"),
        ("dsprites", "my photos {1} é/a.png", "is no folder"),
        ("folder", "~nobody of that name/photos", "home directory"),
        ("dsprites", "photos" * 1000, "name too long"),
    ],
)
def test_what_can_be_no_folder_is_one_line_before_any_work(project, name, written, says):
    (project / "my photos {1} é" / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match=says) as caught:
        experiments.prepare("vae", profile="smoke", dataset=name, data_dir=written)
    assert "\n" not in str(caught.value)


def test_a_folder_that_may_not_be_entered_is_one_line(project, monkeypatch):
    """A permission would not stop the superuser."""
    monkeypatch.setattr(os, "access", lambda path, how: how != os.X_OK)
    for name in ("folder", "dsprites"):
        with pytest.raises(InputError, match="none that may be entered"):
            experiments.prepare("vae", profile="smoke", dataset=name, data_dir="my photos {1} é")


def test_the_home_of_nobody_holds_no_runs():
    with pytest.raises(InputError, match="runs_dir cannot be"):
        experiments.prepare("vae", profile="smoke", runs_dir="~nobody of that name/runs")


@pytest.mark.parametrize("name", ["data_dir", "runs_dir"])
def test_a_nul_character_is_refused(name):
    with pytest.raises(InputError, match=f"{name} must have no NUL"):
        experiments.prepare("vae", profile="smoke", **{name: "runs\0"})
