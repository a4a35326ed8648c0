"""The README's numbers are those of the published report."""

import json
import re
from pathlib import Path

import pytest

from vaestudy import profiles, words

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SENTENCES = " ".join(README.split())
PUBLISHED = ROOT / "reports" / "published"


def section(start, end="\n## "):
    return README.split(start)[1].split(end)[0]


def cells(text):
    """The rows of the tables of a part of the README, without what is below their heads."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "]
    return rows[1:]


def shown(profile, kind, *stages):
    """What the published pages of a profile show of one kind, of all stages unless some are named."""
    notebooks = results(profile)["notebooks"]
    return [item for stage in stages or notebooks for item in notebooks[stage]["shown"] if item["kind"] == kind]


def results(profile):
    return json.loads((PUBLISHED / profile / "results.json").read_text())


def test_every_headline_number_stands_in_the_readme_as_it_came_out():
    rows = [row for item in shown("laptop", "headline") for row in item["data"]]
    assert len(rows) >= 6
    for row in rows:
        ours = row["ours"] if isinstance(row["ours"], str) else words.number(row["ours"])
        assert f"| {row['quantity']} | {ours} |" in README


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#:]+)\)|src=\"([^\":]+)\"", README))
def test_every_file_that_the_readme_names_is_there(path):
    assert (ROOT / (path[0] or path[1])).exists()


def test_the_published_site_is_small_and_whole():
    files = [path for path in PUBLISHED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 15e6
    assert {"index.html", "01_vae.html", "02_beta_vae.html", "03_nvae.html"} <= {path.name for path in files}
    assert not [path for path in files if path.suffix == ".ipynb"]


def test_what_a_piece_of_the_night_takes_is_what_its_records_say():
    *rows, total = cells(section("### The night"))
    parts = {name: sizes for stage in profiles.NIGHT.values() for name, sizes in stage.items()}
    assert {row[0] for row in rows} == set(parts)
    hours = 0.0
    for name, seeds, models, minutes, all_hours in rows:
        path = PUBLISHED / "night" / "records" / f"{name}-00.jsonl"
        records = [json.loads(line) for line in path.read_text().splitlines()]
        taken = sum(record["seconds"] for record in records) / 60
        hours += taken / 60 * parts[name]["seeds"] / len({record["seed"] for record in records})
        assert (int(seeds), int(models)) == (parts[name]["seeds"], len(records))
        assert minutes == words.fixed(taken, 1)
        assert float(all_hours) == pytest.approx(taken / 60 * parts[name]["seeds"] / 2, abs=0.051)
    assert float(total[-1]) == pytest.approx(hours, abs=0.051)


@pytest.mark.parametrize("profile", ["laptop", "night"])
def test_every_verdict_stands_in_the_readme_as_it_came_out(profile):
    tested = [claim for claim in results(profile)["claims"] if claim["verdict"] != "not tested"]
    table = section(f"<!-- {profile} -->\n", "\n\n")
    assert len(table.splitlines()) == 2 + len(tested)
    for claim in tested:
        tendency = ", a tendency" * is_tendency(claim)
        interim = f", interim: {claim['interim']}" if claim["interim"] else ""
        result = f"{claim['n']} | {words.effect(claim)} | {claim['verdict']}{tendency}{interim}"
        assert f"| {claim['id']} {claim['claim']} ({claim['source']}) | {result} |" in table


def test_what_stands_beside_the_rise_stands_in_the_readme_too():
    said = [item["caption"] for item in shown("laptop", "statement", "02_beta_vae")]
    for part in ("live latents, ", "The paper's β-VAE is"):
        (sentences,) = [text for text in said if part in text and "Rank correlation" not in text]
        assert sentences in SENTENCES
    (answer,) = shown("laptop", "answer", "01_vae")
    assert next(text for text in answer["data"]["sentences"] if text.startswith("The code of the VAE")) in SENTENCES


def test_what_the_night_found_of_hierarchies_stands_in_the_readme():
    said = [item["data"]["sentences"] for item in shown("night", "statement", "03_nvae") if "sentences" in item["data"]]
    assert said[0][1] in SENTENCES
    by_id = {claim["id"]: claim for claim in results("night")["claims"]}
    for name in ("3.2", "3.3", "3.4", "3.6", "3.7"):
        claim = by_id[name]
        assert f"{words.verdict(claim)}{', a tendency' * is_tendency(claim)}, claim {name}" in SENTENCES


def is_tendency(claim):
    return claim["verdict"] != "undecided" and not claim["decidable"]


def in_short(claim):
    return f"{words.effect(claim)}, {claim['verdict']}{' (a tendency)' * is_tendency(claim)}"


def test_the_claims_from_other_seeds_are_those_of_their_runs():
    runs = [results("laptop"), *json.loads((PUBLISHED / "seeds.json").read_text())]
    by_id = [{claim["id"]: claim for claim in run["claims"]} for run in runs]
    text = section("### Other seeds", "\n##")
    names, _, *rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    assert names[2:] == [f"from {run['first']}{', fp32' * (run['precision'] == 'fp32')}" for run in runs[1:]]
    tested = [name for name, claim in by_id[1].items() if claim["verdict"] != "not tested"]
    assert [row[0].split()[0] for row in rows] == tested
    for name, *cells in rows:
        for cell, claims in zip(cells, by_id, strict=True):
            assert cell == in_short(claims[name.split()[0]])
    pairs = [(claim, run[name]) for name, claim in by_id[0].items() if claim["decidable"] for run in by_id[1:]]
    assert all(ours["verdict"] == others["verdict"] for ours, others in pairs)  # none is reversed or undecided
    weaker = sum(is_tendency(others) for _, others in pairs)
    assert f"of {len(pairs)} comparisons {len(pairs) - weaker} are decided there too" in " ".join(text.split())


def test_the_hierarchy_on_new_seeds_is_as_its_run_says():
    run = json.loads((PUBLISHED / "seeds-hierarchy.json").read_text())
    night = {claim["id"]: claim for claim in results("night")["claims"]}
    rows = cells(section("### The hierarchy on new seeds", "\n##"))
    assert [name.split()[0] for name, *_ in rows] == [claim["id"] for claim in run["claims"]]
    for (_, before, now), claim in zip(rows, run["claims"], strict=True):
        assert (before, now) == (in_short(night[claim["id"]]), in_short(claim))
    assert all(claim["decidable"] for claim in run["claims"] if is_tendency(night[claim["id"]]))  # as the README says
    assert f"claim 3.3, and {run['claims'][0]['verdict']} by [{run['claims'][0]['n']} new models" in SENTENCES


def test_the_speeds_are_those_of_the_published_benchmark():
    measured = {row["name"]: row for row in json.loads((PUBLISHED / "bench-cpu.json").read_text())["rows"]}
    rows = cells(section("## How fast"))
    assert len(rows) >= 2
    for name, ours, beside, ratio in rows:
        row = measured[name]
        assert ours == f"{words.number(row['value'])} {row['unit']}"
        assert beside == f"{words.number(row['peer_value'])}: {row['peer']}"
        assert ratio == words.number(row["ratio"])
