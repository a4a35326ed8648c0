"""The README's numbers are those of the published report."""

import json
import re
from pathlib import Path

import pytest

from vaestudy import profiles, words

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


def test_what_a_piece_of_the_night_takes_is_what_its_records_say():
    section = (ROOT / "README.md").read_text().split("### The night")[1].split("\n## ")[0]
    shown = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:2] == "| "]
    parts = {name: sizes for stage in profiles.NIGHT.values() for name, sizes in stage.items()}
    assert {row[0] for row in shown[1:-1]} == set(parts)
    hours = 0.0
    for name, seeds, models, minutes, all_hours in shown[1:-1]:
        path = PUBLISHED / "night" / "records" / f"{name}-00.jsonl"
        records = [json.loads(line) for line in path.read_text().splitlines()]
        taken = sum(record["seconds"] for record in records) / 60
        hours += taken / 60 * parts[name]["seeds"] / len({record["seed"] for record in records})
        assert (int(seeds), int(models)) == (parts[name]["seeds"], len(records))
        assert minutes == words.fixed(taken, 1)
        assert float(all_hours) == pytest.approx(taken / 60 * parts[name]["seeds"] / 2, abs=0.051)
    assert float(shown[-1][-1]) == pytest.approx(hours, abs=0.051)


@pytest.mark.parametrize("profile", ["laptop", "night"])
def test_every_verdict_stands_in_the_readme_as_it_came_out(profile):
    readme = (ROOT / "README.md").read_text()
    claims = json.loads((PUBLISHED / profile / "results.json").read_text())["claims"]
    tested = [claim for claim in claims if claim["verdict"] != "not tested"]
    section = readme.split(f"<!-- {profile} -->\n")[1].split("\n\n")[0]
    assert len(section.splitlines()) == 2 + len(tested)
    for claim in tested:
        tendency = ", a tendency" * (claim["verdict"] != "undecided" and not claim["decidable"])
        interim = f", interim: {claim['interim']}" if claim["interim"] else ""
        result = f"{claim['n']} | {words.effect(claim)} | {claim['verdict']}{tendency}{interim}"
        assert f"| {claim['id']} {claim['claim']} ({claim['source']}) | {result} |" in section


def test_what_stands_beside_the_rise_stands_in_the_readme_too():
    readme = " ".join((ROOT / "README.md").read_text().split())
    shown = json.loads(RESULTS.read_text())["notebooks"]["02_beta_vae"]["shown"]
    said = [item["caption"] for item in shown if item["kind"] == "statement"]
    for part in ("live latents, ", "The paper's β-VAE is"):
        (sentences,) = [text for text in said if part in text and "Rank correlation" not in text]
        assert sentences in readme
    shown = json.loads(RESULTS.read_text())["notebooks"]["01_vae"]["shown"]
    answer = next(item["data"]["sentences"] for item in shown if item["kind"] == "answer")
    assert next(text for text in answer if text.startswith("The code of the VAE shown")) in readme


def test_what_the_night_found_of_hierarchies_stands_in_the_readme():
    readme = " ".join((ROOT / "README.md").read_text().split())
    results = json.loads((PUBLISHED / "night" / "results.json").read_text())
    said = [item["data"] for item in results["notebooks"]["03_nvae"]["shown"] if item["kind"] == "statement"]
    sentences = next(data["sentences"] for data in said if "sentences" in data)
    assert sentences[1] in readme
    by_id = {claim["id"]: claim for claim in results["claims"]}
    for name in ("3.2", "3.3", "3.4", "3.6", "3.7"):
        claim = by_id[name]
        assert f"{words.verdict(claim)}{', a tendency' * is_tendency(claim)}, claim {name}" in readme


def is_tendency(claim):
    return claim["verdict"] != "undecided" and not claim["decidable"]


def in_short(claim):
    return f"{words.effect(claim)}, {claim['verdict']}{' (a tendency)' * is_tendency(claim)}"


def test_the_claims_from_other_seeds_are_those_of_their_runs():
    runs = [json.loads(RESULTS.read_text()), *json.loads((PUBLISHED / "seeds.json").read_text())]
    by_id = [{claim["id"]: claim for claim in run["claims"]} for run in runs]
    section = (ROOT / "README.md").read_text().split("### Other seeds")[1].split("\n## ")[0]
    names, _, *rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    assert names[2:] == [f"from {run['first']}{', fp32' * (run['precision'] == 'fp32')}" for run in runs[1:]]
    tested = [name for name, claim in by_id[1].items() if claim["verdict"] != "not tested"]
    assert [row[0].split()[0] for row in rows] == tested
    for name, *cells in rows:
        for cell, claims in zip(cells, by_id, strict=True):
            assert cell == in_short(claims[name.split()[0]])
    pairs = [(claim, run[name]) for name, claim in by_id[0].items() if claim["decidable"] for run in by_id[1:]]
    assert all(ours["verdict"] == others["verdict"] for ours, others in pairs)  # none is reversed or undecided
    weaker = sum(is_tendency(others) for _, others in pairs)
    assert f"of {len(pairs)} comparisons {len(pairs) - weaker} are decided there too" in " ".join(section.split())


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
