"""`papermill notebooks/03_nvae.ipynb -p beta 4`, typed without an output path, for the notebooks of this study.

papermill insists on an output path, takes the notebook for one where standard input is a pipe (in a shell's loop, say),
and of a plug-in runs nothing but its import before that. So this module looks at the command line as it is imported: a
call that names one notebook of the study with parameters and nothing else becomes `python -m
vaestudy.report.papermill_plugin`, which runs it strictly into `reports/<profile>/03_nvae_beta=4.ipynb` and makes its
page. Every other call stays papermill's own. No module of the study imports this one.
"""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from vaestudy import settings, stopping
from vaestudy.errors import InputError, first_line
from vaestudy.report import site

_CALL = click.Command(
    "papermill",
    add_help_option=False,
    params=[
        click.Argument(["notebook"]),
        click.Option(["-p", "--parameters", "words"], nargs=2, multiple=True),
        click.Option(["-r", "--parameters_raw", "texts"], nargs=2, multiple=True),
        click.Option(["-f", "--parameters_file", "files"], multiple=True),
        click.Option(["-y", "--parameters_yaml", "yamls"], multiple=True),
        click.Option(["-b", "--parameters_base64", "encoded"], multiple=True),
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
    try:
        call = _CALL.make_context("papermill", list(words or [])).params
    except click.ClickException:
        return None
    if settings.stage_of(call["notebook"]) is None:
        return None
    # An output of papermill's own is what `... | papermill OUTPUT` writes anew.
    metadata = json.loads(Path(call["notebook"]).read_text(encoding="utf-8"))["metadata"]
    return None if "papermill" in metadata else call


def take_over() -> None:
    """Let `main` have the call in place of papermill, if it is a call for it."""
    if read(arguments()) is None:
        return
    command = [sys.executable, "-m", __name__, *arguments()]
    # The words go to this interpreter as they are; no shell reads them.
    if os.name == "posix":
        os.execv(sys.executable, command)  # noqa: S606
    sys.exit(subprocess.run(command, check=False).returncode)  # noqa: S603 (elsewhere exec would not wait)


def parameters(call: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a call in papermill's order: what is given one by one stands above what mappings say."""
    import yaml

    given = {}
    try:
        texts = [base64.b64decode(text) for text in call["encoded"]]
        texts += [Path(file).read_text(encoding="utf-8") for file in call["files"]]
        for text in [*texts, *call["yamls"]]:
            given |= yaml.safe_load(text) or {}
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise InputError(f"parameters must be a YAML mapping, as 'beta: 4': {first_line(error)}") from error
    stage = settings.stage_of(call["notebook"])
    return given | settings.from_words(stage, dict(call["words"])) | dict(call["texts"])


def main() -> None:
    """Run the notebook of the command line and say where its page is."""
    call = read(sys.argv[1:])
    if call is None:
        sys.exit("usage: papermill NOTEBOOK [-p NAME VALUE]... with a notebook of this study")
    sys.exit(stopping.status(lambda: run(call)))


def run(call: dict[str, Any]) -> int:
    """Run the notebook of a call."""
    progress = sys.stderr.isatty() if call["progress"] is None else call["progress"]
    executed, page = site.run_one(call["notebook"], parameters(call), progress)
    click.echo(f"{executed}\n{page}")
    return 0


if __name__ == "__main__":
    main()
else:
    take_over()
