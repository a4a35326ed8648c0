import pytest
from small_notebook import write

from vaestudy import parameters
from vaestudy.errors import InputError


@pytest.fixture
def notebook(tmp_path):
    return parameters.inspect(write(tmp_path / "01_vae.ipynb"))


def test_a_notebook_declares_its_stage_and_parameters(notebook):
    assert notebook.stage == "vae"
    assert notebook.parameters == {"profile": "str", "beta": "float", "seed": "int", "data_dir": "str"}


def test_only_the_metadata_make_a_notebook_ours(tmp_path):
    theirs = write(tmp_path / "01_vae.ipynb", stage=None)
    assert parameters.stage_of(theirs) is None
    with pytest.raises(InputError, match="metadata name no stage"):
        parameters.inspect(theirs)
    (tmp_path / "broken.ipynb").write_text("{")
    assert parameters.stage_of(tmp_path / "broken.ipynb") is None
    with pytest.raises(InputError, match="there is no notebook"):
        parameters.inspect(tmp_path / "none.ipynb")


def test_braces_in_a_path_are_part_of_it(tmp_path):
    assert parameters.inspect(write(tmp_path / "{a}" / "01_vae.ipynb")).stage == "vae"


def test_check_returns_the_stage_settings(notebook):
    assert parameters.check(notebook, {"profile": "smoke", "beta": 4}).beta == 4.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bta": 4}, "01_vae.ipynb has no parameter 'bta': did you mean 'beta'"),
        ({"learning": 4}, "no parameter 'learning': choose from profile, beta, seed, data_dir"),
        ({"latent_dim": 4}, "no parameter 'latent_dim'"),  # the stage knows it, this notebook does not
        ({"beta": -1}, "beta must be 0 or more"),
        ({"beta": "four"}, "beta must be float, not 'four'"),
        ({"seed": 1.5}, "seed must be int, not 1.5"),
        ({"seed": True}, "seed must be int, not True"),
        ({"profile": "tiny"}, "profile must be"),
    ],
)
def test_check_names_what_is_wrong_in_one_line(notebook, given, message):
    with pytest.raises(InputError) as error:
        parameters.check(notebook, given)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_words_become_the_declared_types(notebook):
    words = {"beta": "1e-4", "seed": "-3", "data_dir": "2024", "profile": "smoke"}
    assert parameters.from_text(notebook, words) == {
        "beta": 1e-4,
        "seed": -3,
        "data_dir": "2024",
        "profile": "smoke",
    }
    assert parameters.from_text(notebook, {"beta": "four"}) == {"beta": "four"}


def test_assigned_sees_parameter_cells_alone():
    cells = [
        "",
        'profile: str = "auto"  # sizes\nbeta: float = 1.0  # weight',
        '# Parameters\nbta = 4\nprofile = "smoke"\n',
        "import numpy as np\nx = 3\ny: int = 4",
        "%matplotlib inline\nz = 3",
    ]
    assert parameters.assigned(cells) == {"profile", "beta", "bta"}
