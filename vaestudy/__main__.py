"""The command line: run the study, compare reports, list runs, or train and score one stage without Jupyter."""

import argparse
import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vaestudy import settings, stopping, words
from vaestudy.errors import InputError
from vaestudy.files import plain, project_root


def main(arguments: list[str] | None = None) -> int:
    """Run the command line, and return its exit status (see `stopping.status`)."""
    typed = list(sys.argv[1:] if arguments is None else arguments)
    if typed and typed[0] in settings.STAGES:  # the older form, without `train`
        typed.insert(0, "train")
    return stopping.status(lambda: _called(typed))


def _called(typed: list[str]) -> int:
    parser = _parser()
    chosen, others = parser.parse_known_args(typed)
    if others and "stage" in chosen:
        name = others[0].partition("=")[0].lstrip("-").replace("-", "_")
        raise InputError(settings.unknown(name, settings.fields(chosen.stage), chosen.stage))
    if others:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    options = vars(chosen)
    return options.pop("run")(**options)


def _train(stage: str, dry_run: bool, as_json: bool, **given: Any) -> int:
    settings.resolve(stage, **given)  # refuses quickly, before torch is imported

    from vaestudy import experiments
    from vaestudy.experiments import plan
    from vaestudy.training import distributed

    chosen = experiments.prepare(stage, **given)
    if dry_run:
        planned = plan.plan(chosen, experiments.STAGES[stage])
        print(json.dumps(planned, indent=2, default=plain) if as_json else plan.text(planned))
        return 0
    plan.check_memory(chosen, experiments.STAGES[stage])
    distributed.start()
    trained = experiments.STAGES[stage].train_and_score(chosen)
    if distributed.rank() == 0 and trained:
        if as_json:
            print(json.dumps([{"folder": str(run.path), **run.record} for run in trained], indent=2))
        else:
            _print_runs([run.path for run in trained])
    return 0


def _runs(runs_dir: str, as_json: bool) -> int:
    from vaestudy.training import listing

    folder = project_root() / runs_dir
    found = listing.runs(folder)
    if not len(found):
        raise InputError(f"there are no runs in {folder}: train a stage, or name their folder with --runs-dir")
    if as_json:
        rows = json.loads(found.to_json(orient="records"))  # what is missing is null
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        _print_runs(list(found["folder"]))
    return 0


def _print_runs(folders: Sequence[Path | str]) -> None:
    """A line a run: what it is, how far it has come, how well and how fast; then what was measured of it."""
    import pandas as pd

    from vaestudy.training import listing

    table = pd.concat([listing.runs(folder) for folder in folders], ignore_index=True)
    shown = {"β": "{:g}".format, "ELBO, nats": functools.partial(words.fixed, decimals=2)}
    print(table.to_string(index=False, formatters=shown, float_format="{:,.1f}".format, na_rep="–"))
    for folder in folders if len(folders) < 5 else []:
        for name, value in listing.scores(folder).items():
            print(f"  {name}: {value}")


def _study(profile: str, out: str) -> int:
    from vaestudy.report import site

    site.study(profile, out, progress=sys.stderr.isatty())
    return 0


def _verify(report: str, against: str) -> int:
    from vaestudy.claims import verify

    path, ours = Path(report), _results(Path(report))
    beside = Path(against) if against else project_root() / "reports" / "published" / str(ours.get("profile"))
    if not against and not beside.is_dir():
        raise InputError(f"no published report stands beside {path}: {beside} is not there; name one with --against")
    found = verify(ours, _results(beside))
    print(found.table.to_string(index=False))
    print(found.line)
    return 0 if found.ok else 1


def _results(path: Path) -> dict:
    path = path / "results.json" if path.is_dir() else path
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no report: {error}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vaestudy", description=__doc__.partition(":")[2].strip())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    study = commands.add_parser("study", help="run the notebooks of all stages into an HTML report")
    study.set_defaults(run=_study)
    study.add_argument("--profile", default="auto", help=settings.fields("vae")["profile"].metadata["help"])
    study.add_argument("--out", default="reports", help="folder of the reports")
    verify = commands.add_parser("verify", help="compare a report with the published one of its profile")
    verify.set_defaults(run=_verify)
    verify.add_argument("report", nargs="?", default="reports/laptop", help="a report's folder or results.json")
    verify.add_argument("--against", default="", help="the report to compare with (default: the published one)")
    runs = commands.add_parser("runs", help="list the runs that are there: settings, state, bound, folder")
    runs.set_defaults(run=_runs)
    runs.add_argument("--runs-dir", default="runs", help="folder of the runs, relative to the project")
    runs.add_argument("--json", action="store_true", dest="as_json", help="as JSON")
    train = commands.add_parser("train", help="train and score one stage")
    stages = train.add_subparsers(required=True, metavar="STAGE", dest="stage")
    for name, cls in settings.STAGES.items():
        title = cls.__doc__.splitlines()[0]
        stage = stages.add_parser(name, help=title, description=title)
        stage.set_defaults(run=_train)
        for field in settings.fields(name).values():
            how = {"help": f"{field.metadata['help']} (default: {field.default!r})", "default": argparse.SUPPRESS}
            spellings = dict.fromkeys([f"--{field.name}", f"--{field.name.replace('_', '-')}"])
            stage.add_argument(*spellings, dest=field.name, type=field.type, **how)
        stage.add_argument("--dry-run", action="store_true", help="say what would be trained, with its costs, and stop")
        stage.add_argument("--json", action="store_true", dest="as_json", help="the plan or the results as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
