"""The main job at its smallest: three notebooks into a site, once; and what every page of it keeps to."""

import base64
import csv
import html
import io
import json
import re
from itertools import pairwise

import pytest
from browser import Parsed

from vaestudy.claims import verify
from vaestudy.report import site

PAGES = ("index", "01_vae", "02_beta_vae", "03_nvae", "runs")
STAGES = PAGES[1:4]
# Names of columns and of Python, which no reader should meet outside of code.
RAW = re.compile(r"\b(?!β_norm|z_diff)[a-z]+(?:_[a-z0-9]+)+\b")
MINUS = re.compile(r"(?<![\w)\]./-])-\d")
DIGITS = re.compile(r"\d\.\d{6,}")
PLACEHOLDER = re.compile(r"\{\w*(?::[^}]*)?\}|\bnan\b|\bNone\b|\bNaN\b|undefined|\ue000|\ue002")


def seen(text):
    """The words of a page: no code, no scripts, no formulas, no embedded data; with alternative texts."""
    text = re.sub(r"<(script|style|math|pre|code|noscript)\b.*?</\1>", " ", text, flags=re.S)
    said = re.findall(r'(?:aria-label|aria-valuetext|alt)="([^"]*)"', text)
    return html.unescape(" ".join([re.sub(r"<[^>]+>", " ", text), *said]))


def test_the_smoke_study_makes_a_site_and_does_not_make_it_twice(smoke_report):
    assert {path.stem for path in smoke_report.glob("*.html")} == set(PAGES)
    results = json.loads((smoke_report / "results.json").read_text())
    assert set(results["notebooks"]) == set(STAGES)
    judged = {row["quantity"]: row["n"] for row in results["headline"]}
    assert list(judged.values()) == [2] * 5  # two seeds of gradients, and of each of four β
    assert verify(results, results).ok
    said = []
    site.study("smoke", smoke_report.parent, say=said.append)
    assert said[:-1] == [f"{name}.ipynb: up to date" for name in STAGES]


@pytest.mark.parametrize("page", PAGES)
def test_pages_speak_to_people(page, smoke_report):
    text = seen((smoke_report / f"{page}.html").read_text())
    for pattern in (RAW, MINUS, DIGITS, PLACEHOLDER):
        found = [text[max(0, match.start() - 50) : match.end() + 50] for match in pattern.finditer(text)]
        assert not found


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_small_and_need_no_network(page, smoke_report):
    text = (smoke_report / f"{page}.html").read_text()
    assert len(text) < 3e6
    assert "<script src" not in text
    assert "@import" not in text
    assert not re.search(r'(?:\bsrc=|\bhref=|url\()["\']?(?:https?:)?//', re.sub(r"<a [^>]*>", "", text))


@pytest.mark.parametrize("page", PAGES)
def test_pages_fit_phones_dark_rooms_and_paper(page, smoke_report):
    text = (smoke_report / f"{page}.html").read_text()
    for part in ('name="viewport"', "prefers-color-scheme: dark", "@media print"):
        assert part in text


@pytest.mark.parametrize("page", PAGES)
def test_pages_can_be_read_by_ear_and_by_keyboard(page, smoke_report):
    text = (smoke_report / f"{page}.html").read_text()
    Parsed(text)
    assert '<html lang="en">' in text
    levels = [int(level) for level in re.findall(r"<h(\d)", text)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert not re.search(r"<th[^>]*>\s*</th>", text)
    for part in ("<main ", "<header>", "<footer>"):
        assert text.count(part) == 1
    assert all("aria-label=" in tag for tag in re.findall(r"<nav[^>]*>", text))
    for tag in re.findall(r'<(?:div class="(?:wide|scroll)"|pre)[^>]*>', text):
        assert 'tabindex="0"' in tag


@pytest.mark.parametrize("page", PAGES)
def test_every_link_inside_of_the_site_leads_somewhere(page, smoke_report):
    text = (smoke_report / f"{page}.html").read_text()
    ids = re.findall(r' id="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|labelledby=")([^"]+)"', text)) <= set(ids)
    links = re.findall(r'<a[^>]* href="([^"#:]+)"', text)
    assert links
    for link in links:
        assert (smoke_report / link).is_file()


@pytest.mark.parametrize("page", STAGES)
def test_pages_open_with_their_answer_and_close_with_it(page, smoke_report):
    text = (smoke_report / f"{page}.html").read_text()
    title, answer, picture = (text.index(part) for part in ("<h1", "<b>The answer.</b>", 'class="picture"'))
    assert title < answer < picture < text.index("<h2")
    assert text.index("What would change it.") > text.index('class="claims"')
    assert "these models have learnt nothing" in text[:picture]
    said = re.findall(r"<b>The answer.</b> (.*?)</p>", text)
    assert len(said) == 2
    assert said[0] == said[1]


@pytest.mark.parametrize("page", STAGES)
def test_every_figure_has_an_address_its_data_and_its_call(page, smoke_report):
    text = (smoke_report / f"{page}.html").read_text()
    found = re.findall(r'<figure class="(?!picture)\w+" id="([^"]+)">(.*?)</figure>', text, re.S)
    assert len(found) > 8
    for name, inner in found:
        assert f'href="#{name}"' in inner
        assert "<summary>call</summary>" in inner
        data = re.search(rf'download="{name}.csv" href="data:text/csv;base64,([^"]*)"', inner)[1]
        assert len(list(csv.reader(io.StringIO(base64.b64decode(data).decode())))) > 1


def test_every_model_behind_the_report_has_a_row(smoke_report):
    text = html.unescape((smoke_report / "runs.html").read_text())
    notebooks = json.loads((smoke_report / "results.json").read_text())["notebooks"]
    for page in STAGES:
        rows = {of["kind"]: of["data"] for of in notebooks[page]["shown"] if of["kind"] in ("provenance", "records")}
        assert rows["provenance"]
        for row in rows["provenance"]:
            assert f"<code>{row['run']}</code>" in text
        models = sum(row["models"] for row in rows["records"])
        assert f"{models} models of this page's claims" in text
        for row in rows["records"]:
            assert row["experiment"] in text
            assert row["file"] in text
        if page == "02_beta_vae":
            sweep = [row for row in rows["records"] if row["experiment"] in ("sweep over β", "further β")]
            seeds = {(row["latent_dim"], row["beta"]): row["models"] for row in sweep}
            assert sum(seeds.values()) == len(rows["provenance"])


@pytest.mark.parametrize("page", STAGES)
def test_no_two_figures_share_a_caption(page, smoke_report):
    shown = json.loads((smoke_report / "results.json").read_text())["notebooks"][page]["shown"]
    captions = [of["caption"] for of in shown if of["kind"] in ("figure", "player", "decoder")]
    assert len(set(captions)) == len(captions) > 4


def test_letters_in_figures_are_large_enough_on_a_phone(smoke_report):
    """A figure that is wider than a phone scrolls: 11 pixels at its least width, and the region takes the focus."""
    for page in STAGES:
        for svg in re.findall(r"<svg viewBox.*?</svg>", (smoke_report / f"{page}.html").read_text(), re.S):
            width, least = (float(re.search(what, svg)[1]) for what in (r'viewBox="0 0 ([\d.]+)', r"min-width:(\d+)px"))
            sizes = [float(size) for size in re.findall(r"font: ([\d.]+)px", svg)]
            sizes += [float(size) for size in re.findall(r"font-size: ?([\d.]+)px", svg)]
            assert sizes or "<text" not in svg
            assert all(size * least / width > 10.9 for size in sizes), page
