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


def run(client, code, person=True):
    """The messages of a cell: what it shows and says, and the error that ends it."""
    seen = []
    client.execute_interactive(code, allow_stdin=person, output_hook=seen.append, timeout=120)
    return seen


def shown(client, code, person):
    """The forms that each output of a cell comes in."""
    seen = run(client, code, person)
    assert not any(message["msg_type"] == "error" for message in seen), seen
    outputs = [message for message in seen if message["msg_type"] in ("display_data", "execute_result")]
    return [set(message["content"]["data"]) for message in outputs]


def said(client, code):
    """What a cell prints, and the error that ends it."""
    contents = [message["content"] for message in run(client, code)]
    return "\n".join(known.get("text") or f"{known.get('ename')}: {known.get('evalue')}" for known in contents)


def test_a_slider_that_moves_draws_the_image_anew(kernel):
    first = shown(kernel, SETUP, person=True)
    moved = shown(kernel, "sliders.children[0].value += 1.0", person=True)
    assert ["text/html" in forms for forms in first] == ["text/html" in forms for forms in moved] == [True]


def test_where_nobody_moves_them_there_are_none(kernel):
    assert shown(kernel, SETUP + "sliders", person=False) == []


def test_bad_input_takes_one_line(kernel):
    seen = run(kernel, "from vaestudy.models import VAE\nVAE((1, 8, 8), latent_dim=0)")
    ((line,),) = [message["content"]["traceback"] for message in seen if message["msg_type"] == "error"]
    assert line.startswith("InputError: ")
    assert "latent_dim" in line
    assert "\n" not in line


def test_a_notebook_says_which_project_it_is_in_and_stops_where_there_is_none(kernel, tmp_path):
    code = "import os; here = os.getcwd(); from vaestudy import experiments\n"
    code += 'experiments.from_notebook("vae", {"profile": "smoke"});\n'
    code += f'os.chdir({str(tmp_path)!r}); experiments.from_notebook("vae", {{"profile": "smoke"}})'
    text = said(kernel, code)
    run(kernel, "os.chdir(here)")
    assert "profile smoke: toy sizes" in text
    assert f"InputError: {tmp_path} is in no vaestudy project" in text


def test_a_run_that_is_named_must_be_finished(kernel):
    code = "from vaestudy import explore\nexplore('no-such-run')"
    assert "InputError: no-such-run is no finished run" in said(kernel, code)


def test_latents_that_are_a_map_have_no_sliders(kernel):
    code = "from vaestudy.models import NVAE, NVAEConfig\n"
    code += "model = NVAE(NVAEConfig.preset('hierarchy32_top', shape=(1, 32, 32), channels=4)).eval()\n"
    assert "no map" in said(kernel, SETUP + code + "figures.explore(Run('', model), images)")
