"""What a person sees in a notebook, in a kernel that takes what they type."""

import pytest
from jupyter_client.manager import start_new_kernel

SETUP = """
import torch
torch.set_num_threads(2)
from vaestudy import figures
from vaestudy.data import ImageSet
from vaestudy.models import VAE
from vaestudy.training import Run
model = VAE((1, 8, 8), latent_dim=3, network="linear")
images = ImageSet("dark", (1, 8, 8), torch.zeros(4, 1, 8, 8, dtype=torch.uint8))
sliders = figures.explore(Run("", model), images)
"""


@pytest.fixture(scope="module")
def kernel():
    manager, client = start_new_kernel(kernel_name="python3")
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def run(client, code, person):
    """What a cell shows, as lists of the forms that each of its outputs comes in."""
    shown = []

    def see(message):
        assert message["msg_type"] != "error", message["content"]
        if message["msg_type"] in ("display_data", "execute_result"):
            shown.append(set(message["content"]["data"]))

    client.execute_interactive(code, allow_stdin=person, output_hook=see, timeout=120)
    return shown


def test_a_slider_that_moves_draws_the_image_anew(kernel):
    first = run(kernel, SETUP, person=True)
    moved = run(kernel, "sliders.children[0].value += 1.0", person=True)
    assert ["text/html" in forms for forms in first] == ["text/html" in forms for forms in moved] == [True]


def test_bad_input_takes_one_line(kernel):
    said = []
    kernel.execute_interactive(
        "from vaestudy.models import VAE\nVAE((1, 8, 8), latent_dim=0)",
        output_hook=lambda message: said.append(message["content"].get("traceback")),
        timeout=120,
    )
    (lines,) = filter(None, said)
    assert len(lines) == 1
    assert lines[0].startswith("InputError: ")
    assert "latent_dim" in lines[0]
    assert "\n" not in lines[0]


def test_a_notebook_says_which_project_it_is_in_and_stops_where_there_is_none(kernel, tmp_path):
    said = []

    def see(message):
        content = message["content"]
        said.append(content.get("text") or f"{content.get('ename')}: {content.get('evalue')}")

    code = "import os; here = os.getcwd(); from vaestudy import experiments\n"
    code += 'experiments.from_notebook("vae", {"profile": "smoke"});\n'
    code += f'os.chdir({str(tmp_path)!r}); experiments.from_notebook("vae", {{"profile": "smoke"}})'
    kernel.execute_interactive(code, allow_stdin=True, output_hook=see, timeout=120)
    kernel.execute_interactive("os.chdir(here)", timeout=120)
    text = "\n".join(said)
    assert "profile smoke: toy sizes, the models will have learnt nothing" in text
    assert f"InputError: {tmp_path} is in no vaestudy project" in text


def test_a_run_is_chosen_from_a_list_or_named(kernel):
    code = "from vaestudy import explore; from vaestudy.errors import InputError\n"
    code += "try: explore('no-such-run')\nexcept InputError as error: print(error)"
    said = []
    see = lambda message: said.append(message["content"].get("text"))  # noqa: E731
    kernel.execute_interactive(code, allow_stdin=True, output_hook=see, timeout=120)
    assert any("no-such-run is no finished run" in (text or "") for text in said)


def test_latents_that_are_a_map_have_no_sliders(kernel):
    code = "from vaestudy.models import NVAE, NVAEConfig; from vaestudy.errors import InputError\n"
    code += "model = NVAE(NVAEConfig.preset('hierarchy32_top', shape=(1, 32, 32), channels=4)).eval()\n"
    code += "try: figures.explore(Run('', model), images)\nexcept InputError as error: print(error)"
    said = []
    see = lambda message: said.append(str(message["content"].get("text") or message["content"].get("evalue")))  # noqa: E731
    kernel.execute_interactive(SETUP + code, allow_stdin=True, output_hook=see, timeout=120)
    assert any("no map" in text for text in said), said


def test_where_nobody_moves_them_there_are_none(kernel):
    assert run(kernel, SETUP + "sliders", person=False) == []
