"""What made a number: commit, versions and machine."""

import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vaestudy


def provenance(**more: Any) -> dict:
    """Commit, versions and machine of what runs now; the commit is None outside of a checkout or without git."""
    return {
        "commit": _git("rev-parse", "HEAD") if _git("ls-files", "__init__.py") else None,
        "modified": bool(_git("status", "--porcelain", ".")),
        "vaestudy": vaestudy.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        **more,
    }


def _git(*words: str) -> str | None:
    command = ["git", "-C", str(Path(vaestudy.__file__).parent), *words]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 (words of this module)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def _cpu_name() -> str:
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def device_name(device: torch.device) -> str:
    """What a person calls the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads != 1)}"
