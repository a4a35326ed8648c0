"""Names, numbers and verdicts in words, and the answers that are made of them."""

import itertools

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
        (-0.0004, (-0.0312, 0.0301), "−0.000 [−0.031, 0.030]".replace("−0.000", "0.000")),
        (2.0, (2.0, 2.0), "2.00 [2.00, 2.00]"),
    ],
)
def test_an_effect_has_the_digits_that_its_interval_carries(value, interval, text):
    assert words.with_interval(value, interval) == text


def test_names_become_labels_and_hyphens_minus_signs():
    assert words.label("elbo_nats") == "ELBO, nats"
    assert words.label("some_new_score") == "some new score"
    assert words.label("What anyone calls it_self") == "What anyone calls it_self"
    assert words.readable("elbo_nats of -3 in vae-2 at 1e-5") == "ELBO, nats of −3 in vae-2 at 1e−5"
    assert [words.counted(n, "seed") for n in (1, 2, 1000)] == ["1 seed", "2 seeds", "1,000 seeds"]
    assert [words.listed("abc"[:n]) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]
    assert (
        words.readable("dsprites 32x32, 1x2x3, x 0.9, y 0.8, vae-2x3")
        == "dSprites 32 × 32, 1 × 2 × 3, x 0.9, y 0.8, vae-2x3"
    )
    assert words.readable("-0.00 and -0.001") == "0.00 and −0.001"
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
        ("laptop: no model has part = faces", "laptop: no model of the experiment “sweep on rendered faces”"),
        ("laptop: too few values of beta: 1.0, 0.5", "laptop: too few values of β: 1, 0.5"),
        ("so few models cannot reach the level 0.0071", "so few models cannot reach the level 0.0071"),
    ],
)
def test_reasons_have_no_names_of_columns(reason, said):
    assert words.reason(reason) == said
    assert words.how_sure(claim("2.1", "not tested", reason=reason)) == said


def test_every_experiment_has_a_name_in_words():
    assert set(words.PARTS) == set(evidence.PARTS)
    said = {"0": [0], "1 and 3": [3, 1], "0 to 2": [2, 0, 1], "0, 1 and 3": [0, 1, 3]}
    assert [words.span(seeds) for seeds in said.values()] == list(said)


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


@pytest.mark.parametrize(("name", "place"), list(itertools.product(sorted(PRIMARY), range(3))))
def test_an_answer_says_what_a_claim_came_to(name, place):
    verdict = ("supported", "contradicted", "undecided")[place]
    said = figures.answer([claim(name, verdict)])
    assert said.data["sentences"] == [
        f"{FORMS[name][verdict]} (claim {name}; 0.14 [0.02, 0.26] score; 10 models a setting"
        f"{'; a tendency' if place < 2 else ''})."
    ]
    (change,) = said.data["change"]
    assert ("tendency" if place < 2 else "an effect of 0.25 would have shown") in change
    text = said._repr_html_()
    for part in ("The question.", "The answer.", "How sure.", "What would change it."):
        assert f"<b>{part}</b>" in text
    assert f"1 {verdict}{'; none of the verdicts for or against' if place < 2 else '.'}" in text


def test_an_answer_says_three_claims_at_most_and_what_was_not_tested():
    rows = [claim(name, "supported", decidable=True) for name in ("2.1", "2.2", "2.3")]
    rows += [
        claim("2.4", "not tested", effect=None, interval=None),
        claim("2.5", "not tested", published="contradicted"),
    ]
    said = figures.answer(rows)
    assert len(said.data["sentences"]) == 4
    assert "by the published evidence, not tested here" in said.data["sentences"][1]
    assert said.data["sentences"][-1] == "Not tested here: claim 2.4."
    assert "Other seeds and machines are expected to agree on 2.1 and 2.2" in said.data["change"][0]
    assert said.data["change"][-1] == "The night profile trains the models for 2.4."
    assert "open" not in figures.answer(rows[-1:]).data["sentences"][0]
    models = ["VAE (β = 1, 5 live)", "β-VAE (β = 8, 3 live)"]
    (shown,) = figures.answer([claim("2.4", "not tested", effect=None, interval=None)], models).data["sentences"][:1]
    assert shown == f"Shown: {models[0]} and {models[1]}; a latent of 0.05 nats or more is live."
    assert shown in figures.answer(rows, models).data["sentences"]
    assert len(figures.answer(rows, models).data["sentences"]) == 5
    assert "toy sizes" in figures.answer([claim("2.1", "supported", exploratory=True)]).data["sure"]
    untested = [claim("2.4", "not tested", effect=None, interval=None)]
    seen = figures.answer(untested, seen=["It moves."]).data
    assert seen["sentences"] == ["It moves.", "Not tested here: claim 2.4."]
    assert "a tendency at most: no test has judged it" in seen["sure"]
    assert seen["change"][-1] == "More seeds may turn what is said without a claim."
    assert figures.answer(rows, seen=["It moves."]).data["sentences"][3] == "It moves."
    assert "a tendency at most" not in figures.answer(rows, seen=["It moves."]).data["sure"]
    with pytest.raises(InputError, match="primary claims"):
        figures.answer([claim("9.9", "supported")])


def test_a_verdict_says_whether_it_is_exploratory_or_interim():
    assert words.verdict(claim("2.1", "supported")) == "supported"
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
