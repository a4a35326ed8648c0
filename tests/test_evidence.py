"""The evidence: records are written once, read whole, and refused where they do not fit."""

import json

import pandas as pd
import pytest

from vaestudy import claims, profiles, settings
from vaestudy.claims.records import NAMES
from vaestudy.errors import InputError
from vaestudy.experiments import evidence
from vaestudy.experiments.evidence import Context, Part


class Counted:
    """A part without training: a row a seed and β, and a list of the seeds that it was asked for."""

    def __init__(self, broken=None):
        self.asked, self.broken = [], broken

    def __call__(self, context):
        seeds = context.seeds
        self.asked.append(seeds)
        if self.broken in seeds:
            raise KeyboardInterrupt
        betas = context.sizes["betas"]
        return [
            {"seed": s, "beta": b, "higgins_5": 0.5 + 0.1 * s * b, "mig": float("nan")} for s in seeds for b in betas
        ]


def context(tmp_path, betas=(1.0, 4.0), **more):
    return Context({"betas": betas, "seeds": 4, **more}, None, tmp_path / "runs")


def test_a_piece_is_made_once_and_read_again(tmp_path):
    rows = Counted()
    part = Part("sweep32", "beta_vae", rows)
    first = evidence.run_piece(part, context(tmp_path), (0, 1), "00", tmp_path)
    again = evidence.run_piece(part, context(tmp_path), (0, 1), "00", tmp_path)
    assert rows.asked == [(0, 1)]
    pd.testing.assert_frame_equal(first, again)
    assert set(NAMES) <= set(first)
    assert first["part"].eq("sweep32").all()
    assert first["mig"].isna().all()
    assert first["higgins_5"].tolist() == [0.5, 0.5, 0.6, 0.9]
    assert {"commit", "cpu", "threads", "seconds"} <= set(first)


def test_more_seeds_are_added_and_other_sizes_made_anew(tmp_path):
    rows = Counted()
    part = Part("sweep32", "beta_vae", rows)
    evidence.run_piece(part, context(tmp_path), (0, 1), "00", tmp_path)
    more = evidence.run_piece(part, context(tmp_path, seeds=9), (0, 1, 2), "00", tmp_path)
    assert rows.asked == [(0, 1), (2,)]
    assert more["seed"].tolist() == [0, 0, 1, 1, 2, 2]
    other = evidence.run_piece(part, context(tmp_path, betas=(8.0,)), (0, 1), "00", tmp_path)
    assert rows.asked[-1] == (0, 1)
    assert other["beta"].tolist() == [8.0, 8.0]


def test_an_interrupted_piece_leaves_nothing_and_is_asked_for_again(tmp_path):
    part = Part("sweep32", "beta_vae", Counted(broken=1))
    with pytest.raises(KeyboardInterrupt):
        evidence.run_piece(part, context(tmp_path), (0, 1), "00", tmp_path)
    assert evidence.read(tmp_path).empty
    whole = evidence.run_piece(part._replace(rows=Counted()), context(tmp_path), (0, 1), "00", tmp_path)
    assert len(whole) == 4


def test_pieces_add_up_to_what_claims_read(tmp_path):
    part = Part("sweep32", "beta_vae", Counted())
    for piece in range(3):
        evidence.run_piece(part, context(tmp_path), (2 * piece, 2 * piece + 1), f"{piece:02d}", tmp_path)
    records = evidence.read(tmp_path)
    assert sorted(records["seed"].unique()) == list(range(6))
    assert sorted(records["piece"].unique()) == ["00", "01", "02"]
    claims.evaluate(records, "test")  # fits together


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"part": "sweep32", "se', "is damaged: remove it"),
        ("", "is damaged: records missing"),
        ("5\n", "is damaged: remove it"),
        ('{"part": "sweep32"}\n', "is damaged: piece missing"),
        (None, "has record_version 0 where"),
    ],
)
def test_a_damaged_or_old_file_is_one_line(tmp_path, content, words):
    part = Part("sweep32", "beta_vae", Counted())
    evidence.run_piece(part, context(tmp_path), (0,), "00", tmp_path)
    path = tmp_path / "records" / "sweep32-00.jsonl"
    if content is None:
        rows = [json.loads(line) | {"record_version": 0} for line in path.read_text().splitlines()]
        content = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        evidence.read(tmp_path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def nightly(monkeypatch):
    """A profile of one part without training: five seeds, in pieces of two."""
    rows = Counted()
    monkeypatch.setitem(evidence.PARTS, "counted", Part("counted", "beta_vae", rows))
    for stage in profiles.OVERRIDES:
        parts = {"counted": {"seeds": 5, "betas": (1.0, 4.0)}} if stage == "beta_vae" else {}
        monkeypatch.setitem(profiles.OVERRIDES[stage]["night"], "parts", parts)
    return rows


def test_a_night_goes_through_its_pieces_and_is_taken_up_where_it_stopped(tmp_path, nightly):
    said = []
    nightly.broken = 3
    with pytest.raises(KeyboardInterrupt):
        evidence.run_all("night", tmp_path, said.append)
    assert evidence.read(tmp_path)["seed"].unique().tolist() == [0, 1]
    nightly.broken = None
    assert evidence.run_all("night", tmp_path, said.append) == 2
    assert nightly.asked == [(0, 1), (2, 3), (2, 3), (4,)]
    assert [line.split(":")[0] for line in said[-3:]] == [f"piece {n} of 3, counted" for n in (1, 2, 3)]
    assert said[-3].endswith("4 records, there")
    assert not (tmp_path / "runs").exists()
    assert evidence.run_all("night", tmp_path, said.append) == 0


def test_a_piece_of_another_version_is_made_anew_and_counted(tmp_path, nightly, monkeypatch):
    evidence.run_all("night", tmp_path, lambda _: None)
    monkeypatch.setitem(evidence.PARTS, "counted", evidence.PARTS["counted"]._replace(version=2))
    said = []
    assert evidence.run_all("night", tmp_path, said.append) == 3
    assert not any(line.endswith("there") for line in said)


def test_a_profile_without_pieces_makes_none(tmp_path):
    assert evidence.run_all("laptop", tmp_path) == 0
    assert not list(tmp_path.iterdir())


def test_every_part_of_every_profile_is_known_and_has_its_sizes():
    for stage in profiles.OVERRIDES:
        for profile in profiles.PROFILES:
            for name, sizes in evidence.plan(stage, profile).items():
                assert evidence.PARTS[name].stage == stage
                assert sizes["seeds"] >= 1, (profile, name)


def test_what_only_changes_the_page_does_not_change_what_is_trained():
    plain = settings.resolve("beta_vae", profile="smoke", runs_dir="elsewhere", seed=3)
    assert not evidence.changed(plain)
    assert evidence.changed(settings.resolve("beta_vae", profile="smoke", network="conv")) == {"network": "conv"}
