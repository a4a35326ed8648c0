"""The notebooks in JupyterLab, in a real browser: all cells run, and one slider is moved."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from browser import needed, opened

pytestmark = [pytest.mark.long, needed]
TOKEN = "of-a-test"  # noqa: S105
HERE = "window.jupyterapp.shell.currentWidget"
# What a kernel is sent before its channels are open is lost: it must have answered something first.
ANSWERS = f"""(async () => {{
  const kernel = {HERE}.sessionContext.session?.kernel;
  if (!kernel || kernel.status !== 'idle') return false;
  const answer = kernel.requestExecute({{code: '1'}}).done.then(reply => reply.content.status === 'ok', () => false);
  return await Promise.race([answer, new Promise(resolve => setTimeout(() => resolve(false), 5000))]);
}})()"""
RUN_ALL = "void window.jupyterapp.commands.execute('notebook:run-all-cells')"
CELLS = f"""(() => {HERE}.content.model.sharedModel.toJSON().cells.filter(of => of.cell_type === 'code').map(cell => ({{
  source: [cell.source].flat().join('').slice(0, 80), count: cell.execution_count,
  errors: cell.outputs.filter(output => output.output_type === 'error').map(output => output.evalue),
  forms: cell.outputs.flatMap(output => Object.keys(output.data || {{}})),
}})))()"""
IDLE = f"{HERE}.sessionContext.session.kernel.status === 'idle'"
SHOW = f"""(async () => {{
  const book = {HERE}.content;
  const place = book.widgets.findIndex(cell => cell.model.sharedModel.getSource().includes('figures.explore('));
  book.activeCellIndex = place;
  await book.scrollToItem(place, 'center');
}})()"""
HANDLE = "document.querySelector('.widget-slider .noUi-handle')"
PICTURE = "(document.querySelector('.widget-interact .jp-OutputArea figure svg') || {}).outerHTML"


@pytest.fixture(scope="module")
def lab(tmp_path_factory, dsprites_dir):
    """The address of a JupyterLab in a copy of the project, whose notebooks take the profile `smoke`."""
    root = tmp_path_factory.mktemp("lab")
    for part in ("notebooks", "vaestudy"):
        shutil.copytree(Path(__file__).parents[1] / part, root / part)
    for notebook in (root / "notebooks").glob("*.ipynb"):
        notebook.write_text(notebook.read_text().replace('profile: str = \\"auto\\"', 'profile: str = \\"smoke\\"'))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {name: str(root / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    options = ["--no-browser", "--allow-root", f"--port={port}", f"--IdentityProvider.token={TOKEN}"]
    options += ["--expose-app-in-browser", f"--notebook-dir={root}"]
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyter", "lab", *options],
        env=os.environ | own | {"PYTHONPATH": str(root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address, end = f"http://127.0.0.1:{port}", time.monotonic() + 90
    while True:
        try:
            urllib.request.urlopen(f"{address}/api?token={TOKEN}").close()  # noqa: S310
            break
        except OSError:
            assert time.monotonic() < end, "JupyterLab does not answer"
            time.sleep(0.3)
    yield address
    server.terminate()
    server.wait(30)


def _all_run(page, seconds):
    """The cells of the notebook once each has run, or one has failed."""
    end = time.monotonic() + seconds
    while True:
        cells = page.value(CELLS)
        assert not any(cell["errors"] for cell in cells), cells
        if all(cell["count"] for cell in cells) and page.value(IDLE):
            return cells
        assert time.monotonic() < end, cells
        time.sleep(1)


@pytest.mark.parametrize("name", ["01_vae", "02_beta_vae", "03_nvae"])
def test_all_cells_run_and_a_slider_draws_another_image(name, lab, tmp_path):
    # In a shared workspace the notebook of the test before is opened, too, and may take the command.
    address = f"{lab}/lab/workspaces/{name}/tree/notebooks/{name}.ipynb?token={TOKEN}"
    with opened(address, tmp_path / "user") as page:
        page.wait(f"!!(window.jupyterapp && {HERE}?.context?.isReady && {HERE}.context.path.includes('{name}'))", 120)
        page.wait(ANSWERS, 120)
        page.value(RUN_ALL)
        cells = _all_run(page, 300)
        assert any("text/html" in cell["forms"] for cell in cells)
        if name != "01_vae":
            return
        page.value(SHOW)
        page.wait(f"!!{HANDLE}", 60)
        before = page.wait(PICTURE, 60)
        page.value(f"{HANDLE}.focus()")
        page.press("ArrowRight")
        page.wait(f"{PICTURE} !== undefined && {PICTURE} !== {before!r}", 60)
