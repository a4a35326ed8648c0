"""Checkpoints: the last two states of a training, each whole and told by its own checksum."""

import hashlib
import io
import logging
from pathlib import Path
from typing import Any

import torch

from vaestudy.files import replacing

logger = logging.getLogger(__name__)
KEPT = 2


def save(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write a state as `checkpoint-<step>-<checksum>.pt` and leave the one before it; older ones go."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with replacing(folder / f"checkpoint-{step:012d}-{_checksum(buffer.getbuffer())}.pt") as temporary:
        temporary.write_bytes(buffer.getbuffer())
    for path in _newest_first(folder)[KEPT:]:
        path.unlink(missing_ok=True)


def load(folder: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """The newest state that is whole, or None; a damaged one is named in a warning and removed."""
    for path in _newest_first(folder):
        content = path.read_bytes()
        if path.stem.rpartition("-")[2] == _checksum(content):
            return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        logger.warning("%s is damaged, the checkpoint before it is taken", path)
        path.unlink(missing_ok=True)
    return None


def remove(folder: Path) -> None:
    """Take all checkpoints of a folder away."""
    for path in _newest_first(folder):
        path.unlink(missing_ok=True)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*.pt"), reverse=True)


def _checksum(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
