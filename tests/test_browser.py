"""Pages in a real browser: the decoder that runs in the page, and what axe-core finds."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from browser import dom, needed
from small_training import noise

from vaestudy import figures
from vaestudy.models import VAE

pytestmark = [pytest.mark.long, needed]
PAGES = ("index", "01_vae", "02_beta_vae", "03_nvae", "runs")


def told(text):
    """What the page's test script has left in the document."""
    return json.loads(html.unescape(re.search(r'<pre id="told">(.*?)</pre>', text, re.S)[1]))


TELL = """const told = value => {
  const place = parent.document.createElement('pre');
  place.id = 'told'; place.textContent = JSON.stringify(value); parent.document.body.append(place);
};"""
MOVE = """<script>%s
const rows = [];
document.querySelectorAll('.model').forEach((model, m) => {
  const sliders = [...model.querySelectorAll('input')], canvas = model.querySelector('canvas');
  const pixels = () => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data];
  rows.push({model: m, z: Object.fromEntries(sliders.map(s => [s.dataset.latent, +s.value])), pixels: pixels()});
  sliders.forEach((s, i) => { s.value = [-2.5, 1.35, 0, 3][(i + m) %% 4]; });
  sliders[0].oninput();
  rows.push({model: m, z: Object.fromEntries(sliders.map(s => [s.dataset.latent, +s.value])), pixels: pixels(),
             said: sliders[0].getAttribute('aria-valuetext')});
});
told(rows)</script>"""


@pytest.mark.parametrize(
    ("channels", "options"),
    [(1, {"network": "mlp", "width": 128}), (3, {"network": "higgins", "width": 64, "likelihood": "gaussian"})],
)
def test_the_decoder_in_the_page_draws_what_pytorch_draws(channels, options, tmp_path):
    images = noise((channels, 32, 32), 40)
    models = {f"model <{seed}>": VAE(images.shape, latent_dim=6, seed=seed, **options).eval() for seed in (0, 1)}
    for model in models.values():
        for parameter in model.decoder.parameters():  # as large as training makes them: images of full contrast
            parameter.data *= 2.5
    shown = figures.decoder(models, images)
    page = tmp_path / "page.html"
    page.write_text(f"<!DOCTYPE html><meta charset=utf-8><body>{shown._repr_html_()}{MOVE % TELL}")
    found = told(dom(page, tmp_path / "user"))
    assert len(found) == 4
    for row in found:
        z = torch.zeros(1, 6)
        for latent, value in row["z"].items():
            z[0, int(latent)] = value
        with torch.no_grad():
            expected = 255 * list(models.values())[row["model"]].decode([z])[0]
        pixels = np.array(row["pixels"]).reshape(32, 32, 4)[..., :channels].transpose(2, 0, 1)
        assert expected.std() > 10
        np.testing.assert_allclose(pixels, expected, atol=2)
    assert found[1]["said"] == "−2.5"


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    """The text of axe-core, from the npm registry."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("axe")
    subprocess.run([npm, "install", "--no-save", "--prefix", folder, "axe-core@4"], check=True, capture_output=True)
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 380])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(name, width, dark, axe, smoke_report, tmp_path):
    text = (smoke_report / f"{name}.html").read_text()
    if dark:
        text = text.replace("(prefers-color-scheme: dark)", "all")
    found = "told({width: innerWidth, found: r.violations.map(v => [v.id, v.nodes.map(n => n.html.slice(0, 200))])})"
    run = f"<script>{axe}</script><script>{TELL}axe.run().then(r => {found})</script>"
    page = tmp_path / "page.html"
    page.write_text(framed(text.replace("</body>", run + "</body>"), width))
    assert told(dom(page, tmp_path / "user", "--window-size=1280,1000", wait=60_000)) == {"width": width, "found": []}


def framed(text, width):
    """A page in a frame of so many pixels: windows without a head are no narrower than 500."""
    style = f"border:0;width:{width}px;height:1000px"
    return f'<!DOCTYPE html><body style="margin:0"><iframe style="{style}" srcdoc="{html.escape(text)}"></iframe>'
