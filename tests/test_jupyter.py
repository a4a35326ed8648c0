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


def test_where_nobody_moves_them_there_are_none(kernel):
    assert run(kernel, SETUP + "sliders", person=False) == []
