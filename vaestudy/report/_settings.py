"""Today's `parameters` and `stages` under the names of `vaestudy.settings`, which replaces this module."""

import ast
import contextlib
import difflib
from typing import Any

from vaestudy.errors import InputError
from vaestudy.parameters import stage_of

__all__ = ["fields", "from_words", "resolve", "stage_of"]


def resolve(stage: str, **given: Any) -> Any:
    from vaestudy import stages

    known = stages.STAGES[stage].parameters()
    for name in set(given) - set(known):
        close = difflib.get_close_matches(name, known, 1)
        raise InputError(f"{stage} has no parameter {name!r}" + (f": did you mean {close[0]!r}?" if close else ""))
    for name, value in given.items():
        if known[name] is float and isinstance(value, str):
            with contextlib.suppress(ValueError):
                given[name] = float(value)
    return stages.settings(stage, **given)


def fields(stage: str) -> list:
    import dataclasses

    from vaestudy import stages

    return list(dataclasses.fields(stages.STAGES[stage]))


def from_words(stage: str, words: dict[str, str]) -> dict[str, Any]:
    kinds = {field.name: field.type for field in fields(stage)}
    return {name: text if kinds.get(name) is str else _literal(text) for name, text in words.items()}


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
