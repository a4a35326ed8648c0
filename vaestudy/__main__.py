"""Train and score one stage without Jupyter, or run the whole study: `python -m vaestudy STAGE --help`."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable

import torch

from vaestudy import data, metrics, models, stages
from vaestudy.errors import InputError
from vaestudy.files import plain
from vaestudy.stages import Settings
from vaestudy.training import distributed as workers
from vaestudy.training import memory, sweep, trainer
from vaestudy.training import run as runs


def train_vae(settings: Settings) -> list[runs.Run]:
    """Stage 1: one VAE, its bound on held-out images and its score card."""
    train, test = data.train_and_test(settings.dataset, settings.sizes["test_images"], **settings.data)
    model = models.VAE(train.shape, **settings.model)
    path = runs.folder(settings.runs, settings.stage, model, train, settings.training)
    run = trainer.fit(model, train, settings.training, path)
    if workers.rank() == 0:
        codes, factors = run.codes(data.load(settings.dataset, **settings.data).subsample(100_000))
        card = [] if factors is None else metrics.score_card(codes, factors, seed=settings.seed)
        run.record(test=run.bound(test), score_card=[score._asdict() for score in card])
    return [run]


def train_beta_vae(settings: Settings) -> list[runs.Run]:
    """Stage 2: the sweep over β, each member with its scores."""
    images = data.load(settings.dataset, **settings.data)
    found = [
        *sweep.fit(images, settings.grid, settings.training, settings.runs, **settings.model),
        *sweep.fit(images, settings.other_grid, settings.training, settings.runs, **settings.model),
    ]
    if workers.rank() == 0:
        seen = images.subsample(settings.sizes["grid_images"])
        factors = seen.factors.values(slice(None))
        exam = {"seed": settings.seed, "classes": settings.classes(seen.factors.names), "pairs": settings.pairs}
        for run, codes in zip(found, sweep.codes(found, seen), strict=True):
            run.record(scores=metrics.scores(codes, factors, **exam, only=("higgins", "factor_vae", "mig")))
    return found


def train_nvae(settings: Settings) -> list[runs.Run]:
    """Stage 3: one NVAE for each β, with its bound and the scores of each latent group."""
    train, test = data.train_and_test(settings.dataset, settings.sizes["test_images"], **settings.data)
    config = settings.config(train.shape)
    train, test = train.quantized(config.bits), test.quantized(config.bits)
    found = []
    for beta in settings.betas:
        model, recipe = models.NVAE(config), settings.training(beta)
        path = runs.folder(settings.runs, settings.stage, model, train, recipe)
        found.append(run := trainer.fit(model, train, recipe, path))
        if workers.rank() == 0:
            seen = train.select(slice(0, settings.sizes["scored_images"]))
            exam = {"seed": settings.seed, "pairs": 5, "only": ("higgins", "factor_vae", "mig")}
            groups, factors = run.codes_by_group(seen)
            scores = [] if factors is None else [metrics.scores(codes, factors, **exam) for codes in groups]
            run.record(test=run.bound(test), scores_by_group=scores)
    return found


TRAIN: dict[str, Callable[[Settings], list[runs.Run]]] = {
    "vae": train_vae,
    "beta_vae": train_beta_vae,
    "nvae": train_nvae,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit status is 0, or not after one line: 2 for bad input, 1 for a failed notebook."""
    chosen = vars(_parser().parse_args(arguments))
    stage, dry_run = chosen.pop("stage"), chosen.pop("dry_run", False)
    try:
        if stage == "study":
            return _study(**chosen)
        settings = stages.settings(stage, **{name: v for name, v in chosen.items() if v is not None})
        if dry_run:
            resolved = {"stage": stage, **dataclasses.asdict(settings), "sizes": settings.sizes}
            if stage == "nvae":
                resolved["memory"] = _memory(settings)
            print(json.dumps(resolved, indent=2, default=plain))
            return 0
        workers.start()
        trained = TRAIN[stage](settings)
        for run in trained if workers.rank() == 0 else []:
            print(f"{run.path}\n{json.dumps(run.result, indent=2)}")
    except InputError as error:
        print(f"vaestudy: {error}", file=sys.stderr)
        return 2
    return 0


def _memory(settings: Settings) -> dict[str, float]:
    """The predicted memory of a training step, and the largest shard that the free memory holds."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    channels, *own = models.NVAEConfig.preset(settings.preset or settings.sizes["preset"]).shape
    with torch.device("meta"):
        model = models.NVAE(settings.config((channels, *([settings.side] * 2 if settings.side else own))))
    found, free = memory.needed(model, settings.training(settings.beta)), memory.free_bytes(device)
    parts = {"fixed": found.fixed, "per_image": found.per_image, "free": free}
    return {f"{name}_gb": round(size / 1e9, 4) for name, size in parts.items()} | {"largest_shard": found.largest(free)}


def _study(profile: str, out: str) -> int:
    # The notebook stack is not needed to train and score, so a machine without it can.
    from vaestudy.report import execute as report

    try:
        report.study(profile, out, progress=sys.stderr.isatty())
    except report.NotebookError as error:
        print(f"vaestudy: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vaestudy", description=__doc__.split(":")[0])
    commands = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    study = commands.add_parser("study", help="run the notebooks of all stages into an HTML report")
    study.add_argument("--profile", default="auto", help="smoke, laptop, gpu, paper or auto")
    study.add_argument("--out", default="reports", help="folder of the reports")
    for name, cls in stages.STAGES.items():
        title = cls.__doc__.splitlines()[0]
        stage = commands.add_parser(name, help=title, description=title)
        for field in dataclasses.fields(cls):
            said = f"{field.metadata['help']} (default: {field.default!r})"
            stage.add_argument(f"--{field.name}", f"--{field.name.replace('_', '-')}", type=field.type, help=said)
        stage.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")
    return parser


if __name__ == "__main__":
    sys.exit(main())
