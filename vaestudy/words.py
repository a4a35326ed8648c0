"""Names, numbers and verdicts in words: the one place where pages, figures, tables and the command line find them."""

import math
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, SupportsFloat

LABELS, PARTS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")).values()
# Columns of a record that tell the settings of its model apart.
SETTINGS = (
    *("data", "image_size", "train_size", "images", "batch_size", "samples", "network", "width"),
    *("latent_dim", "beta", "schedule", "without"),
)
GROUPS = ("top", "second", "third")  # the latent groups of a hierarchy, from above, in names of columns
# Those that no sentence would hold by chance.
_NAMES = sorted((name for name in LABELS if "_" in name or name == "dsprites"), key=len, reverse=True)
_RAW = re.compile(rf"\b({'|'.join(_NAMES)})\b")


def label(name: Any) -> str:
    """The heading or axis label for a column, with its unit; a name that is not known keeps its words."""
    name = str(name)
    return LABELS.get(name) or (name.replace("_", " ") if re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", name) else name)


def readable(text: str) -> str:
    """Text with minus signs before numbers ("vae-2" stays), × between them, and words for names of columns."""
    text = re.sub(r"(?<![\w)])-(?=0\.0+(?![\de]))", "", text)  # what rounds to nothing has no sign
    text = re.sub(r"(?<![\w)])-(?=\d)|(?<=\de)-(?=\d)", "−", text)
    text = re.sub(r"(?<![\w-])\d+( ?x ?\d+)+\b", lambda sides: re.sub(" ?x ?", " × ", sides[0]), text)
    return _RAW.sub(lambda match: LABELS[match[1]], text)


def reason(text: str) -> str:
    """Why a claim was not tested, in which names of settings and experiments become words.

    "no model has beta = 1, part = codes": no model of the experiment “codes and their rotations” has β = 1.
    """
    part = re.search(r"\bpart = (\w+)", text)
    text = re.sub(r"part = \w+, |, part = \w+|(?: has| where) part = \w+(?![,\w])", "", text)
    text = re.sub(r"\belbo\b", "the bound", text)
    text = re.sub(r"\b(beta|\w+(?= = ))\b", lambda name: label(name[1]), text)
    text = re.sub(r"(?<=\d)\.0\b", "", text)
    if part:
        where = f"experiment “{PARTS.get(part[1], part[1])}”"
        text = text.replace("no model", f"no model of the {where}") if "no model" in text else f"{text} ({where})"
    return readable(text)


def number(value: SupportsFloat, digits: int = 4) -> str:
    """A number for people: `digits` significant ones, whole from 10^(digits-1) on, two below 0.01 (e below 0.001)."""
    if not math.isfinite(value):
        return "undefined" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if value == 0 or isinstance(value, Integral) or abs(value) >= 10 ** (digits - 1):
        return readable(f"{value + 0:,.0f}")  # + 0 turns −0 into 0
    if abs(value) < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return readable(f"{mantissa}e{int(exponent)}")
    return readable(f"{value:#.{digits if abs(value) >= 0.01 else 2}g}".rstrip("."))


def fixed(value: SupportsFloat, decimals: int) -> str:
    """A number with so many decimals; what rounds to nothing has no sign."""
    return readable(f"{round(float(value), decimals) + 0.0:,.{decimals}f}")


def decimals(width: SupportsFloat, digits: int = 2) -> int:
    """How many decimals show `digits` significant digits of an interval's width, six at most."""
    return 2 if not (math.isfinite(width) and width > 0) else min(6, max(0, digits - 1 - math.floor(math.log10(width))))


def with_interval(value: SupportsFloat, interval: Sequence[SupportsFloat], unit: str = "") -> str:
    """A value and its interval, with the digits that the interval's width carries: "0.14 [−0.05, 0.22] score"."""
    low, high = interval
    places = decimals(high - low)
    return f"{fixed(value, places)} [{fixed(low, places)}, {fixed(high, places)}] {unit}".strip()


def spread(mean: SupportsFloat, std: SupportsFloat, digits: int = 1) -> str:
    """A mean and its standard deviation."""
    return f"{fixed(mean, digits)} ± {fixed(std, digits)}"


def column(values: Iterable[Any]) -> int | None:
    """The decimals that all numbers of a column share, or None where one number of digits does not fit them all."""
    # Less than a billionth is nothing, and rounding made it.
    sizes = [abs(value) for value in values if isinstance(value, float) and 1e-9 < abs(value) < math.inf]
    if not sizes:
        return None
    places = decimals(max(sizes), 3 if max(sizes) < 10 else 4)
    return places if min(sizes) >= 10**-places else None


def counted(count: int, noun: str) -> str:
    """A number and its noun: "1 seed", "3 seeds"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(items: Iterable[str]) -> str:
    """Words in a row: "a, b and c"."""
    *some, last = items
    return f"{', '.join(some)} and {last}" if some else last


def span(values: Iterable[int]) -> str:
    """Whole numbers in a row: "0 to 9", "3, 5 and 7"."""
    values = sorted(set(values))
    whole = len(values) > 2 and values[-1] - values[0] == len(values) - 1
    return f"{values[0]} to {values[-1]}" if whole else listed(map(str, values))


def verdict(claim: Mapping[str, Any]) -> str:
    """The verdict: exploratory where a run has changed parameters or toy sizes, interim before all seeds are there."""
    notes = ["exploratory"] if claim["exploratory"] else []
    notes += reservations(claim["verdict"], None, claim.get("interim"))
    return _noted(claim["verdict"], notes if claim["verdict"] != "not tested" else [])


def known_verdict(claim: Mapping[str, Any]) -> str:
    """The verdict of this run or, where it did not test, that of the published evidence if there is one."""
    return claim.get("published") or "not tested" if claim["verdict"] == "not tested" else claim["verdict"]


def published(claim: Mapping[str, Any]) -> str | None:
    """The verdict of the published evidence with its reservations, None where it has none."""
    if not claim.get("published"):
        return None
    notes = reservations(claim["published"], claim.get("published_decidable"), claim.get("published_interim"))
    return _noted(claim["published"], notes)


def known_evidence(claim: Mapping[str, Any]) -> tuple[bool, bool | None, str | None]:
    """Whether a claim is tested here; whether its `known_verdict` is decided, and of how many seeds it is as long as
    some are missing."""
    if claim["verdict"] == "not tested":
        return False, claim.get("published_decidable"), claim.get("published_interim")
    return True, claim["decidable"], claim.get("interim")


def known_with_reservations(claim: Mapping[str, Any]) -> str:
    """The `known_verdict`, with its reservations."""
    verdict, (_, *evidence) = known_verdict(claim), known_evidence(claim)
    return _noted(verdict, reservations(verdict, *evidence))


def _noted(verdict: str, notes: list[str]) -> str:
    return f"{verdict} ({'; '.join(notes)})" if notes else verdict


def reservations(verdict: str, decidable: bool | None, interim: str | None) -> list[str]:
    """What stands beside a verdict that resamples do not repeat, or of which seeds are missing."""
    notes = ["a tendency"] if verdict != "undecided" and decidable is False else []
    return [*notes, f"interim, {interim}"] if interim else notes


def effect(claim: Mapping[str, Any]) -> str | None:
    """The effect with its interval and unit, None where nothing was tested."""
    return None if claim["effect"] is None else with_interval(claim["effect"], claim["interval"], claim["unit"])


def how_sure(claim: Mapping[str, Any]) -> str:
    """Whether a repetition would say the same; else the smallest effect that would have shown, or the reason."""
    if claim["decidable"]:
        return "repeated in 95 % of resamples"
    if claim["verdict"] in ("supported", "contradicted"):
        return "a tendency: resamples repeat it less often than 95 %"
    least = claim.get("smallest_visible")
    return reason(claim["reason"] or ("" if least is None else f"an effect of {number(least, 2)} would have shown"))


def verdicts(claims: Iterable[Mapping[str, Any]]) -> str:
    """How many claims came out how, and how many of the verdicts for or against a repetition would give again."""
    claims = list(claims)
    counts = Counter(claim["verdict"] for claim in claims)
    sure = sum(claim["decidable"] for claim in claims)
    text = f"Of {counted(len(claims), 'claim')}: {', '.join(f'{count} {name}' for name, count in counts.most_common())}"
    if not counts["supported"] + counts["contradicted"]:
        return f"{text}."
    text += f"; {sure or 'none'} of the verdicts for or against {'is' if sure < 2 else 'are'} "
    return text + "repeated in 95 % of resamples of the models."
