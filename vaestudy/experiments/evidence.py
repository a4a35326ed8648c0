"""The evidence: parts, trained and scored piece by piece, whose records are written once and read by every page.

A piece holds every setting of a part for the same few seeds, trained on one machine; see `vaestudy.claims`.
"""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from vaestudy import claims, data, profiles
from vaestudy.claims.records import NAMES
from vaestudy.data import ImageSet
from vaestudy.errors import InputError
from vaestudy.experiments.common import image_side, runs_root, seeds_from
from vaestudy.files import canonical, plain, project_root, replacing
from vaestudy.settings import STAGES, Settings
from vaestudy.training import Job, Run, fit_many
from vaestudy.training.parallel import side_by_side
from vaestudy.training.provenance import provenance

# Of the columns of a record, and of the scores: another one where a metric or its protocol changes.
VERSIONS = {"record_version": 2, "metric_version": 1}
# Parameters that change what a page shows and not what its parts train.
SHOWN = ("profile", "data_dir", "runs_dir", "seed", "temperature")


class Context(NamedTuple):
    """What a part is made of: the profile's row of it (`sizes`), folders of data and runs, and the models' seeds."""

    sizes: Mapping[str, Any]
    data_dir: str | None
    runs_root: Path
    seeds: tuple[int, ...] = ()

    @property
    def source(self) -> tuple[str, int | None]:
        """The data set and the side of its images; parts of stage 3 name their own, dSprites unless another."""
        row = self.sizes
        if "side" in row:
            return row.get("data", "dsprites"), row["side"]
        return row["dataset"], row["image_size"] or None

    def images(self) -> ImageSet:
        """All images of the data set, or those of its training split."""
        name, side = self.source
        return data.load(name, image_size=side, data_dir=self.data_dir)

    def train_and_test(self) -> tuple[ImageSet, ImageSet]:
        """Images to train on, and those held out, which the sizes count."""
        name, side = self.source
        return data.train_and_test(name, self.sizes["test_images"], image_size=side, data_dir=self.data_dir)


class Part(NamedTuple):
    """An experiment on the page of a stage, named as in `vaestudy.claims`.

    `rows` trains and scores its models: a dict a model of plain numbers and words, its seed, its settings
    (`vaestudy.words.SETTINGS`) and its scores. `jobs` are the trainings, on images that may have no data,
    `images` those with. `version` is another one where scores or training change, so that records are made anew.
    """

    name: str
    stage: str
    rows: Callable[[Context], list[dict]]
    jobs: Callable[[Context, ImageSet], list[Job]] = lambda _context, _images: []
    images: Callable[[Context], ImageSet] = Context.images
    version: int = 1


PARTS: dict[str, Part] = {}


def part(
    name: str, stage: str, jobs: Callable, images: Callable = Context.images, version: int = 1
) -> Callable[[Callable], Callable]:
    """Put a part into `PARTS` whose rows a function makes from a context and its trained runs."""

    def register(score: Callable[[Context, list[Run]], list[dict]]) -> Callable:
        PARTS[name] = Part(name, stage, lambda own: score(own, fit_many(jobs(own, images(own)))), jobs, images, version)
        return score

    return register


def apart(name: str, row: Callable[..., dict], settings: Callable[..., Iterable], job: Callable[..., Job]) -> None:
    """Put a part of stage 3 into `PARTS`, whose models are trained and scored side by side.

    `row` and `job` take a context, one of the `settings` of its sizes and a seed; `job` the images, too.
    """

    def models(context: Context) -> list[tuple]:
        return [(context, setting, seed) for seed in context.seeds for setting in settings(context.sizes)]

    PARTS[name] = Part(
        name,
        "nvae",
        rows=lambda context: side_by_side(row, models(context)),
        jobs=lambda context, images: [job(*model, images) for model in models(context)],
        images=lambda context: context.train_and_test()[0],
    )


def run_piece(part: Part, context: Context, seeds: Iterable[int], piece: str, folder: Path) -> pd.DataFrame:
    """The records of a part for some seeds, from `<folder>/records/<part>-<piece>.jsonl`; those missing are made, and
    those of other sizes or versions anew.

    Raises:
        InputError: a file that is damaged.
    """
    path, same = _path(folder, part.name, piece), {**VERSIONS, "recipe": _recipe(context.sizes, part.version)}
    known = [row for row in _read(path) if same.items() <= row.items()] if path.exists() else []
    missing = tuple(seed for seed in seeds if seed not in {row["seed"] for row in known})
    if missing:
        began, about = time.perf_counter(), provenance()
        made = part.rows(context._replace(seeds=missing))
        seconds = round((time.perf_counter() - began) / max(1, len(made)), 1)
        about = {name: about[name] for name in ("commit", "cpu", "threads")} | {"seconds": seconds}
        known += [{"part": part.name, "piece": piece, **_plain(row), **same, **about} for row in made]
        known.sort(key=lambda row: row["seed"])
        if known:  # a part that these images cannot have has no models
            with replacing(path) as temporary:
                temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in known), "utf-8")
    return _frame([row for row in known if row["seed"] in set(seeds)])


def read(folder: Path) -> pd.DataFrame:
    """All records under `<folder>/records/`, a row a model.

    Raises:
        InputError: a file that is damaged, or records of another version.
    """
    rows = []
    for path in _files(folder):
        own = _read(path)
        for name, version in VERSIONS.items():
            if others := {row[name] for row in own} - {version}:
                raise InputError(f"{path} has {name} {others.pop()} where {version} is read: make it anew")
        rows += own
    return _frame(rows)


def run_all(profile: str, folder: Path, say: Callable[[str], Any] = print) -> int:
    """Make the records that are missing of every part that a profile runs in pieces, and return how many files.

    It can be stopped at any moment: trainings go on where they were. The models of a piece go with its last record.
    """
    pieces = {stage: own for stage in STAGES if (own := profiles.sizes(stage, profile)["pieces"])}
    todo = [(name, sizes, own) for stage, own in pieces.items() for name, sizes in plan(stage, profile).items()]
    runs, files = folder / "runs", 0
    count = max((math.ceil(sizes["seeds"] / own) for _, sizes, own in todo), default=0)
    for number in range(count):
        for name, sizes, own in todo:
            seeds, piece = range(sizes["seeds"])[number * own : (number + 1) * own], f"{number:02d}"
            if seeds:
                path, began = _path(folder, name, piece), time.perf_counter()
                before = path.read_bytes() if path.exists() else b""
                rows = run_piece(PARTS[name], Context(sizes, None, runs), seeds, piece, folder)
                made = path.exists() and path.read_bytes() != before
                files += made
                state = f"{time.perf_counter() - began:.0f} s" if made else "there"
                say(f"piece {number + 1} of {count}, {name}: {len(rows)} records, {state}")
        shutil.rmtree(runs, ignore_errors=True)
    return files


def of_page(settings: Settings) -> pd.DataFrame:
    """The records that decide the claims of a page: of all pieces that are there, in a profile that is run in pieces;
    else the profile's parts are run here."""
    if profiles.sizes(settings.stage, settings.profile)["pieces"]:
        own = folder(settings.profile)
        return read(own if _files(own) else folder(f"published/{settings.profile}"))
    frames = [part_of_page(settings, name) for name in profiles.parts(settings.stage, settings.profile)]
    # The copy lays the columns of parts that share few of them together.
    return pd.concat(frames, ignore_index=True).copy() if frames else _frame([])


def folder(profile: str) -> Path:
    """Where the records of a profile that is run in pieces are."""
    return project_root() / "reports" / profile


def sources(profile: str) -> list[Path]:
    """The files of records and verdicts that the pages of a profile are made from, but for what they train."""
    folders = dict.fromkeys([folder(profile), folder(f"published/{profile}"), folder("published/night")])
    verdicts = _published_verdicts()
    return [path for own in folders for path in _files(own)] + [verdicts] * verdicts.is_file()


def adopt_published(jobs: Iterable[Job], profile: str) -> None:
    """Copy the published runs among the trainings of a page that is made from published records."""
    for job in jobs if not _files(folder(profile)) else ():
        published, own = folder(f"published/{profile}") / "runs" / Path(job.run_dir).name, job.run
        if published.is_dir() and not own.finished:
            for name in Run.FILES:  # of which the last says that all are there
                with replacing(own.path / name) as temporary:
                    shutil.copyfile(published / name, temporary)


def part_of_page(settings: Settings, name: str) -> pd.DataFrame:
    """The records of one part of a page, whose seeds are one piece.

    Records of stages 1 and 2 belong to the very images that they were made from; stage 3 has sets of its own.
    """
    context = context_of_page(settings, name)
    if "dataset" in changed(settings) and settings.stage != "nvae":
        context = context._replace(sizes=context.sizes | {"content": context.images().describe()})
    return run_piece(PARTS[name], context, context.seeds, settings.profile, context.runs_root)


def context_of_page(settings: Settings, name: str) -> Context:
    """What a part of a page is made of."""
    sizes, data_dir = plan(settings.stage, settings.profile)[name], settings.data_dir or None
    if settings.stage != "nvae":
        sizes |= changed(settings)
    elif settings.dataset:
        data_dir = None
    return Context(sizes, data_dir, runs_root(settings), seeds_from(settings.seed, sizes["seeds"]))


def plan(stage: str, profile: str) -> dict[str, dict[str, Any]]:
    """The parts that a profile runs for a stage, each with its sizes."""
    return {name: {**_own(stage), **sizes} for name, sizes in profiles.parts(stage, profile).items()}


def page_sizes(settings: Settings) -> dict[str, Any]:
    """The sizes of a page: the stage's own parameters, the profile's row, and what was given for them."""
    return {**_own(settings.stage), **profiles.sizes(settings.stage, settings.profile), **changed(settings)}


def _own(stage: str) -> dict[str, Any]:
    return {name: field.default for name, field in STAGES[stage].__dataclass_fields__.items() if name not in SHOWN}


def changed(settings: Settings) -> dict[str, Any]:
    """The parameters that are not the stage's own, but for those that only change what is shown."""
    own = _own(settings.stage)
    found = {name: getattr(settings, name) for name in own if getattr(settings, name) != own[name]}
    return found | ({"image_size": image_side(settings)} if "dataset" in found else {})


def either(records: pd.DataFrame, name: str, dataset: str = "") -> pd.DataFrame:
    """The records of a part, of `dataset` alone where one is named: a run's own or, where it does not run the part, the
    published ones, if there are any."""
    found = records if (records["part"] == name).any() else read(folder("published/night"))
    found = found[found["part"] == name]
    return found[found["data"] == dataset] if dataset and len(found) else found


def judge(settings: Settings, records: pd.DataFrame) -> list[dict]:
    """The claims of a page as `claims.evaluate` gives them, each with its verdict in the published evidence."""
    own = [claim for claim in claims.CATALOGUE if claim.page.partition("_")[2] == settings.stage]
    sizes = profiles.sizes(settings.stage, settings.profile)
    exploratory = sizes["exploratory"] or bool(changed(settings)) or settings.seed != 0
    found = claims.evaluate(records, settings.profile, exploratory=exploratory, catalogue=own)
    path = _published_verdicts()
    published = json.loads(path.read_text("utf-8"))["claims"] if path.exists() else []
    known = {claim["id"]: claim for claim in published if claim["verdict"] != "not tested"}
    there = {"published": "verdict", "published_interim": "interim", "published_decidable": "decidable"}
    return [claim | {key: known.get(claim["id"], {}).get(name) for key, name in there.items()} for claim in found]


def _published_verdicts() -> Path:
    return folder("published/night") / "results.json"


def _path(folder: Path, part: str, piece: str) -> Path:
    return Path(folder) / "records" / f"{part}-{piece}.jsonl"


def _files(folder: Path) -> list[Path]:
    return sorted((Path(folder) / "records").glob("*.jsonl"))


def _recipe(sizes: Mapping[str, Any], version: int) -> str:
    """What tells records of other sizes and of another version apart; more seeds are no other size."""
    known = canonical({name: value for name, value in sizes.items() if name != "seeds"})
    known |= {"version": version} if version > 1 else {}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]


def _read(path: Path) -> list[dict]:
    try:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        broken = next((name for row in rows for name in (*NAMES, "recipe") if name not in row), None)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged: remove it, and its records are made anew") from error
    if broken or not rows:
        raise InputError(f"{path} is damaged: {broken or 'records'} missing; remove it, and they are made anew")
    return rows


def _plain(row: dict) -> dict:
    """A record as JSON keeps it; a score that is not finite is none."""
    text = json.dumps(row, default=plain, sort_keys=True)
    return json.loads(text, parse_constant=lambda _: None)  # of NaN and ±Infinity


def _frame(rows: list[dict]) -> pd.DataFrame:
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(NAMES))
