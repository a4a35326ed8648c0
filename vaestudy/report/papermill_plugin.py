"""`papermill notebooks/03_nvae.ipynb -p beta 4`, typed without an output path, for the notebooks of this study.

papermill insists on an output path, and nothing of a plug-in runs before it does, except that the plug-in is loaded.
So this module looks at the command line when papermill's command loads it: a call that names one notebook of the study
with parameters and nothing else becomes `python -m vaestudy.report.papermill_plugin`, which runs it strictly into
`reports/<profile>/03_nvae_beta=4.ipynb` and makes its page. Every other call (an output path, another option, another
notebook, a notebook on stdin) stays papermill's own. No module of the study imports this one.
"""

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from vaestudy import parameters
from vaestudy.errors import InputError

_CALL = click.Command(
    "papermill",
    add_help_option=False,
    params=[
        click.Argument(["notebook"]),
        click.Option(["-p", "--parameters", "words"], nargs=2, multiple=True),
        click.Option(["-r", "--parameters_raw", "texts"], nargs=2, multiple=True),
        click.Option(["--progress-bar/--no-progress-bar", "progress"], default=None),
    ],
)

handler = object()  # papermill registers it for paths that begin with "vaestudy://", of which there are none


def arguments() -> list[str] | None:
    """The arguments of papermill's command, or None in any other process that loads papermill."""
    program, *rest = sys.argv
    if program == "-m":  # `python -m papermill`: Python has not put the module's name in place yet
        program = sys.orig_argv[-len(sys.argv)]
    return rest if Path(program).stem == "papermill" else None


def read(words: list[str] | None) -> dict[str, Any] | None:
    """The parts of a call that names a notebook of this study and parameters alone; None for every other call."""
    if words is None or _is_piped(sys.stdin):
        return None
    try:
        call = _CALL.make_context("papermill", list(words)).params
    except click.ClickException:
        return None
    return call if parameters.stage_of(call["notebook"]) else None


def take_over() -> None:
    """Let `main` have the call in place of papermill, if it is a call for it."""
    if read(arguments()) is None:
        return
    command = [sys.executable, "-m", __name__, *arguments()]
    if os.name == "posix":
        os.execv(sys.executable, command)
    sys.exit(subprocess.run(command, check=False).returncode)  # elsewhere exec would not wait


def main() -> None:
    """Run the notebook of the command line and say where its page is."""
    from vaestudy.report import execute as report

    call = read(sys.argv[1:])
    if call is None:
        sys.exit("usage: papermill NOTEBOOK [-p NAME VALUE]... with a notebook of this study")
    try:
        notebook = parameters.inspect(call["notebook"])
        given = parameters.from_text(notebook, dict(call["words"])) | dict(call["texts"])
        progress = sys.stderr.isatty() if call["progress"] is None else call["progress"]
        executed, page = report.run_one(notebook.path, given, progress)
    except InputError as error:
        click.echo(f"vaestudy: {error}", err=True)
        sys.exit(2)
    except report.NotebookError as error:
        click.echo(f"vaestudy: {error}", err=True)
        sys.exit(1)
    click.echo(f"{executed}\n{page}")


def _is_piped(stream: Any) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except (AttributeError, OSError, ValueError):  # no standard input at all, or one that a test has replaced
        return False


if __name__ == "__main__":
    main()
else:
    take_over()
