"""What a notebook shows: figures, tables, statements and players, whatever they are of."""

import base64
import io
import itertools
import json
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from browser import Parsed
from PIL import Image
from small_training import noise

from vaestudy import experiments, figures
from vaestudy.data import Factors
from vaestudy.errors import InputError
from vaestudy.figures import charts, draw
from vaestudy.figures.charts import interval
from vaestudy.figures.figure import as_json
from vaestudy.figures.table import cell


@figures.style()
def line(caption="A line.", alt="It rises.", label="β = 4"):
    fig, axes = figures.canvas(width=5, height=3)
    axes.plot([0, 1], [1, 3], label=label)
    axes.scatter([0.5], [2], color=figures.PAPER, edgecolor=figures.INK)
    axes.set(xlabel="images seen", ylabel=label, title="a) nats & bits")
    axes.legend()
    return figures.Figure(fig, caption, alt, {"y": np.array([1.0, 3.0]), "label": label})


def embedded(text):
    data = re.search(r"data:image/png;base64,([A-Za-z0-9+/=\s]+)", text)[1]
    return np.array(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))


def luminance(colour):
    srgb = np.array(matplotlib.colors.to_rgb(colour))
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def test_every_colour_has_the_contrast_that_wcag_asks_of_graphics_on_both_papers():
    for paper, colour in itertools.product(("#ffffff", "#16181b"), [*figures.PALETTE, *figures.ramp(6)]):
        darker, brighter = sorted(map(luminance, (paper, colour)))
        assert (brighter + 0.05) / (darker + 0.05) >= 3, (paper, colour)


def test_the_places_in_a_figure_have_two_decimals_and_its_words_all_of_them():
    with figures.style():
        fig, axes = figures.canvas()
        axes.plot([0, 1 / 3], [0, 2 / 7], "o", label="0.123456")
        axes.legend()
    svg = figures.Figure(fig, "A point.", "It is there.", {}).svg
    assert not re.search(r' [dxy]="[^"]*[.]\d{3}', svg)
    assert ">0.123456<" in svg


def test_a_figure_is_an_accessible_svg_in_the_colours_of_the_page():
    before = dict(matplotlib.rcParams)
    text = line(alt='It "rises" < 3.')._repr_html_()
    assert dict(matplotlib.rcParams) == before
    Parsed(text)
    assert 'role="img" aria-label="It &quot;rises&quot; &lt; 3."' in text
    assert "<figcaption>A line.</figcaption>" in text
    assert re.search(r"<text[^>]*>images seen</text>", text)  # text stays text
    assert ">a) nats &amp; bits<" in text
    assert {"currentColor", "var(--paper"} <= set(re.findall(r"currentColor|var\(--paper", text))
    for foreign in (figures.INK, figures.PAPER, "DejaVu", "<style", "<?xml"):
        assert foreign not in text
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", text)


def test_a_figure_is_the_same_bytes_each_time_and_shares_no_id_with_another():
    one, other = line("One.").svg, line("Two.").svg
    assert line("One.").svg == one
    ids, others = (re.findall(r' id="([^"]*)"', svg) for svg in (one, other))
    assert ids
    assert not set(ids) & set(others)
    assert set(ids) == set(re.findall(r'(?:url\(|href=")#([\w-]+)', one))


def test_the_bundle_carries_caption_alt_and_data():
    bundle = line()._repr_mimebundle_()
    data = {"y": [1.0, 3.0], "label": "β = 4"}
    assert bundle[figures.MIME] == {"kind": "figure", "caption": "A line.", "alt": "It rises.", "data": data}
    assert bundle["text/plain"] == "A line.\nIt rises."
    json.dumps(bundle, allow_nan=False)


@pytest.mark.parametrize(("caption", "alt"), [("", "It rises."), ("A line.", " ")])
def test_caption_and_alt_are_demanded(caption, alt):
    with pytest.raises(InputError, match="alternative text"):
        line(caption, alt)


def test_images_are_embedded_pixel_for_pixel_with_gaps_that_show_the_page():
    images = np.arange(5 * 3 * 4 * 5).reshape(5, 3, 4, 5) / 300
    text = charts.image_grid(images, 3, "Images.", "Five.", {}).svg
    assert "image-rendering" in text
    sheet = embedded(text)
    sheet = sheet if (sheet[0, 0, :3] == np.rint(images[0, :, 0, 0] * 255)).all() else sheet[::-1]
    assert sheet.shape == (2 * 4 + 1, 3 * 5 + 2, 4)
    np.testing.assert_array_equal(sheet[5:9, 6:11, :3], np.rint(images[4] * 255).transpose(1, 2, 0))
    assert (sheet[4, :, 3] == 0).all()
    assert (sheet[5:, 12:, 3] == 0).all()  # the last row is short
    grey = draw.tile(draw.rgba(torch.ones(3, 1, 2, 2)), columns=2)
    np.testing.assert_array_equal(grey[..., 3] > 0, [[1, 1, 0, 1, 1]] * 2 + [[0] * 5] + [[1, 1, 0, 0, 0]] * 2)


@pytest.mark.parametrize("images", [np.zeros((2, 8, 8)), np.zeros((2, 2, 8, 8)), np.full((1, 1, 2, 2), np.nan)])
def test_images_of_another_form_are_refused(images):
    with pytest.raises(InputError, match="images must be finite"):
        draw.rgba(images)


def test_many_points_become_pixels():
    def svg(count):
        with figures.style():
            fig, axes = figures.canvas()
            axes.scatter(*np.random.default_rng(0).normal(size=(2, count)), s=3)
        return figures.Figure(fig, "Points.", "A cloud.", {}).svg

    assert svg(100).count("<use") > 100
    assert svg(20_000).count("<use") < 100
    assert len(svg(20_000)) < 300_000


def test_lines_of_one_colour_differ_in_their_dashes():
    table = pd.DataFrame({f"line {i}": [i, i + 1] for i in range(9)}, index=[1, 2])
    drawn = charts.lines(table, "x", "line", "y", "Lines.", "Nine.").fig.axes[0].lines
    looks = [(line.get_color(), line.get_linestyle()) for line in drawn if len(line.get_xdata()) == 2]
    assert len(looks) == len(set(looks)) == 9


def test_the_interval_is_students():
    # Mean 2, standard error 1/√3, and t of 2 degrees of freedom is 4.3027 at 97.5 %.
    assert interval(pd.Series([1.0, 2.0, 3.0])) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)


def observations(counts, panels="a"):
    rows = [{"beta": beta, "score": 0.1 * n, "of": of} for beta, k in counts.items() for n in range(k) for of in panels]
    return pd.DataFrame(rows)


def test_every_trained_value_is_named_on_a_logarithmic_axis():
    for betas in ((1, 4, 8, 32), (0.5, 1, 2, 4, 8, 16, 32, 64), (0.1, 0.5, 1, 4, 10, 40, 100, 400)):
        models = observations(dict.fromkeys(betas, 1), "abc")
        shown = charts.curves(models, "beta", "score", "Scores.", "Flat.", panel="of")
        for ax in shown.fig.axes:
            assert [tick.get_text() for tick in ax.get_xticklabels()] == [f"{beta:g}" for beta in betas]
            shown.fig.draw_without_rendering()
            boxes = [tick.get_window_extent() for tick in ax.get_xticklabels()]
            assert all(left.x1 <= right.x0 + 2 for left, right in itertools.pairwise(boxes))


def test_an_interval_stands_where_three_models_or_more_do():
    shown = charts.curves(observations({1: 3, 4: 2, 8: 5, 32: 1}), "beta", "score", "Scores.", "They rise.")
    bars = [path for bars in shown.fig.axes[0].collections for path in bars.get_segments()]
    assert [path[0][0] for path in bars if len(path) and np.isfinite(path).all()] == pytest.approx([1, 8])


def test_records_are_told_by_setting():
    known = {"part": "sweep32", "piece": "00", "data": "dsprites", "latent_dim": 10, "schedule": None}
    models = pd.DataFrame([known | {"beta": b, "seed": s, "seconds": 1.5} for b in (1.0, 4.0) for s in range(3)])
    shown = figures.records(models)
    first = {"experiment": "sweep over β", "data": "dsprites", "latent_dim": 10, "beta": 1.0}
    cost = {"models": 3, "seconds": 4.5, "file": "records/sweep32-00.jsonl"}
    assert shown.data[0] == {**first, "seeds": "0 to 2", **cost}
    assert [row["beta"] for row in shown.data] == [1, 4]
    assert "<code>records/sweep32-00.jsonl</code>" in figures.table(shown.data, "Models.")._repr_html_()
    assert figures.records(models[:0]).data == []


def test_a_whole_number_stays_one_beside_records_that_lack_it():
    about = {"part": "sweep32", "piece": "00", "seconds": 1.5, "seed": 0}
    shown = figures.records(pd.DataFrame([{**about, "batch_size": 32, "beta": 0.5}, {**about, "beta": 4.0}]))
    assert shown.data[0]["batch_size"] == 32
    assert "32.00" not in shown.markup
    assert [row["beta"] for row in shown.data] == [0.5, 4]


def test_a_statement_is_built_from_its_numbers():
    said = figures.statement("β = {beta:g} loses {gap:.1f} of {elbo:.0f} nats in vae-2.", beta=4.0, gap=3.14, elbo=-100)
    assert str(said) == "β = 4 loses 3.1 of −100 nats in vae-2."
    assert said._repr_mimebundle_()[figures.MIME]["data"] == {"beta": 4.0, "gap": 3.14, "elbo": -100}
    assert figures.statement("{a} < 1e{b}", a=0, b=-5)._repr_html_() == '<p class="statement">0 &lt; 1e−5</p>'


@pytest.mark.parametrize("text", ["{gap}", "{beta:d}", "{}"])
def test_a_statement_that_does_not_fit_is_refused(text):
    with pytest.raises(InputError, match="does not fit"):
        figures.statement(text, beta=4.0)


def test_a_table_shows_every_cell_and_escapes():
    rows = [
        {"model": "a < b", "MIG": 0.25, "ELBO": "-41.2 ± 0.3", "runs": 3},
        {"model": "", "MIG": None, "ELBO": "n/a", "note": True},
    ]
    table = figures.table(rows, "Scores.", formats={"MIG": ".1f"})
    text = table._repr_html_()
    Parsed(text)
    number = '<td class="number">'
    assert f'<tr><th scope="row">a &lt; b</th>{number}0.2</td>{number}−41.2 ± 0.3</td>{number}3</td><td>–</td>' in text
    # No empty headers: what names no row is a cell.
    assert f"<tr><td></td>{number}–</td>{number}n/a</td>{number}–</td><td>yes</td>" in text
    assert text.count('<th scope="col"') == 5
    assert table._repr_mimebundle_()[figures.MIME]["data"] == rows
    assert re.search(r"a < b +0.2 +−41.2 ± 0.3 +3 +–", str(table))
    assert figures.table(pd.DataFrame(rows[:1]), "Scores.").data == rows[:1]
    with pytest.raises(InputError, match="has no rows"):
        figures.table([], "Nothing.")


def test_a_reference_that_all_rows_share_is_said_once():
    rows = [{"code": name, "score": score, "chance": 0.25} for name, score in (("PCA", 0.5), ("VAE", 0.6))]
    rows[1]["ceiling"] = 1.0
    said = {"chance": "score of guessing", "ceiling": "of the true factors"}
    shown = figures.table(rows, "Codes.", formats={"chance": ".2f"}, once=said)
    assert '<p class="shared">score of guessing 0.25</p>' in shown.markup
    assert re.findall(r"<th[^>]*>([^<]+)<", shown.markup)[:3] == ["code", "score", "ceiling"]
    assert shown.data == rows
    assert "chance" in figures.table(rows, "Codes.").markup


def test_a_headline_has_exactly_its_columns():
    row = {"source": "us", "quantity": "ELBO", "ours": -1.5, "published": None}
    assert list(figures.headline([row]).data[0]) == list(figures.HEADLINE)
    with pytest.raises(InputError, match="quantity"):
        figures.headline([{"quantity": "ELBO"}])


def test_provenance_says_once_what_all_runs_share():
    rows = [{"seed": seed, "device": "cpu", "commit": "ab" * 20, "run": f"vae-{seed}"} for seed in (0, 1)]
    text = figures.provenance(rows)._repr_html_()
    Parsed(text)
    assert '<p class="shared">device cpu · commit abababababab</p>' in text
    assert text.count("cpu") == 1
    assert '<th scope="row"><code>vae-1</code></th><td class="number">1</td>' in text
    assert str(figures.provenance(rows[:1])) == "The runs behind this page."
    assert cell({"torch": "2.15", "seconds": 1.5}) == "torch 2.15, seconds 1.500"


def test_letters_that_the_font_lacks_are_the_browser_s(tmp_path):
    script = (
        "from vaestudy import figures\n"
        "with figures.style():\n    fig, axes = figures.canvas()\n    axes.set(title='明るさ 🙂')\n"
        "print('明るさ 🙂' in figures.Figure(fig, 'A.', 'B.', {}).svg)"
    )
    run = subprocess.run([sys.executable, "-X", "utf8", "-c", script], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("True\n", "")


class Pair(NamedTuple):
    a: float
    b: int


@dataclass
class Both:
    pair: Pair
    array: np.ndarray


def test_as_json_knows_what_notebooks_hold():
    data = {1: Both(Pair(1.5, 2), np.array([[1, 2]])), "tensor": torch.tensor([0.5, float("nan")]), "none": None}
    data |= {"scalar": np.float32(0.1), "flag": np.True_, "rows": pd.DataFrame({"a": [1, 2]}), "path": Path("a")}
    plain = as_json(data)
    json.dumps(plain, allow_nan=False)
    assert plain["1"] == {"pair": [1.5, 2], "array": [[1, 2]]}
    assert plain["tensor"] == [0.5, None]
    assert plain["scalar"] == pytest.approx(0.1)
    assert plain["flag"] is True
    assert plain["rows"] == [{"a": 1}, {"a": 2}]
    assert plain["path"] == "a"


def test_a_player_holds_every_frame_once_and_opens_where_no_strip_is_empty():
    frames = np.random.default_rng(0).random((10, 11, 1, 32, 32))
    frames[4, [5, 6, 7]] = 0
    frames[:, 8] = np.arange(32) % 2  # the most contrast there is
    steps = [f"{value:+.1f} σ" for value in np.linspace(-3, 3, 11)]
    labels = [f"z{i} <" for i in range(10)]
    text = figures.player(frames, "Moves.", "Ten.", {}, labels=labels, steps=steps, slider="value of z")._repr_html_()
    Parsed(text)
    sheet = embedded(text)
    assert sheet.shape == (10 * 32, 11 * 32, 4)
    np.testing.assert_array_equal(sheet[96:128, 160:192, 0], np.rint(frames[3, 5, 0] * 255))
    assert 'style="--f:8;' in text
    assert 'value="8" aria-label="value of z" aria-valuetext="+1.8 σ"' in text
    assert "<output>+1.8 σ</output>" in text
    assert "−3.0 σ\n−2.4 σ" in text
    assert "setAttribute('aria-valuetext'" in text
    assert "z3 &lt;" in text
    assert "<script" not in text
    assert "http" not in text
    with pytest.raises(InputError, match="10 labels, 2 steps"):
        figures.player(frames, "Moves.", "Two.", {}, labels=labels, steps=["1", "2"])


BAD = '$\\frac{$<script>alert(1)</script>"onload="alert(2)" \' ]]> --> &amp; {x}'
OTHER = BAD + " too"


def named_badly():
    """An output of every kind whose names are markup: of titles and axes, lines, maps, legends, cells and sentences."""
    seen = replace(noise(count=40), factors_of_rows=Factors((BAD, OTHER), (3, 3), np.arange(80).reshape(40, 2) % 3))
    codes, factors = np.random.default_rng(0).normal(size=(40, 2)), np.random.default_rng(0).integers(0, 3, (40, 4))
    yield line(BAD, BAD, label=BAD)
    yield figures.factors_over_beta(pd.DataFrame({BAD: [0.9, 0.1], OTHER: [0.8, 0.7]}, index=[1.0, 4.0]))
    yield figures.information({BAD: np.array([[0.9, 0.1], [0.2, 0.8]])}, (BAD, OTHER))
    yield figures.latent_responses(codes, factors, [0, 1], (BAD, OTHER, "c", "d"))
    yield figures.table(experiments.vae.factors_table(seen), BAD)
    yield figures.provenance([{"run": BAD, "data": {BAD: BAD}}, {"run": "b", "data": {BAD: BAD}}])
    yield figures.statement("{name}", name=BAD)
    yield figures.player(np.zeros((1, 1, 1, 8, 8)), BAD, BAD, {}, labels=[BAD], steps=[BAD])


@pytest.mark.filterwarnings("ignore:constrained_layout not applied")  # for names as long as these
def test_markup_in_names_is_text_in_every_figure():
    """Names from files, labels and tables are data: no element, no attribute, no formula of theirs."""
    for shown in named_badly():
        found = Parsed(shown._repr_html_())
        assert "script" not in found.tags
        assert "onload" not in found.attributes
        text = found.text + " ".join(map(str, found.attributes.values()))
        assert "$\\frac{$<script>alert(1)</script>" in text
