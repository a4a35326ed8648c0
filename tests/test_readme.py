"""The README's numbers are those of the published report."""

import json
import re
from pathlib import Path

import pytest

from vaestudy import words

ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "reports" / "published"
RESULTS = PUBLISHED / "laptop" / "results.json"


def headline_rows():
    notebooks = json.loads(RESULTS.read_text())["notebooks"]
    shown = [item for notebook in notebooks.values() for item in notebook["shown"]]
    return [row for item in shown if item["kind"] == "headline" for row in item["data"]]


def test_every_headline_number_stands_in_the_readme_as_it_came_out():
    readme = (ROOT / "README.md").read_text()
    rows = headline_rows()
    assert len(rows) >= 6
    for row in rows:
        ours = row["ours"] if isinstance(row["ours"], str) else words.number(row["ours"])
        assert f"| {row['quantity']} | {ours} |" in readme


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#:]+)\)|src=\"([^\":]+)\"", (ROOT / "README.md").read_text()))
def test_every_file_that_the_readme_names_is_there(path):
    assert (ROOT / (path[0] or path[1])).exists()


def test_the_published_site_is_small_and_whole():
    files = [path for path in PUBLISHED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 15e6
    assert {"index.html", "01_vae.html", "02_beta_vae.html", "03_nvae.html"} <= {path.name for path in files}
    assert not [path for path in files if path.suffix == ".ipynb"]


def test_the_speeds_are_those_of_the_published_benchmark():
    measured = {row["name"]: row for row in json.loads((PUBLISHED / "bench-cpu.json").read_text())["rows"]}
    section = (ROOT / "README.md").read_text().split("## How fast")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "|" in line][2:]
    assert len(rows) >= 2
    for name, ours, beside, ratio in rows:
        row = measured[name]
        assert ours == f"{words.number(row['value'])} {row['unit']}"
        assert beside == f"{words.number(row['peer_value'])}: {row['peer']}"
        assert ratio == words.number(row["ratio"])
