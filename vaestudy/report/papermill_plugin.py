"""`papermill notebooks/03_nvae.ipynb -p beta 4`, typed without an output path, for the notebooks of this study.

papermill insists on an output path, takes the notebook for one where standard input is a pipe (in a shell's loop, say),
and nothing of a plug-in runs before it does, except that the plug-in is loaded. So this module looks at the command
line when papermill's command loads it: a call that names one notebook of the study with parameters and nothing else
becomes `python -m vaestudy.report.papermill_plugin`, which runs it strictly into
`reports/<profile>/03_nvae_beta=4.ipynb` and makes its page. Every other call (an output path, another option, another
notebook, one that was executed already) stays papermill's own. No module of the study imports this one.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from vaestudy import settings, stopping
from vaestudy.errors import InputError
from vaestudy.report import execute

MAPPINGS = ("file", "yaml", "base64")
_CALL = click.Command(
    "papermill",
    add_help_option=False,
    params=[
        click.Argument(["notebook"]),
        click.Option(["-p", "--parameters", "words"], nargs=2, multiple=True),
        click.Option(["-r", "--parameters_raw", "texts"], nargs=2, multiple=True),
        click.Option(["-f", "-y", "-b", *(f"--parameters_{form}" for form in MAPPINGS), "mappings"], multiple=True),
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
    if words is None:
        return None
    try:
        call = _CALL.make_context("papermill", list(words)).params
    except click.ClickException:
        return None
    return call if settings.stage_of(call["notebook"]) and not _was_executed(call["notebook"]) else None


def _was_executed(notebook: str) -> bool:
    """Whether this is an output of papermill, which `... | papermill OUTPUT` writes anew."""
    return "papermill" in json.loads(Path(notebook).read_text(encoding="utf-8"))["metadata"]


def take_over() -> None:
    """Let `main` have the call in place of papermill, if it is a call for it."""
    if read(arguments()) is not None:
        # The words go to this interpreter as they are; no shell reads them.
        os.execv(sys.executable, [sys.executable, "-m", __name__, *arguments()])  # noqa: S606


def main() -> None:
    """Run the notebook of the command line and say where its page is."""
    sys.exit(stopping.status(lambda: run(read(sys.argv[1:]))))


def run(call: dict[str, Any]) -> int:
    """Run the notebook of a call under its parameters; of one given twice, the raw text counts.

    Raises:
        InputError: a wrong parameter, or whole mappings of them.
    """
    if call["mappings"]:
        raise InputError("without an output path, parameters come one by one: -p NAME VALUE")
    given = settings.from_words(settings.stage_of(call["notebook"]), dict(call["words"])) | dict(call["texts"])
    execute.check(call["notebook"], given)

    from vaestudy.report import site

    progress = sys.stderr.isatty() if call["progress"] is None else call["progress"]
    executed, page = site.run_one(call["notebook"], given, progress)
    click.echo(f"{executed}\n{page}")
    return 0


if __name__ == "__main__":
    main()
else:
    take_over()
