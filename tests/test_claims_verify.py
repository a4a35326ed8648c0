import math

import numpy as np
import pytest

from vaestudy.claims import verify
from vaestudy.errors import InputError


def results(claims: int = 12) -> dict:
    """A results.json with `claims` supported and decidable claims, one undecided, one contradicted, one not tested."""
    verdicts = [*["supported"] * claims, "undecided", "contradicted", "not tested"]
    return {
        "profile": "laptop",
        "version": "2",
        "claims": [
            {"id": f"9.{place}", "verdict": verdict, "decidable": place < claims}
            for place, verdict in enumerate(verdicts)
        ],
        "headline": [
            {"quantity": "bound", "mean": -35.12, "std": 0.4, "n": 10, "digits": 1},
            {"quantity": "score", "mean": 0.881, "std": 0.05, "n": 5, "digits": 2},
            {"quantity": "one model", "mean": 0.4, "std": None, "n": 1, "digits": 2},
            {"quantity": "a constant", "mean": 0.25, "std": 0.0, "n": 3, "digits": 2},
        ],
        "checksums": {"dsprites": "ab12", "faces": "cd34"},
    }


def changed(*verdicts: tuple[int, str]) -> dict:
    report = results()
    for place, verdict in verdicts:
        report["claims"][place]["verdict"] = verdict
    return report


def test_an_equal_report_is_verified():
    result = verify(results(), results())
    assert result.ok
    assert result.line == "verified: 15 of 15 claims agree, 0 weaker, 0 stronger; 3 of 3 numbers within"
    assert result.table["kind"].value_counts().to_dict() == {"claim": 15, "number": 4, "file": 2}
    assert result.table.query("what == 'one model'")["result"].item() == "not judged"


def binomial_tail(n: int, least: int) -> float:
    """The chance of `least` weakenings or more among n claims that each repeat with .95, by the definition."""
    return sum(math.comb(n, k) * 0.05**k * 0.95 ** (n - k) for k in range(least, n + 1))


def test_a_few_weaker_claims_are_chance_and_many_are_not():
    assert binomial_tail(12, 4) < 0.01 < binomial_tail(12, 3)
    for weaker in range(6):
        result = verify(changed(*((place, "undecided") for place in range(weaker))), results())
        assert (result.table["result"] == "weaker").sum() == weaker
        assert result.ok == (weaker <= 3)
    result = verify(changed((13, "undecided")), results())  # not decidable: may be weaker at any time
    assert result.ok
    assert "1 weaker" in result.line


def test_a_stronger_claim_is_no_fault():
    result = verify(changed((12, "supported")), results())
    assert result.ok
    assert "1 stronger" in result.line


@pytest.mark.parametrize(("place", "verdict"), [(0, "contradicted"), (13, "supported")])
def test_one_reversal_is_a_fault(place, verdict):
    result = verify(changed((place, verdict)), results())
    assert not result.ok
    assert result.line.startswith("not verified: 1 reversed (")
    assert result.table.query("result == 'reversed'")["what"].item() == f"9.{place}"


def test_numbers_are_held_against_the_interval_of_a_new_mean():
    half = 3.954 * 0.4 * math.sqrt(1 / 10 + 1 / 10)  # t of level 1 - .01/3, 9 degrees of freedom
    for step, ok in ((0.99 * half, True), (1.01 * half, False), (-1.01 * half, False)):
        report = results()
        report["headline"][0]["mean"] += step
        result = verify(report, results())
        assert result.ok == ok
        assert ("1 numbers outside" in result.line) != ok


def test_numbers_may_differ_within_the_printed_rounding_and_single_ones_at_all():
    report = results()
    report["headline"][3]["mean"] = 0.2549
    report["headline"][2]["mean"] = 0.9
    assert verify(report, results()).ok
    report["headline"][3]["mean"] = 0.2551
    assert not verify(report, results()).ok


def test_prediction_intervals_hold_all_numbers_of_99_in_100_runs():
    rng, outside, count = np.random.default_rng(0), 0, 300
    for _ in range(count):
        pair = [results(), results()]
        for number in range(2):
            for report in pair:
                values = rng.normal(0, 1, 4)
                entry = {"mean": float(values.mean()), "std": float(values.std(ddof=1)), "n": 4, "digits": 6}
                report["headline"][number] |= entry
        outside += not verify(*pair).ok
    assert outside <= 14  # binomial, .01 of 300: one in a million


def test_other_data_are_a_fault():
    report = results()
    report["checksums"]["faces"] = "cd35"
    result = verify(report, results())
    assert not result.ok
    assert "1 files that differ" in result.line


def damaged(path: tuple, value) -> dict:
    report = results()
    part = report
    for key in path[:-1]:
        part = part[key]
    if value is KeyError:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    return report


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (damaged(("profile",), "night"), "profile night .* laptop"),
        (damaged(("version",), "3"), "version 3"),
        (damaged(("claims",), KeyError), "'claims' is missing"),
        (damaged(("claims", 0, "verdict"), "true"), "entry 0 of 'claims' .* 'verdict'"),
        (damaged(("claims", 0, "verdict"), ["supported"]), "'verdict'"),
        (damaged(("claims", 2), "supported"), "entry 2 of 'claims' .* 'id'"),
        (damaged(("claims", 1, "id"), "9.0"), "'claims' .* twice"),
        (damaged(("headline", 0, "mean"), math.nan), "entry 0 of 'headline' .* 'mean'"),
        (damaged(("headline", 0, "std"), None), "'std'"),
        (damaged(("headline", 1, "n"), 0), "'n'"),
        (damaged(("headline", 1), KeyError), "half made.* score"),
        (damaged(("claims", 3), KeyError), r"half made.* 9\.3"),
        (damaged(("claims", 3, "verdict"), "not tested"), r"half made.* 9\.3"),
        (damaged(("checksums", "faces"), KeyError), "half made.* faces"),
        ({}, "damaged or no results.json"),
    ],
)
def test_a_damaged_or_other_report_is_refused_in_one_line(report, message):
    with pytest.raises(InputError, match=message) as error:
        verify(report, results())
    assert "\n" not in str(error.value)


def test_a_damaged_published_report_is_named():
    with pytest.raises(InputError, match="the published report is damaged"):
        verify(results(), damaged(("headline",), KeyError))
