"""The main job at its smallest: three notebooks into a site, once."""

import json

from vaestudy.claims import verify
from vaestudy.report import site as report


def test_the_smoke_study_makes_a_site_and_does_not_make_it_twice(tmp_path, dsprites_dir, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    said = []
    report.study("smoke", tmp_path, say=said.append)
    folder = tmp_path / "smoke"
    pages = {path.name for path in folder.glob("*.html")}
    assert pages == {"index.html", "runs.html", "01_vae.html", "02_beta_vae.html", "03_nvae.html"}
    results = json.loads((folder / "results.json").read_text())
    assert set(results["notebooks"]) == {"01_vae", "02_beta_vae", "03_nvae"}
    judged = {row["quantity"]: row["n"] for row in results["headline"]}
    assert list(judged.values()) == [2] * 5  # two seeds of gradients, and of each of four β
    assert verify(results, results).ok
    for page in pages:
        text = (folder / page).read_text()
        assert "<script src" not in text
        assert "https://cdn" not in text
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.ipynb")}
    report.study("smoke", tmp_path, say=said.append)
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.ipynb")} == before
