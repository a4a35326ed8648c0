"""The claims of a page: what the table says follows from what `vaestudy.claims` found."""

import json

import pytest
from test_claims import sweep

from vaestudy import claims, figures, settings, words
from vaestudy.errors import InputError
from vaestudy.experiments import beta_vae, evidence, sweep_tables


@pytest.fixture(scope="module")
def records():
    """The sweep with the pilot's numbers, at three β."""
    return sweep(10).query("beta in (1, 4, 16)")


@pytest.fixture(scope="module")
def page(records):
    """The claims of the laptop's page, in which β > 1 scores better."""
    return evidence.judge(settings.resolve("beta_vae", profile="laptop"), records)


def test_a_page_judges_its_own_claims(page):
    assert [claim["id"] for claim in page] == [own.id for own in claims.CATALOGUE if own.page == "02_beta_vae"]
    assert page[0]["verdict"] == "supported"
    assert not any(claim["exploratory"] for claim in page)


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


@pytest.mark.parametrize("given", [{"network": "conv"}, {"seed": 3}, {"profile": "smoke"}])
def test_changed_parameters_and_toy_sizes_make_verdicts_exploratory(given, records):
    found = evidence.judge(settings.resolve("beta_vae", **{"profile": "laptop"} | given), records)
    assert words.verdict(found[0]).startswith("supported (exploratory")


def test_the_published_verdict_stands_beside(records, tmp_path, monkeypatch):
    path = tmp_path / "reports" / "published" / "night" / "results.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"claims": [{"id": "2.5", "verdict": "contradicted"}]}))
    monkeypatch.setattr(evidence, "project_root", lambda: tmp_path)
    found = {claim["id"]: claim for claim in evidence.judge(settings.resolve("beta_vae", profile="laptop"), records)}
    assert found["2.5"]["published"] == "contradicted"
    assert found["2.1"]["published"] is None
    assert "contradicted" in figures.claims(list(found.values()))._repr_html_()


def test_what_are_no_claims_is_refused():
    for rows in ([], [{"id": "2.1"}]):
        with pytest.raises(InputError, match="claims are rows with the keys"):
            figures.claims(rows)


def test_the_table_of_a_sweep_comes_from_its_records(records, dsprites_dir):
    chosen = settings.resolve("beta_vae", profile="laptop")
    whole = beta_vae.images(settings.resolve("beta_vae", profile="smoke"))
    records = records.assign(nll_nats=50 + records["beta"], live=5 - records["beta"] // 8, factor_vae=0.5)
    table = beta_vae.sweep_table(chosen, records, whole)
    assert table["score"].equals(table["higgins_5"])
    assert table["beta_norm"].iloc[0] == 10 / 256
    assert sweep_tables.best_beta(table) == 16
    by_live = sweep_tables.by_live_latents(table)
    assert by_live["models"].sum() == len(table)
    assert by_live["live latents"].tolist() == [3, 5, 5]
    with pytest.raises(InputError, match="L = 7"):
        beta_vae.sweep_table(settings.resolve("beta_vae", pairs=7), records, whole)


def test_sets_without_known_factors_are_refused_before_any_work(tmp_path):
    (tmp_path / "a.png").write_text("never opened")
    with pytest.raises(InputError, match="no factors are known of folder"):
        beta_vae.check(settings.resolve("beta_vae", dataset="folder", data_dir=str(tmp_path)))
