"""The commands of the README, typed into a terminal (a pseudo-terminal here) or a pipe."""

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_notebook import write

from vaestudy.report import papermill_plugin

PAPERMILL = str(Path(sys.executable).parent / "papermill")
CELLS = ("# Small", ["square = beta**2\n", "square"])

pytestmark = [
    pytest.mark.skipif(not Path(PAPERMILL).exists(), reason="papermill's command is not beside this Python"),
    pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals here"),
]


@pytest.fixture
def project(tmp_path):
    write(tmp_path / "notebooks" / "03_nvae.ipynb", stage="vae", cells=CELLS)
    write(tmp_path / "notebooks" / "theirs.ipynb", stage=None, cells=CELLS)
    return tmp_path


def piped(project, *words, stdin=subprocess.DEVNULL):
    """Run papermill with its output piped; returns (status, stdout, stderr)."""
    done = subprocess.run([PAPERMILL, *words], cwd=project, stdin=stdin, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def typed(project, *words):
    """Run papermill in a pseudo-terminal; returns (status, everything that the terminal showed)."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 30, 120, 0, 0))  # rows and columns
    command = [PAPERMILL, *words]
    with subprocess.Popen(command, cwd=project, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # Linux says so when the last writer has gone
                break
            if not part:
                break
            shown += part
    os.close(ours)
    return process.returncode, shown.decode()


def outputs(path):
    cells = json.loads(path.read_text())["cells"]
    return [output["data"]["text/plain"] for cell in cells for output in cell.get("outputs", [])]


def test_typed_without_an_output_path_a_terminal_shows_the_cell_and_how_far_its_training_is(project):
    log = ["import time\n", "from pathlib import Path\n", "Path('runs/vae-1').mkdir(parents=True)\n"]
    config = [{"VAE": {}}, {}, {"objective": {"beta": 4.0}}]
    log += [f"Path('runs/vae-1/config.json').write_text('{json.dumps(config)}')\n"]
    log += ["Path('runs/vae-1/metrics.jsonl').write_text('{\"images_seen\": 64000}\\n');\n", "time.sleep(4)"]
    write(project / "notebooks" / "03_nvae.ipynb", cells=[*CELLS, log])
    status, shown = typed(project, "notebooks/03_nvae.ipynb", "-p", "beta", "4", "-p", "profile", "smoke")
    assert status == 0, shown
    executed = project / "reports" / "smoke" / "03_nvae_beta=4.ipynb"
    assert str(executed) in shown
    assert re.search(r"cell 4 of 4, \d s: VAE, β = 4, 64,000 images \| import time", shown)
    assert outputs(executed) == [["16.0"]]
    assert "<h1" in executed.with_suffix(".html").read_text()


def test_piped_without_an_output_path(project):
    words = ("notebooks/03_nvae.ipynb", "-r", "data_dir", "7", "-y", "{beta: 1e-3, profile: smoke}")
    status, stdout, stderr = piped(project, *words)
    assert (status, stderr) == (0, "")
    executed = project / "reports" / "smoke" / "03_nvae_data_dir=7_beta=0.001.ipynb"
    assert stdout.split() == [str(executed), str(executed.with_suffix(".html"))]
    assert outputs(executed) == [["1e-06"]]


def test_bad_input_is_one_line_and_nothing_is_written(project):
    before = set(project.rglob("*"))
    status, stdout, stderr = piped(project, "notebooks/03_nvae.ipynb", "-p", "bta", "4")
    assert (status, stdout) == (2, "")
    assert "no parameter 'bta': did you mean 'beta'?" in stderr
    assert stderr.count("\n") == 1
    assert set(project.rglob("*")) == before


def test_a_loop_over_lines_runs_each_and_leaves_the_notebook_alone(project):
    """In a shell's loop the lines that are left are standard input, which papermill reads as a notebook."""
    source = (project / "notebooks" / "03_nvae.ipynb").read_bytes()
    call = f'"{PAPERMILL}" notebooks/03_nvae.ipynb -p profile smoke -p beta $b'
    loop = f"printf '2\\n3\\n' | while read b; do {call} || exit; done"
    done = subprocess.run(["sh", "-c", loop], cwd=project, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert outputs(project / "reports" / "smoke" / "03_nvae_beta=2.ipynb") == [["4.0"]]
    assert outputs(project / "reports" / "smoke" / "03_nvae_beta=3.ipynb") == [["9.0"]]
    assert (project / "notebooks" / "03_nvae.ipynb").read_bytes() == source


def test_parameters_come_in_every_form_that_papermill_takes(project, monkeypatch):
    monkeypatch.chdir(project)
    (project / "four.yaml").write_text("beta: 4\nseed: 1\n")
    encoded = base64.b64encode(b"{beta: 3, dataset: dsprites}").decode()
    words = ["-y", "{beta: 1e-3}", "-f", "four.yaml", "-b", encoded, "-p", "seed", "2", "-r", "data_dir", "7"]
    call = papermill_plugin.read(["notebooks/03_nvae.ipynb", *words])
    expected = {"beta": "1e-3", "seed": 2, "dataset": "dsprites", "data_dir": "7"}  # YAML 1.1 reads 1e-3 as text
    assert papermill_plugin.parameters(call) == expected


@pytest.mark.parametrize("words", [["-y", "beta"], ["-y", "{beta: [}"], ["-f", "none.yaml"], ["-b", "abcde"]])
def test_parameters_that_are_no_mapping_are_one_line(project, monkeypatch, capfd, words):
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["papermill_plugin.py", "notebooks/03_nvae.ipynb", *words])
    with pytest.raises(SystemExit, match="2"):
        papermill_plugin.main()
    stderr = capfd.readouterr().err
    assert "YAML mapping" in stderr
    assert stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["-p", "beta", "-1"], 2, "vaestudy: beta must be 0 to 1000000, not -1\n"),
        (["-p", "profile", "smoke"], 1, "vaestudy: ZeroDivisionError: division by zero (stage vae, cell 3, '1 / 0'"),
    ],
)
def test_exit_status_and_line(project, monkeypatch, capfd, words, status, message):
    write(project / "notebooks" / "03_nvae.ipynb", cells=["# Small", ["1 / 0"]])
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(sys, "argv", ["papermill_plugin.py", "notebooks/03_nvae.ipynb", "--no-progress-bar", *words])
    with pytest.raises(SystemExit) as end:
        papermill_plugin.main()
    stdout, stderr = capfd.readouterr()
    assert end.value.code == status
    assert stdout == ""
    assert stderr.startswith(message)
    assert stderr.count("\n") == 1


def test_an_explicit_output_is_papermills_own(project):
    status, _, stderr = piped(project, "notebooks/03_nvae.ipynb", "out.ipynb", "-p", "beta", "5")
    assert status == 0, stderr
    assert outputs(project / "out.ipynb") == [["25"]]
    assert not (project / "reports").exists()


def test_another_notebook_is_papermills_own(project):
    status, shown = typed(project, "notebooks/theirs.ipynb", "-p", "beta", "4")
    assert status == 2
    assert "Missing argument 'OUTPUT_PATH'" in shown
    status, stdout, stderr = piped(project, "notebooks/theirs.ipynb", "-p", "beta", "4")
    assert status == 0, stderr
    assert json.loads(stdout)["metadata"]["papermill"]["parameters"] == {"beta": 4}
    assert not (project / "reports").exists()


def test_help_and_stdin_are_papermills_own(project):
    status, stdout, _ = piped(project, "notebooks/03_nvae.ipynb", "--help-notebook")
    assert status == 0
    assert "beta: float (default 1.0)" in stdout
    source = subprocess.Popen(["cat", "notebooks/theirs.ipynb"], cwd=project, stdout=subprocess.PIPE)
    with source:
        status, _, stderr = piped(project, "out.ipynb", stdin=source.stdout)
    assert status == 0, stderr
    assert outputs(project / "out.ipynb") == [["1.0"]]


def test_an_output_that_a_pipe_writes_anew_is_papermills_own(project):
    executed = write(project / "out.ipynb", cells=CELLS)
    assert papermill_plugin.read([str(executed)]) is not None
    notebook = json.loads(executed.read_text())
    notebook["metadata"]["papermill"] = {"parameters": {}}
    executed.write_text(json.dumps(notebook))
    assert papermill_plugin.read([str(executed)]) is None


OTHERS = [
    [],
    ["nothing.ipynb"],
    ["{}", "out.ipynb"],
    ["{}", "-p", "beta"],
    ["{}", "--engine", "nbclient"],
    ["--help"],
]


@pytest.mark.parametrize("words", OTHERS)
def test_every_other_call_is_left_alone(project, words):
    notebook = str(project / "notebooks" / "03_nvae.ipynb")
    assert papermill_plugin.read([notebook, "-p", "beta", "4"]) is not None
    assert papermill_plugin.read([word.format(notebook) for word in words]) is None


def test_no_other_process_is_taken_over(monkeypatch, project):
    notebook = str(project / "notebooks" / "03_nvae.ipynb")
    for program, mine in (("/bin/papermill", True), ("/bin/jupyter", False), ("papermill_plugin.py", False)):
        monkeypatch.setattr(sys, "argv", [program, notebook])
        assert (papermill_plugin.arguments() is not None) == mine
    monkeypatch.setattr(sys, "argv", ["-m", notebook])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "papermill", notebook])
    assert papermill_plugin.arguments() == [notebook]
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "pytest", notebook])
    assert papermill_plugin.arguments() is None
