"""One notebook of the study, run strictly: its parameters are checked first, and it is written whole or not at all."""

import hashlib
import json
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import vaestudy
from vaestudy import settings
from vaestudy.errors import InputError, NotebookError
from vaestudy.files import project_root, replacing, writing
from vaestudy.stopping import GOES_ON, stop_requests


def check(path: Path | str, given: Mapping[str, Any]) -> Any:
    """The settings of a notebook of this study under the given parameters; refuses quickly, before torch is imported.

    Raises:
        InputError: there is no such notebook, it is none of this study, or a parameter is wrong.
    """
    if not Path(path).is_file():
        raise InputError(f"there is no notebook {path}")
    stage = settings.stage_of(path)
    if stage is None:
        raise InputError(f"{path} is no notebook of this study: its metadata name no stage")
    resolved = settings.resolve(stage, **given)
    from vaestudy import experiments

    experiments.STAGES[stage].check(resolved)
    return resolved


def run_notebook(path: Path | str, given: Mapping[str, Any], output: Path | str, progress: bool = False) -> Path:
    """Execute a notebook of this study under the given parameters into `output`, and return that path.

    Nothing runs and nothing is written when a parameter is wrong. What is executed grows in `<output>.partial.ipynb`,
    takes the place of `output` at the end, and stays there when a cell fails. `progress`: stderr shows how far it is.

    Raises:
        InputError: a wrong parameter, a folder that cannot be written, or bad input that a cell found.
        NotebookError: any other failure of a cell.
    """
    checked, output = check(path, given), Path(output)
    given = {name: getattr(checked, name) for name in given}
    require_writable(output.parent)
    partial, mark = output.with_suffix(".partial.ipynb"), fingerprint(path, given)
    cells = sum(cell["cell_type"] == "code" for cell in _read(path)["cells"]) + bool(given)  # papermill adds one

    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError

    kernel = _kernel_manager()
    literal = (str(own).replace("{", "{{").replace("}", "}}") for own in (path, partial))  # papermill fills in braces
    try:
        with (
            writing(partial),
            stop_requests(kernel.interrupt) as requested,
            _progress(cells, project_root() / checked.runs_dir, progress, requested) as begin_cell,
        ):
            node = papermill.execute_notebook(
                *literal,
                given,
                progress_bar=False,
                kernel_name="python3",
                kernel_manager_class=kernel,
                on_cell_start=begin_cell,
                start_timeout=300,
                extra_arguments=["--log-level=CRITICAL"],  # of the kernel, which warns of every local socket
            )
    except papermill.PapermillExecutionError as error:
        said = first_line(error.evalue)
        if requested:
            raise requested[0](said or GOES_ON) from None
        values = ", ".join(f"{name}={in_words(chosen)}" for name, chosen in given.items()) or "no parameters"
        where = f"stage {checked.stage}, cell {error.exec_count}, {first_line(error.source)!r}, {values}"
        kind = InputError if error.ename == "InputError" else NotebookError
        raise kind(f"{error.ename}: {said} ({where}; executed so far: {partial})") from None
    except DeadKernelError:
        reason = f"the kernel of stage {checked.stage} died: stopped by hand, or out of memory (take a smaller profile)"
        raise NotebookError(f"{reason} (executed so far: {partial})") from None
    node.metadata["vaestudy"] |= {"fingerprint": mark, "version": vaestudy.__version__}
    with replacing(output) as temporary:
        nbformat.write(node, temporary)
    partial.unlink(missing_ok=True)
    return output


def fingerprint(path: Path | str, given: Mapping[str, Any]) -> str:
    """A digest of all that decides what a notebook would show: its code and parameters, the library and the records."""
    from vaestudy.experiments import evidence

    shown = [dict(given), [cell["source"] for cell in _read(path)["cells"]]]
    records = evidence.sources(settings.resolve(settings.stage_of(path), **given).profile)
    parts = [json.dumps(shown, sort_keys=True).encode(), _library(), *map(Path.read_bytes, records)]
    return hashlib.sha256(b"".join(parts)).hexdigest()


@cache
def _library() -> bytes:
    files = sorted(Path(vaestudy.__file__).parent.rglob("*"))
    return b"".join(file.read_bytes() for file in files if file.is_file() and file.suffix != ".pyc")


def is_fresh(path: Path | str, given: Mapping[str, Any], output: Path | str) -> bool:
    """Whether `output` is this very notebook, executed under these parameters by this library from these records."""
    try:
        executed = _read(output)["metadata"]["vaestudy"]["fingerprint"]
    except (OSError, ValueError, KeyError):
        return False
    return executed == fingerprint(path, given)


def require_writable(folder: Path) -> None:
    """Raise InputError unless files can be made in `folder`, which is created."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()


def in_words(value: Any) -> str:
    """A parameter's value as people write it: 4 for 4.0."""
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _kernel_manager() -> type:
    """Kernels of the interpreter that runs now, whatever else is registered under the name python3.

    `interrupt()` of the class interrupts them as Ctrl-C does; a training saves its state before it stops.
    """
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class ThisInterpreter(AsyncKernelManager):
        def _kernel_spec_manager_default(self) -> KernelSpecManager:
            return KernelSpecManager(kernel_dirs=[])  # without folders to look in, python3 is ipykernel's own

        async def start_kernel(self, **named: Any) -> None:
            await super().start_kernel(**named)
            started.append(self.provisioner.process)

        @staticmethod
        def interrupt() -> None:
            for process in started:
                process.send_signal(signal.SIGINT)

    started: list[Any] = []
    return ThisInterpreter


@contextmanager
def _progress(cells: int, runs: Path, shown: bool, requested: list) -> Iterator[Callable]:
    """Yields what nbclient calls at each cell; `shown`, the cell and the newest training stand on stderr meanwhile.

    A request to stop that met a kernel between two cells acts at the next one.
    """
    from tqdm import tqdm

    began, over = time.time(), threading.Event()
    number, line, since = 0, "", began

    def begin(cell: Any, cell_index: int) -> None:
        nonlocal number, line, since
        if requested:
            raise requested[0](GOES_ON)
        if cell.cell_type == "code":
            number, line, since = number + 1, first_line(cell.source), time.time()

    def show() -> None:
        with tqdm(bar_format="{desc}", file=sys.stderr, leave=False, dynamic_ncols=True) as bar:
            while not over.wait(1):
                about = " | ".join(filter(None, (newest_training(runs, began), line)))
                bar.set_description_str(f"cell {number} of {cells}, {time.time() - since:.0f} s: {about}")

    with ThreadPoolExecutor(1) as side:
        if shown:
            side.submit(show)
        try:
            yield begin
        finally:
            over.set()


def newest_training(runs: Path, since: float) -> str:
    """The model and β that wrote into a log last, and how many images it has seen; empty if none has since then."""
    with suppress(OSError, ValueError, LookupError):  # a run may be moved or removed meanwhile
        log = max(runs.glob("*/metrics.jsonl"), key=lambda path: path.stat().st_mtime)
        seen = re.findall(r'"images_seen": (\d+)', log.read_text())[-1] if log.stat().st_mtime >= since else ""
        model, _, recipe = json.loads((log.parent / "config.json").read_text())
        return f"{next(iter(model))}, β = {recipe['objective']['beta']:g}, {int(seen):,} images"
    return ""


def first_line(text: str) -> str:
    """The first line of some text that says anything, or nothing."""
    return next(iter(text.strip().splitlines()), "")


def _read(path: Path | str) -> dict:
    return json.loads(Path(path).read_text(encoding="utf-8"))
