"""The science of each stage: settings in, runs and tidy tables out; for the notebooks and the command line alike."""

from typing import Any

from vaestudy import settings as _settings
from vaestudy.experiments import beta_vae, devices, losses, nvae, plan, vae  # noqa: F401 (parts enter their table)
from vaestudy.settings import Settings

# Each has `check(settings)`, which refuses what cannot work before any work, `train_images` (or `train_and_test`) and
# `jobs`, which say what would be trained, and `train_and_score(settings)`.
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
    """`prepare` for the parameters in a notebook's namespace, whose draws follow from the seed from then on.

    Tells a person which project it works in, and where its sizes are too small to learn anything.

    Raises:
        InputError: as `prepare`, or the notebook is in no project, so that its runs would land beside it.
    """
    import torch

    from vaestudy.errors import InputError
    from vaestudy.experiments.common import sizes
    from vaestudy.files import project_root
    from vaestudy.training.progress import has_person

    root = project_root()
    if not (root / "vaestudy" / "data").is_dir():
        raise InputError(f"{root} is in no vaestudy project: open the notebook in its clone, as `make lab` does")
    resolved = _settings.from_notebook(stage, namespace)
    STAGES[stage].check(resolved)
    plan.check_memory(resolved, STAGES[stage])
    torch.manual_seed(resolved.seed)
    if has_person():
        toy = ": toy sizes, the models will have learnt nothing" if sizes(resolved).get("exploratory") else ""
        print(f"project {root}, profile {resolved.profile}{toy}")  # noqa: T201
    return resolved
