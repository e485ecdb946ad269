"""Checkpoints of one run: atomic files, the two latest kept, and never one of another run taken for it.

    runs/NAME-KEY/checkpoint-00001500.pt

KEY is a hash of everything that decides the outcome (configuration, recipe, data, code), so that another recipe has
another folder and neither disturbs the other. Files are read with `weights_only=True`: they hold tensors, numbers and
texts, and cannot run code.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from loupe.errors import InputError
from loupe.imaging.files import atomic_file

KEPT = 2
PATTERN = "checkpoint-*.pt"


def key_of(identity: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that differ when `identity` (anything that JSON can hold) differs."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


class Checkpoints:
    """The checkpoints in `folder` of the run that `identity` describes."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self._identity = dict(identity)

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write `state` as the latest checkpoint; an older one is removed only afterwards.

        Raises:
            InputError: it cannot be written, for the disk is full, say; what was there before is whole.
        """
        buffer = io.BytesIO()
        torch.save({"identity": self._identity, "step": step, **state}, buffer)
        path = self.folder / f"checkpoint-{step:08}.pt"
        try:
            with atomic_file(path) as stream:
                stream.write(buffer.getbuffer())
        except OSError as error:
            before = self._files()
            kept = f"{before[-1].name} is whole, and training goes on from there" if before else "none was written yet"
            raise InputError(
                f"{path}: cannot write a checkpoint of {buffer.tell() / 1e6:.0f} MB ({error.strerror or error}); "
                f"free some space and start again: {kept}"
            ) from None
        for old in self._files()[:-KEPT]:
            old.unlink(missing_ok=True)

    def load(self, say: Callable[[str], None] = print) -> dict[str, Any] | None:
        """The latest checkpoint that can be read, or None; `say` is told of one that cannot.

        Raises:
            InputError: it is one of another run.
        """
        for path in reversed(self._files()):
            try:
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
                identity = state["identity"]
            except Exception as error:  # damaged bytes make the reader fail in any way
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                say(f"{path}: unreadable, and left aside ({reason[:200]})")
                continue
            if identity != self._identity:
                raise InputError(
                    f"{path}: a checkpoint of another run: {_difference(identity, self._identity)}; "
                    "move it away, or go back to what it was made with"
                )
            return state
        return None

    def remove(self) -> None:
        """Delete all of them."""
        for path in self._files():
            path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(PATTERN))


def _difference(theirs: Any, ours: Any, name: str = "") -> str:
    """Where two nested mappings differ, such as `model.D was 4, is 6`."""
    if not (isinstance(theirs, dict) and isinstance(ours, dict)):
        return f"{name or 'its description'} was {theirs}, is {ours}"
    keys = sorted(key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key))
    return ", ".join(_difference(theirs.get(key), ours.get(key), f"{name}.{key}" if name else key) for key in keys)
