"""The science of each stage: settings in, runs and tidy tables out; for the notebooks and the command line alike."""

from collections.abc import Callable
from typing import Any

from vaestudy import settings as _settings
from vaestudy.experiments import beta_vae, nvae, vae
from vaestudy.settings import Settings
from vaestudy.training import Run

TRAIN: dict[str, Callable[[Settings], list[Run]]] = {
    "vae": vae.train_and_score,
    "beta_vae": beta_vae.train_and_score,
    "nvae": nvae.train_and_score,
}
CHECK: dict[str, Callable[[Settings], Any]] = {"vae": vae.check, "beta_vae": beta_vae.check, "nvae": nvae.check}


def prepare(stage: str, **given: Any) -> Settings:
    """The settings of a stage, checked by themselves and against each other before any work.

    Raises:
        InputError: a name, a value or a combination that cannot work.
    """
    resolved = _settings.resolve(stage, **given)
    CHECK[stage](resolved)
    return resolved


def from_notebook(stage: str, namespace: dict[str, Any]) -> Settings:
    """`prepare` for the parameters in a notebook's namespace."""
    resolved = _settings.from_notebook(stage, namespace)
    CHECK[stage](resolved)
    return resolved
