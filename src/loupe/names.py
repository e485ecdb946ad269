"""Names of files that come from others: in archives, at S3, in manifests. None may lead out of its folder."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from loupe.errors import InputError


class UnsafeNameError(InputError):
    """A name that is refused; the message says where it comes from."""


def safe_name(name: str, origin: object) -> str:
    """A relative path with `/` that stays below the folder it is put in; `origin` is named in the error.

    Raises:
        UnsafeNameError: it is absolute, leads out of the folder, is empty, or holds control or undecodable characters.
    """
    parts = name.replace("\\", "/").split("/")
    drive = len(parts[0]) == 2 and parts[0].endswith(":")
    if parts[0] == "" or drive or ".." in parts or any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
        raise UnsafeNameError(f"{origin}: refused: the name {name!r} leads out of the folder or cannot be written")
    return "/".join(part for part in parts if part not in ("", "."))


def leads_out(path: Path, folder: Path) -> bool:
    """Whether a path below `folder` ends elsewhere, by links: who fills a folder may read nothing else by them."""
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))  # resolve() raises on a loop


def printable(name: str) -> str:
    """A name as it can be printed: those of strangers may hold line breaks, colours, or no text at all."""
    return name if name.isprintable() else repr(name)
