"""Settings and profiles: what is accepted, what is refused in one line, and that every row is complete."""

import sys

import pytest
import torch

from vaestudy import experiments, profiles, settings
from vaestudy.errors import InputError


@pytest.mark.parametrize("stage", settings.STAGES)
def test_every_stage_has_a_full_row_for_every_profile(stage):
    rows = [profiles.sizes(stage, profile) for profile in settings.PROFILES]
    assert len({frozenset(row) for row in rows}) == 1


@pytest.mark.parametrize("stage", settings.STAGES)
def test_every_parameter_has_a_sentence_that_papermill_can_read(stage):
    for parameter in settings.fields(stage).values():
        assert parameter.metadata["help"]
        assert "=" not in parameter.metadata["help"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"beta": -1}, "beta must be 0 to 1000000"),
        ({"beta": "four"}, "beta must be a number, not 'four'"),
        ({"beta": True}, "beta must be a number"),
        ({"beta": float("nan")}, "beta must be 0 to"),
        ({"beta": float("inf")}, "beta must be 0 to"),
        ({"beta": 10**400}, "beta must be 0 to"),
        ({"latent_dim": 1}, "latent_dim must be 2 to"),
        ({"latent_dim": 2.5}, "latent_dim must be a whole number"),
        ({"profile": "huge"}, "profile must be one of"),
        ({"seed": -1}, "seed must be 0 to"),
        ({"seed": 2**32}, "seed must be 0 to"),
        ({"latnt_dim": 4}, "no parameter 'latnt_dim': did you mean 'latent_dim'"),
        ({"learning": 4}, "no parameter 'learning': choose from profile"),
    ],
)
def test_bad_values_are_one_clear_line(given, words):
    with pytest.raises(InputError) as caught:
        settings.resolve("vae", **given)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_stage_is_refused():
    with pytest.raises(InputError, match="stage must be"):
        settings.resolve("gan")


def test_numbers_come_as_people_write_them():
    assert settings.resolve("vae", beta=4).beta == 4.0
    assert settings.resolve("vae", beta="1e-3").beta == 1e-3  # what YAML makes of 1e-3
    words = {"beta": "1e-4", "seed": "3", "data_dir": "2024", "profile": "smoke"}
    assert settings.from_words("vae", words) == {"beta": 1e-4, "seed": 3, "data_dir": "2024", "profile": "smoke"}
    assert settings.from_words("vae", {"beta": "four"}) == {"beta": "four"}


def test_auto_becomes_a_profile():
    assert settings.resolve("vae").profile in ("laptop", "gpu")


def test_a_notebook_refuses_a_name_that_it_does_not_declare():
    ours = {"profile": "smoke", "beta": 4, "In": ["..."], "_private": 3, "sys": sys}
    assert settings.from_notebook("vae", ours).beta == 4.0
    for value in (4, [1, 4]):
        with pytest.raises(InputError, match="the notebook has no parameter 'betta': did you mean 'beta'"):
            settings.from_notebook("vae", ours | {"betta": value})


def test_what_a_notebook_draws_follows_from_its_seed():
    draws = []
    for seed in (3, 3, 4):
        experiments.from_notebook("vae", {"profile": "smoke", "seed": seed})
        draws.append(torch.rand(4).tolist())
    assert draws[0] == draws[1] != draws[2]


def test_only_the_metadata_make_a_notebook_ours(tmp_path):
    ours, broken = tmp_path / "a.ipynb", tmp_path / "b.ipynb"
    ours.write_text('{"metadata": {"vaestudy": {"stage": "vae"}}}')
    broken.write_text("{")
    assert settings.stage_of(ours) == "vae"
    assert settings.stage_of(broken) is settings.stage_of(tmp_path / "none.ipynb") is None
