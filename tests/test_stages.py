"""Profiles and settings: what is accepted, what is refused in one line, and that every row is complete."""

import pytest

from vaestudy import profiles, stages
from vaestudy.errors import InputError


@pytest.mark.parametrize("stage", stages.STAGES)
def test_every_stage_has_a_full_row_for_every_profile(stage):
    table = profiles.SIZES[stage]
    assert set(table) == set(profiles.PROFILES)
    assert len({tuple(row) for row in table.values()}) == 1
    for profile in profiles.PROFILES:
        assert stages.settings(stage, profile=profile).sizes is table[profile]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"beta": -1}, "beta must be 0 or more"),
        ({"beta": "4"}, "beta must be float"),
        ({"beta": True}, "beta must be float"),
        ({"beta": float("nan")}, "beta must be"),
        ({"latent_dim": 0}, "latent_dim must be 1 or more"),
        ({"latent_dim": 2.5}, "latent_dim must be int"),
        ({"profile": "huge"}, "profile must be"),
        ({"network": "mpl"}, "network must be one of"),
        ({"image_size": -3}, "image_size"),
        ({"latnt_dim": 4}, "no parameter 'latnt_dim'"),
    ],
)
def test_bad_values_are_one_clear_line(given, words):
    with pytest.raises(InputError, match=words) as caught:
        stages.settings("vae", **given)
    assert "\n" not in str(caught.value)


def test_an_unknown_stage_is_refused():
    with pytest.raises(InputError, match="stage must be"):
        stages.settings("gan")


def test_whole_numbers_count_as_floats():
    assert stages.settings("vae", beta=4).beta == 4.0


def test_the_image_size_is_the_profiles_for_its_own_data_set_only():
    assert stages.settings("vae", profile="smoke").side == profiles.SIZES["vae"]["smoke"]["image_size"]
    assert stages.settings("vae", profile="smoke", dataset="mnist").side is None
    assert stages.settings("vae", profile="smoke", dataset="mnist", image_size=32).side == 32
