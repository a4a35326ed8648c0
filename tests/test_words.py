"""Names, numbers and verdicts in words, and the answers that are made of them."""

import numpy as np
import pytest

from vaestudy import claims, figures, words
from vaestudy.errors import InputError
from vaestudy.experiments import evidence
from vaestudy.figures.answer import FORMS


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.1235"),
        (0.99999, "1.000"),
        (-41.2345, "−41.23"),
        (-0.0, "0"),
        (1234.5678, "1,235"),
        (-737280, "−737,280"),
        (0.00012, "1.2e−4"),
        (np.float32(2.5), "2.500"),
        (np.int64(7), "7"),
        (float("nan"), "undefined"),
        (float("-inf"), "−∞"),
    ],
)
def test_numbers_read_well(value, text):
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("value", "interval", "text"),
    [
        (0.14123, (-0.0550, 0.222), "0.14 [−0.06, 0.22]"),
        (4.0123, (3.92, 4.11), "4.01 [3.92, 4.11]"),
        (-123.456, (-160.1, -90.2), "−123 [−160, −90]"),
        (-0.0004, (-0.0312, 0.0301), "0.000 [−0.031, 0.030]"),
        (2.0, (2.0, 2.0), "2.00 [2.00, 2.00]"),
    ],
)
def test_an_effect_has_the_digits_that_its_interval_carries(value, interval, text):
    assert words.with_interval(value, interval) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("elbo_nats", "ELBO, nats"),
        ("some_new_score", "some new score"),
        ("What anyone calls it_self", "What anyone calls it_self"),
    ],
)
def test_names_become_labels(name, text):
    assert words.label(name) == text


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("elbo_nats of -3 in vae-2 at 1e-5", "ELBO, nats of −3 in vae-2 at 1e−5"),
        ("dsprites 32x32, 1x2x3, x 0.9, y 0.8, vae-2x3", "dSprites 32 × 32, 1 × 2 × 3, x 0.9, y 0.8, vae-2x3"),
        ("-0.00 and -0.001", "0.00 and −0.001"),
    ],
)
def test_hyphens_before_numbers_become_minus_signs_and_sides_stand_apart(raw, text):
    assert words.readable(raw) == text


def test_numbers_of_things_and_lists_are_words():
    assert [words.counted(n, "seed") for n in (1, 2, 1000)] == ["1 seed", "2 seeds", "1,000 seeds"]
    assert [words.listed("abc"[:n]) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]
    assert [words.span(seeds) for seeds in ([0], [3, 1], [2, 0, 1], [0, 1, 3])] == [
        "0", "1 and 3", "0 to 2", "0, 1 and 3",
    ]  # fmt: skip
    assert words.spread(-0.5, 0.049, 2) == "−0.50 ± 0.05"


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("laptop: no model has part = sizes", "laptop: no model of the experiment “latent sizes”"),
        (
            "night: no model has batch_size = 100, part = samples, samples = 1",
            "night: no model of the experiment “noise samples a step” has batch size = 100, samples = 1",
        ),
        (
            "night: no model has part = hierarchy, schedule = top_first",
            "night: no model of the experiment “β in a hierarchy” has schedule = top first",
        ),
        (
            "night: too few values of beta where latent_dim = 10, part = sweep32",
            "night: too few values of β where latents M = 10 (experiment “sweep over β”)",
        ),
        ("laptop: not counted: elbo chooses beta = 1.0", "laptop: not counted: the bound chooses β = 1"),
        ("laptop: too few values of beta: 1.0, 0.5", "laptop: too few values of β: 1, 0.5"),
        ("so few models cannot reach the level 0.0071", "so few models cannot reach the level 0.0071"),
    ],
)
def test_reasons_have_no_names_of_columns(reason, said):
    assert words.reason(reason) == said
    assert words.how_sure(claim("2.1", "not tested", reason=reason)) == said


def test_every_experiment_has_a_name_in_words():
    assert set(words.PARTS) == set(evidence.PARTS)


@pytest.mark.parametrize(
    ("values", "places"),
    [
        ([0.774, 0.5], 3),
        ([109.83, 40.5], 1),
        ([5.25, 0.3], 2),
        ([13303.0, 0.5], None),
        ([1, 2], None),
        ([None, 0.25], 3),
    ],
)
def test_the_numbers_of_a_column_share_their_decimals(values, places):
    assert words.column(values) == places


def claim(name, verdict, **changes):
    row = {"id": name, "claim": "It helps", "source": "us", "n": 10, "effect": 0.1412, "interval": (0.021, 0.259)}
    row |= {"verdict": verdict, "decidable": False, "unit": "score", "exploratory": False, "reason": None}
    return row | {"smallest_visible": 0.25, "published": None} | changes


PRIMARY = {entry.id for entry in claims.CATALOGUE if entry.primary}


def test_every_primary_claim_has_its_three_sentences():
    assert set(FORMS) == PRIMARY
    for forms in FORMS.values():
        assert list(forms) == ["supported", "contradicted", "undecided"]
        assert len(set(forms.values())) == 3
        assert "open" in forms["undecided"]
        assert not any(form.endswith(".") or "{" in form for form in forms.values())


@pytest.mark.parametrize("name", ["1.1", "2.1", "3.5"])
@pytest.mark.parametrize(
    ("verdict", "note", "change", "count"),
    [
        ("supported", "; a tendency", "tendency", "1 supported; none of the verdicts for or against"),
        ("contradicted", "; a tendency", "tendency", "1 contradicted; none of the verdicts for or against"),
        ("undecided", "", "an effect of 0.25 would have shown", "1 undecided."),
    ],
)
def test_an_answer_says_what_a_claim_came_to(name, verdict, note, change, count):
    said = figures.answer([claim(name, verdict)])
    how = f"claim {name}; 0.14 [0.02, 0.26] score; 10 models a setting{note}"
    assert said.data["sentences"] == [f"{FORMS[name][verdict]} ({how})."]
    assert change in said.data["change"][0]
    assert count in said.data["sure"]
    for head in ("The question.", "The answer.", "How sure.", "What would change it."):
        assert f"<b>{head}</b>" in said._repr_html_()


UNTESTED = claim("2.4", "not tested", effect=None, interval=None)
SEVERAL = [
    *(claim(name, "supported", decidable=True) for name in ("2.1", "2.2", "2.3")),
    UNTESTED,
    claim("2.5", "not tested", published="contradicted"),
]


def test_an_answer_says_three_claims_at_most_and_what_was_not_tested():
    said = figures.answer(SEVERAL).data
    assert len(said["sentences"]) == 4
    assert "by the published evidence, not tested here" in said["sentences"][1]
    assert said["sentences"][-1] == "Not tested here: claim 2.4."
    assert "agree on 2.1 and 2.2" in said["change"][0]
    assert said["change"][-1] == "The night profile trains the models for 2.4."


def test_an_answer_names_the_models_shown():
    models = ["VAE (β = 1, 5 live)", "β-VAE (β = 8, 3 live)"]
    for rows, place in (([UNTESTED], 0), (SEVERAL, 3)):
        said = figures.answer(rows, models).data["sentences"]
        assert said[place].startswith(f"Shown: {models[0]} and {models[1]};")


def test_what_was_seen_without_a_claim_is_a_tendency_at_most():
    alone, beside = (figures.answer(rows, seen=["It moves."]).data for rows in ([UNTESTED], SEVERAL))
    assert alone["sentences"] == ["It moves.", "Not tested here: claim 2.4."]
    assert "no test has judged it" in alone["sure"]
    assert "without a claim" in alone["change"][-1]
    assert beside["sentences"][3] == "It moves."
    assert "no test has judged it" not in beside["sure"]


def test_an_answer_needs_primary_claims_and_marks_toy_sizes():
    assert "toy sizes" in figures.answer([claim("2.1", "supported", exploratory=True)]).data["sure"]
    with pytest.raises(InputError, match="primary claims"):
        figures.answer([claim("9.9", "supported")])


def test_a_verdict_says_whether_it_is_exploratory_or_interim():
    assert words.verdict(claim("2.1", "supported")) == "supported"
    assert "a tendency" in words.how_sure(claim("2.1", "supported"))
    assert words.verdict(claim("2.1", "supported", interim="4 of 20 seeds")) == "supported (interim, 4 of 20 seeds)"
    both = claim("2.1", "undecided", interim="4 of 20 seeds", exploratory=True)
    assert words.verdict(both) == "undecided (exploratory; interim, 4 of 20 seeds)"
    assert words.verdict(claim("2.1", "not tested", exploratory=True)) == "not tested"
    there = claim("2.1", "not tested", published="supported", published_interim="4 of 20 seeds")
    assert words.published(there) == "supported (interim, 4 of 20 seeds)"
    assert "not tested here; interim, 4 of 20 seeds)" in figures.answer([there]).data["sentences"][0]
    assert words.published(claim("2.1", "supported")) is None


def test_a_published_tendency_is_one_on_every_page():
    known = {"published": "supported", "published_interim": "4 of 20 seeds"}
    there = claim("2.1", "not tested", **known, published_decidable=False)
    assert words.published(there) == "supported (a tendency; interim, 4 of 20 seeds)"
    assert words.known_with_reservations(there) == words.published(there)
    answer = figures.answer([there]).data
    assert answer["sentences"][0].endswith("not tested here; a tendency; interim, 4 of 20 seeds).")
    assert answer["change"] == ["More models may turn what is a tendency: 2.1."]
    here = claim("2.1", "supported", **known, decidable=False, interim=None)
    assert words.known_with_reservations(here) == "supported (a tendency)"
    assert words.known_with_reservations(claim("2.1", "not tested")) == "not tested"
    sure = claim("2.1", "not tested", **known, published_decidable=True)
    assert "tendency" not in words.published(sure) + figures.answer([sure]).data["sentences"][0]
    assert figures.answer([sure]).data["change"][0].startswith("Other seeds and machines")
    undecided = claim("2.1", "not tested", published="undecided", published_decidable=False)
    assert words.published(undecided) == "undecided"
    assert figures.answer([undecided]).data["change"] == ["More models could decide what is open: 2.1."]


def test_where_nothing_was_tested_no_verdict_is_counted():
    assert words.verdicts([claim("3.1", "not tested"), claim("3.2", "not tested")]) == "Of 2 claims: 2 not tested."
    assert words.verdicts([claim("3.1", "not tested"), claim("3.2", "undecided")]).endswith("1 undecided.")
    assert words.verdicts([claim("3.1", "undecided"), claim("3.2", "supported")]).endswith("of the models.")
