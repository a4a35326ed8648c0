"""The claims of a page: what the table says follows from what `vaestudy.claims` found."""

import json

import numpy as np
import pandas as pd
import pytest

from vaestudy import claims, figures, settings, words
from vaestudy.errors import InputError
from vaestudy.experiments import beta_vae, evidence, sweep_tables


def sweep(rise, seeds=8, noise=0.02):
    """Records of a sweep whose scores rise with β by so much."""
    draw, rows = np.random.default_rng(0), []
    for seed in range(seeds):
        for beta in (1.0, 4.0, 16.0):
            shift = rise * np.log2(beta) / 4
            scores = {
                name: 0.4 + shift + noise * draw.normal() for name in ("higgins_1", "higgins_5", "higgins_64", "mig")
            }
            row = {"part": "sweep32", "piece": "00", "seed": seed, "cpu": "a", "record_version": 1, "metric_version": 1}
            row |= {"latent_dim": 10, "beta": beta, "nats": 10 - beta / 2, "nll_nats": 50 + beta, "live": 5 - beta // 8}
            rows.append(row | scores | {"elbo": -60 - beta, "weak_higgins_5": scores["higgins_5"], "factor_vae": 0.5})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def page():
    """The smoke profile's settings without its mark of toy sizes, and the claims of a clear rise."""
    chosen = settings.resolve("beta_vae", profile="laptop")
    return evidence.judge(chosen, sweep(0.4))


def test_a_clear_rise_is_supported_and_what_has_no_records_says_why(page):
    found = {claim["id"]: claim for claim in page}
    assert found["2.1"]["verdict"] == "supported"
    assert found["2.1"]["decidable"]
    assert not found["2.1"]["exploratory"]
    assert found["2.5"]["verdict"] == "not tested"
    assert {claim.page for claim in claims.CATALOGUE if claim.id in found} == {"02_beta_vae"}


def test_the_table_shows_every_claim_with_its_verdict_and_keeps_the_rows(page):
    shown = figures.claims(page)
    bundle = shown._repr_mimebundle_()
    json.dumps(bundle, allow_nan=False)
    kept = bundle[figures.MIME]
    assert kept["kind"] == "claims"
    assert [row["id"] for row in kept["data"]] == [row["id"] for row in page]
    assert "repeated in 95 % of resamples" in bundle["text/html"]
    assert "no model of the experiment “sweep on 64 × 64 pixels”" in bundle["text/html"]
    assert " supported" in shown.alt


def test_changed_parameters_and_toy_sizes_make_verdicts_exploratory():
    for given in ({"profile": "laptop", "network": "conv"}, {"profile": "laptop", "seed": 3}, {"profile": "smoke"}):
        found = evidence.judge(settings.resolve("beta_vae", **given), sweep(0.4))
        assert words.verdict(found[0]).startswith("supported (exploratory"), given


def test_the_published_verdict_stands_beside(tmp_path, monkeypatch):
    path = tmp_path / "reports" / "published" / "night" / "results.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"claims": [{"id": "2.5", "verdict": "contradicted"}]}))
    monkeypatch.setattr(evidence, "project_root", lambda: tmp_path)
    found = {claim["id"]: claim for claim in evidence.judge(settings.resolve("beta_vae", profile="laptop"), sweep(0.4))}
    assert found["2.5"]["published"] == "contradicted"
    assert found["2.1"]["published"] is None
    assert "contradicted" in figures.claims(list(found.values()))._repr_html_()


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ({"verdict": "supported", "decidable": True}, "repeated in 95 % of resamples"),
        ({"verdict": "contradicted", "decidable": False}, "a tendency"),
        ({"verdict": "undecided", "decidable": False, "reason": None, "smallest_visible": 0.25}, "an effect of 0.25"),
        ({"verdict": "not tested", "decidable": False, "reason": "laptop: no model"}, "laptop: no model"),
    ],
)
def test_how_sure_a_verdict_is(claim, said):
    assert said in words.how_sure(claim)


def test_what_are_no_claims_is_refused():
    for rows in ([], [{"id": "2.1"}]):
        with pytest.raises(InputError, match="claims are rows with the keys"):
            figures.claims(rows)


def test_the_table_of_a_sweep_comes_from_its_records(dsprites_dir):
    chosen = settings.resolve("beta_vae", profile="laptop")
    whole = beta_vae.images(settings.resolve("beta_vae", profile="smoke"))
    table = beta_vae.sweep_table(chosen, sweep(0.4), whole)
    assert table["score"].equals(table["higgins_5"])
    assert table["beta_norm"].iloc[0] == 10 / 256
    assert sweep_tables.best_beta(table) == 16
    by_live = sweep_tables.by_live_latents(table)
    assert by_live["models"].sum() == len(table)
    assert by_live["live latents"].tolist() == [3, 5, 5]
    with pytest.raises(InputError, match="L = 7"):
        beta_vae.sweep_table(settings.resolve("beta_vae", pairs=7), sweep(0.4), whole)


def test_sets_without_known_factors_are_refused_before_any_work(tmp_path):
    (tmp_path / "a.png").write_text("never opened")
    with pytest.raises(InputError, match="no factors are known of folder"):
        beta_vae.check(settings.resolve("beta_vae", dataset="folder", data_dir=str(tmp_path)))
