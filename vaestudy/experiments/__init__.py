"""The science of each stage: settings in, runs and tidy tables out; for the notebooks and the command line alike."""

from typing import Any

from vaestudy import settings as _settings
from vaestudy.experiments import beta_vae, beta_vae_parts, losses, nvae, vae, vae_parts  # noqa: F401 (parts enter their table)
from vaestudy.settings import Settings

# Each has `check(settings)`, which refuses what cannot work before any work, and `train_and_score(settings)`.
STAGES = {"vae": vae, "beta_vae": beta_vae, "nvae": nvae}


def prepare(stage: str, **given: Any) -> Settings:
    """The settings of a stage, checked by themselves and against each other before any work.

    Raises:
        InputError: a name, a value or a combination that cannot work.
    """
    resolved = _settings.resolve(stage, **given)
    STAGES[stage].check(resolved)
    return resolved


def from_notebook(stage: str, namespace: dict[str, Any]) -> Settings:
    """`prepare` for the parameters in a notebook's namespace, whose draws follow from the seed from then on."""
    import torch

    resolved = _settings.from_notebook(stage, namespace)
    STAGES[stage].check(resolved)
    torch.manual_seed(resolved.seed)
    return resolved
