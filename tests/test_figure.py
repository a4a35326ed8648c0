import base64
import dataclasses
import io
import itertools
import json
import re
from html.parser import HTMLParser
from typing import NamedTuple

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from vaestudy import figures
from vaestudy.errors import InputError
from vaestudy.figures.figure import as_json
from vaestudy.figures.table import cell
from vaestudy.report.html import TEMPLATES

# What the eye receives of linear RGB when one kind of cone is missing (Machado et al., 2009, table 1, severity 1).
SIGHT = {
    "all cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(colour):
    srgb = np.array(matplotlib.colors.to_rgb(colour))
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def contrast(a, b):
    """The ratio of WCAG 2: (brighter + 0.05) / (darker + 0.05)."""
    darker, brighter = sorted(linear(colour) @ [0.2126, 0.7152, 0.0722] for colour in (a, b))
    return (brighter + 0.05) / (darker + 0.05)


def lab(rgb):
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ np.clip(rgb, 0, 1)
    xyz /= [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


class Balanced(HTMLParser):
    """Fails on tags that do not close in order."""

    VOID = ("meta", "link", "input", "img", "br", "hr")

    def __init__(self, text):
        super().__init__()
        self.open = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@figures.style()
def line(caption="A line.", alt="It rises."):
    fig, axes = figures.canvas(width=5, height=3)
    axes.plot([0, 1], [1, 3], label="β = 4")
    axes.scatter([0.5], [2], color=figures.PAPER, edgecolor=figures.INK)
    axes.set(xlabel="images seen", title="a) nats & bits")
    axes.legend()
    return figures.Figure(fig, caption, alt, {"y": np.array([1.0, 3.0]), "label": "β = 4"})


def embedded(text):
    data = re.search(r"data:image/png;base64,([A-Za-z0-9+/=\s]+)", text)[1]
    return np.array(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))


def papers():
    return re.findall(r"--paper: (#\w{6});", (TEMPLATES / "article.css").read_text())


def test_every_colour_is_legible_on_both_papers():
    assert len(papers()) == 2
    for paper, colour in itertools.product(papers(), [*figures.PALETTE, *figures.ramp(6)]):
        assert contrast(paper, colour) >= 3, (paper, colour)


@pytest.mark.parametrize("sight", SIGHT)
def test_the_palette_stays_apart_for_every_kind_of_sight(sight):
    seen = [lab(np.array(SIGHT[sight]) @ linear(colour)) for colour in figures.PALETTE]
    nearest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))
    assert nearest >= 20  # 2.3 is just noticeable


def test_style_leaves_no_trace():
    before = dict(matplotlib.rcParams)
    line()
    assert dict(matplotlib.rcParams) == before


def test_a_figure_is_an_accessible_svg_in_the_colours_of_the_page():
    text = line(alt='It "rises" < 3.')._repr_html_()
    Balanced(text)
    assert 'role="img" aria-label="It &quot;rises&quot; &lt; 3."' in text
    assert "<figcaption>A line.</figcaption>" in text
    assert "currentColor" in text
    assert "var(--paper" in text
    assert figures.INK not in text
    assert figures.PAPER not in text
    assert re.search(r"<text[^>]*>images seen</text>", text)  # text stays text
    assert ">a) nats &amp; bits<" in text
    assert "DejaVu" not in text
    assert "<style" not in text
    assert "<?xml" not in text
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", text)


def test_a_figure_is_the_same_bytes_each_time():
    assert line().svg == line().svg
    names = [set(re.findall(r'id="(p\w+)"', line(caption).svg)) for caption in ("One.", "Two.")]
    assert names[0]
    assert not names[0] & names[1]  # clip paths of two figures on one page


def test_ids_that_remain_are_used():
    svg = line().svg
    for name in re.findall(r' id="([^"]*)"', svg):
        assert f"#{name}" in svg


def test_the_bundle_carries_caption_alt_and_data():
    bundle = line()._repr_mimebundle_()
    shown = bundle[figures.MIME]
    assert shown == {
        "kind": "figure",
        "caption": "A line.",
        "alt": "It rises.",
        "data": {"y": [1.0, 3.0], "label": "β = 4"},
    }
    assert bundle["text/plain"] == "A line.\nIt rises."
    json.dumps(bundle, allow_nan=False)


@pytest.mark.parametrize(("caption", "alt"), [("", "It rises."), ("A line.", " ")])
def test_caption_and_alt_are_demanded(caption, alt):
    with pytest.raises(InputError, match="caption and an alternative text"):
        line(caption, alt)


def test_images_are_embedded_pixel_for_pixel():
    images = np.arange(6 * 3 * 4 * 5).reshape(6, 3, 4, 5) / 360
    with figures.style():
        fig, axes = figures.canvas()
        figures.show_images(axes, images, columns=3)
    text = figures.Figure(fig, "Images.", "Six.", {}).svg
    assert "image-rendering" in text
    sheet = embedded(text)
    sheet = sheet if (sheet[0, 0, :3] == np.rint(images[0, :, 0, 0] * 255)).all() else sheet[::-1]
    assert sheet.shape == (2 * 4 + 1, 3 * 5 + 2, 4)
    np.testing.assert_array_equal(sheet[5:9, 6:11, :3], np.rint(images[4] * 255).transpose(1, 2, 0))
    assert (sheet[4, :, 3] == 0).all()  # the gap shows the page


def test_tile_takes_tensors_and_grey_and_a_last_row_that_is_short():
    sheet = figures.tile(torch.ones(3, 1, 2, 2), columns=2, gap=0)
    assert sheet.shape == (4, 4, 4)
    assert (sheet[:2] == 255).all()
    assert (sheet[2:, :2] == 255).all()
    assert (sheet[2:, 2:] == 0).all()


@pytest.mark.parametrize("images", [np.zeros((2, 8, 8)), np.zeros((2, 2, 8, 8)), np.full((1, 1, 2, 2), np.nan)])
def test_images_of_another_form_are_refused(images):
    with pytest.raises(InputError, match="images must be finite"):
        figures.tile(images, 1)


def test_many_points_become_pixels():
    def size(count):
        with figures.style():
            fig, axes = figures.canvas()
            axes.scatter(*np.random.default_rng(0).normal(size=(2, count)), s=3)
        return figures.Figure(fig, "Points.", "A cloud.", {}).svg

    assert size(100).count("<use") > 100
    assert size(20_000).count("<use") < 100
    assert len(size(20_000)) < 300_000


def test_a_statement_is_built_from_its_numbers():
    said = figures.statement("β = {beta:g} loses {gap:.1f} of {elbo:.0f} nats.", beta=4.0, gap=3.14, elbo=-100)
    assert str(said) == "β = 4 loses 3.1 of −100 nats."
    assert said._repr_mimebundle_()[figures.MIME]["data"] == {"beta": 4.0, "gap": 3.14, "elbo": -100}
    assert figures.statement("{a} < 1", a=0)._repr_html_() == '<p class="statement">0 &lt; 1</p>'


@pytest.mark.parametrize("text", ["{gap}", "{beta:d}", "{", "{}"])
def test_a_statement_that_does_not_fit_is_refused(text):
    with pytest.raises(InputError, match="does not fit its numbers"):
        figures.statement(text, beta=4.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.1235"),
        (-41.2345, "−41.23"),
        (0.0, "0"),
        (-0.0, "0"),
        (1234.5678, "1,235"),
        (737280, "737,280"),
        (0.00012, "1.2e−4"),
        (np.float32(2.5), "2.500"),
        (float("nan"), "undefined"),
        (float("-inf"), "−∞"),
    ],
)
def test_numbers_read_well(value, text):
    assert figures.number(value) == text


def test_a_table_shows_every_cell_and_escapes():
    rows = [{"model": "a < b", "MIG": 0.25, "runs": 3}, {"model": "c", "MIG": None, "note": True}]
    table = figures.table(rows, "Scores.", formats={"MIG": ".1f"})
    text = table._repr_html_()
    Balanced(text)
    assert '<th scope="row">a &lt; b</th><td class="number">0.2</td><td class="number">3</td><td>–</td>' in text
    assert '<th scope="row">c</th><td class="number">–</td><td class="number">–</td><td>yes</td>' in text
    assert table._repr_mimebundle_()[figures.MIME]["data"] == rows
    assert "a < b  0.2  3     –" in str(table)


def test_a_table_needs_rows():
    with pytest.raises(InputError, match="has no rows"):
        figures.table([], "Nothing.")


def test_a_headline_has_exactly_its_columns():
    row = {"source": "us", "quantity": "ELBO", "ours": -1.5, "published": None}
    assert figures.headline([row]).columns == list(figures.HEADLINE)
    with pytest.raises(InputError, match="keys quantity, ours, published, source"):
        figures.headline([{"quantity": "ELBO"}])


def test_provenance_says_once_what_all_runs_share():
    rows = [{"run": f"vae-{seed}", "device": "cpu", "commit": "ab" * 20, "seed": seed} for seed in (0, 1)]
    text = figures.provenance(rows)._repr_html_()
    Balanced(text)
    assert '<p class="shared">device cpu · commit abababababab</p>' in text
    assert text.count("cpu") == 1
    assert "<td>" not in text.split("<tbody>")[0]
    assert "vae-1" in text


def test_numbers_given_as_text_stand_like_numbers():
    text = figures.table([{"model": "vae-2", "ELBO": "-41.2 ± 0.3"}, {"model": "a", "ELBO": "n/a"}], "T.")._repr_html_()
    assert '<th scope="row">vae-2</th><td class="number">−41.2 ± 0.3</td>' in text
    assert '<td class="number">n/a</td>' in text


def test_cells_spell_out_dicts():
    assert cell({"torch": "2.15", "seconds": 1.5}) == "torch 2.15, seconds 1.500"


class Pair(NamedTuple):
    a: float
    b: int


@dataclasses.dataclass
class Both:
    pair: Pair
    array: np.ndarray


def test_as_json_knows_what_notebooks_hold():
    data = {
        1: Both(Pair(1.5, 2), np.array([[1, 2]])),
        "tensor": torch.tensor([0.5, float("nan")]),
        "scalar": np.float32(0.1),
        "none": None,
        "flag": True,
        "path": TEMPLATES,
    }
    plain = as_json(data)
    json.dumps(plain, allow_nan=False)
    assert plain["1"] == {"pair": {"a": 1.5, "b": 2}, "array": [[1, 2]]}
    assert plain["tensor"] == [0.5, None]
    assert plain["scalar"] == pytest.approx(0.1)
    assert plain["path"] == str(TEMPLATES)


def test_a_player_holds_every_frame_once():
    frames = np.random.default_rng(0).random((10, 11, 1, 32, 32))
    steps = [f"{value:+.1f} σ" for value in np.linspace(-3, 3, 11)]
    shown = figures.player(frames, "Moves.", "Ten.", {}, labels=[f"z{i} <" for i in range(10)], steps=steps)
    text = shown._repr_html_()
    Balanced(text)
    sheet = embedded(text)
    assert sheet.shape == (10 * 32, 11 * 32, 4)
    np.testing.assert_array_equal(sheet[96:128, 160:192, 0], np.rint(frames[3, 5, 0] * 255))
    assert "z3 &lt;" in text
    assert "<output>+0.0 σ</output>" in text
    assert "<script" not in text
    assert "http" not in text
    assert len(text) < 1_000_000


def test_a_player_demands_a_label_for_each_strip():
    with pytest.raises(InputError, match=r"must be \(2 labels, 3 steps, c, h, w\)"):
        figures.player(np.zeros((2, 4, 1, 8, 8)), "Moves.", "Two.", {}, labels=["a", "b"], steps=["1", "2", "3"])
