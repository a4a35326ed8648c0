"""Every data set through every stage, in its notebook and on the command line: a page, or one line before any work."""

from dataclasses import replace

import own_images
import pytest
from cells import run

from vaestudy import experiments, profiles, settings
from vaestudy.__main__ import main
from vaestudy.data import photos, registry
from vaestudy.data.faces.render import COUNTS
from vaestudy.errors import InputError
from vaestudy.experiments import common

PAGE, ONE = "page", "what one label tells"
# What comes of each data set in stage 1, 2 and 3, in the notebook and on the command line alike.
OUTCOMES = {
    "dsprites": (PAGE, PAGE, PAGE),
    "faces": (PAGE, PAGE, PAGE),
    "mnist": (PAGE, ONE, ONE),
    "fashion_mnist": (PAGE, ONE, ONE),
    "cifar10": (PAGE, ONE, ONE),
    "celeba": (PAGE, PAGE, PAGE),
    "celeba_hq": (PAGE, "no factors are known", PAGE),
    "folder": (PAGE, "no factors are known", PAGE),
    "folder, one label": (PAGE, ONE, ONE),
    "folder, labels": (PAGE, PAGE, PAGE),
}
STAGES = ("vae", "beta_vae", "nvae")
# The cells of `make test`: each kind of outcome once a stage; the whole product is run by `make test-long`.
FEW = [
    ("mnist", "vae", "notebook"),
    ("folder", "vae", "notebook"),
    ("folder, labels", "vae", "command"),
    ("celeba_hq", "vae", "command"),
    ("folder", "beta_vae", "notebook"),
    ("celeba_hq", "beta_vae", "command"),
    ("folder, one label", "beta_vae", "notebook"),
    ("cifar10", "beta_vae", "command"),
    ("folder, labels", "beta_vae", "notebook"),
    ("celeba", "beta_vae", "command"),
    ("fashion_mnist", "nvae", "notebook"),
    ("folder", "nvae", "notebook"),
    ("celeba", "nvae", "command"),
    ("dsprites", "nvae", "command"),
]


@pytest.fixture(scope="module")
def where(tmp_path_factory, dsprites_dir):
    """The folder of each data set."""
    root = tmp_path_factory.mktemp("sets")
    with pytest.MonkeyPatch.context() as patch:
        for variation in ("full", "mild"):
            patch.setitem(COUNTS[variation], "train", 300)
            patch.setitem(COUNTS[variation], "test", 120)
        yield {
            "dsprites": dsprites_dir,
            "faces": root / "faces",
            "mnist": own_images.idx(root / "mnist", "MNIST"),
            "fashion_mnist": own_images.idx(root / "fashion", "FashionMNIST"),
            "cifar10": own_images.cifar10(root / "cifar", patch),
            "celeba": own_images.celeba(root / "celeba"),
            "celeba_hq": own_images.celeba_hq(root / "hq"),
            "folder": own_images.folder(root / "own"),
            "folder, one label": own_images.folder(root / "one", labels=["place"]),
            "folder, labels": own_images.folder(root / "own labels", labels=["place", "size", "length"]),
        }


def given(name, where, tmp_path):
    about = {"profile": "smoke", "dataset": name.partition(",")[0], "data_dir": str(where[name])}
    return about | {"runs_dir": str(tmp_path / "runs")}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("name", "side"), [("folder", 32), ("mnist", 28)])
def test_images_of_any_side_come_in_that_of_the_profile(name, side, stage, where):
    """A set that is smaller keeps its own side in stage 1 and 2; NVAE wants a power of two."""
    chosen = settings.resolve(stage, profile="laptop", dataset=name, data_dir=str(where[name]))
    experiment = experiments.STAGES[stage]
    found = getattr(experiment, "image_side", common.image_side)(chosen)
    assert found == (32 if stage == "nvae" else side)


@pytest.mark.parametrize(("name", "stage", "way"), FEW)
def test_some_cells_in_few_steps(name, stage, way, where, tmp_path, capsys, monkeypatch):
    for own in STAGES:
        shrink(monkeypatch, own)
    check(name, stage, way, where, tmp_path, capsys, monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("way", ["notebook", "command"])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", OUTCOMES)
def test_each_set_ends_in_a_page_or_in_one_line_before_any_work(name, stage, way, where, tmp_path, capsys, monkeypatch):
    check(name, stage, way, where, tmp_path, capsys, monkeypatch)


def shrink(patch, stage):
    """Few steps for the models that a page shows; of the evidence what depends on the page's images."""
    row = dict(profiles.OVERRIDES[stage]["smoke"])
    row["training"] = replace(row["training"], images=64, batch=16)
    row["parts"] = {} if stage == "nvae" else {name: of for name, of in row["parts"].items() if name != "curve32"}
    patch.setitem(profiles.OVERRIDES[stage], "smoke", row)


def check(name, stage, way, where, tmp_path, capsys, monkeypatch):
    outcome, chosen = OUTCOMES[name][STAGES.index(stage)], given(name, where, tmp_path)
    before = sorted(path for path in where[name].rglob("*") if path.is_file())
    if outcome not in (PAGE, ONE):
        forbid_work(monkeypatch)
    if way == "command":
        words = [word for key, value in chosen.items() for word in (f"--{key}", str(value))]
        status, said = main(["train", stage, *words]), capsys.readouterr()
        assert status == (0 if outcome in (PAGE, ONE) else 2), said.err
        assert outcome in (PAGE, ONE) or (outcome in said.err and said.err.count("\n") == 1)
    elif outcome in (PAGE, ONE):
        shown = run(stage, **chosen)
        assert len(shown.splitlines()) > 20
    else:
        with pytest.raises(InputError, match=outcome) as caught:
            run(stage, **chosen)
        assert "\n" not in str(caught.value)
    assert (outcome in (PAGE, ONE)) == (tmp_path / "runs").exists()
    if name.startswith("folder"):  # nothing is left among somebody's photographs
        assert sorted(path for path in where[name].rglob("*") if path.is_file()) == before


def forbid_work(patch):
    """Let the test fail where images are rendered, read or decoded."""
    for name, info in registry.REGISTRY.items():
        changed = replace(info, loader=lambda *_: pytest.fail("images were read"))
        patch.setitem(registry.REGISTRY, name, changed)


@pytest.mark.parametrize("stage", STAGES)
def test_too_few_images_are_said_before_any_is_read(stage, tmp_path, monkeypatch):
    own_images.folder(tmp_path / "five", 5, ["place"])
    forbid_work(monkeypatch)
    with pytest.raises(InputError, match="folder has 5 images") as caught:
        run(stage, profile="smoke", dataset="folder", data_dir=str(tmp_path / "five"))
    assert "\n" not in str(caught.value)


def rare(root, images):
    """A folder with an image to train on that is the only one of its size: too few to score it."""
    folder = own_images.folder(root, images, ["place", "size"])
    lines = (folder / "labels.csv").read_text().splitlines()
    chosen = next(k for k, line in enumerate(lines) if k and photos.split_of(line.partition(",")[0]) == "train")
    lines[chosen] = f"{lines[chosen].rpartition(',')[0]},9"
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_labels_that_cannot_be_scored_are_said_before_any_image_is_read(tmp_path, monkeypatch):
    """Stage 2 is about scores; the others leave out what has none."""
    forbid_work(monkeypatch)
    with pytest.raises(InputError, match="the factor size of folder has"):
        run("beta_vae", **given("folder", {"folder": rare(tmp_path / "rare", 200)}, tmp_path))


@pytest.mark.parametrize(
    ("stage", "images", "says"),
    [("vae", 200, "not scored: size"), ("vae", 80, "codes need 100"), ("nvae", 80, "codes need 100")],
)
def test_a_page_without_scores_says_why(stage, images, says, tmp_path, monkeypatch, caplog):
    shrink(monkeypatch, stage)
    run(stage, **given("folder", {"folder": rare(tmp_path / "rare", images)}, tmp_path))
    assert says in caplog.text


def test_digits_of_one_class_are_no_scores_and_no_subject(tmp_path, monkeypatch):
    root = own_images.idx(tmp_path / "ones", "MNIST")
    for path in (root / "MNIST" / "raw").glob("*labels*"):
        path.write_bytes(path.read_bytes()[:8] + bytes(len(path.read_bytes()) - 8))
    shrink(monkeypatch, "vae")
    assert run("vae", **given("mnist", {"mnist": root}, tmp_path))
    with pytest.raises(InputError, match="the factor class of mnist has one value only"):
        run("beta_vae", **given("mnist", {"mnist": root}, tmp_path / "others"))
    assert not list(tmp_path.glob("others/**/metrics.jsonl"))
