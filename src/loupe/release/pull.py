"""From an alias to a folder that can be served: all that a consumer needs, with the base install.

pull(open_store("s3://models/rdn-x2"), Path("model"), "production")
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from loupe.imaging.files import atomic_folder
from loupe.release.manifest import MANIFEST, ManifestError, identity, verify_folder
from loupe.release.store import Store
from loupe.release.versions import (
    NUMBER,
    Event,
    RegistryError,
    Say,
    Version,
    fetch,
    read_alias,
    read_version,
)


@dataclass(frozen=True)
class Pulled:
    """What `pull` did. fetched: bytes that came; 0 where the version was there already."""

    version: str
    identity: str
    folder: Path
    fetched: int


def find(store: Store, name: str) -> Version | Event:
    """What a version's number or an alias names.

    Raises:
        RegistryError: there is none of this name.
    """
    found = read_version(store, name) if re.fullmatch(NUMBER, name) else read_alias(store, name)
    if found is None:
        raise RegistryError(
            f"{store.address}: has no {name}; `loupe registry list` shows what can be had, and where that is nothing, "
            "`loupe registry seed` brings the network that ships"
        )
    return found


def pull(store: Store, folder: Path, name: str = "production", say: Say = print) -> Pulled:
    """Bring a version into `folder`, which shows either what it had before or the new version whole.

    A pull that was cut off is gone on with the next time. If the version is there already, nothing is fetched but the
    alias; if it has been changed there, it is fetched again. Two pulls into one folder wait for each other.

    Args:
        store: where from.
        folder: for the bundle; it belongs to `pull`, which replaces all of it. Where it is a link, what it leads to.
        name: an alias, or the number of a version.
        say: receives what is done.

    Returns:
        What is in `folder` now.

    Raises:
        RegistryError, StoreError, ManifestError: it is not there, or not what it should be; `folder` is as before.
    """
    from filelock import FileLock

    wanted = find(store, name)
    folder = folder.resolve()  # `.` has no name to put others beside, and what a link leads to is what is served
    try:
        if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
            raise RegistryError(f"{folder}: is there and holds no bundle; choose a new folder, all of it is replaced")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if _is_there(folder, wanted, say):
                return Pulled(wanted.version, wanted.identity, folder, 0)
            old = folder.with_name(f".{folder.name}.old.part")
            with atomic_folder(folder, resume=True) as filling:
                fetched = fetch(store, wanted, filling)
                shutil.rmtree(old, ignore_errors=True)
                if folder.exists():
                    folder.replace(old)  # at once: one that is being removed would be seen half
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RegistryError(f"{folder}: {reason}; what came is kept, mend that and pull again") from None
    return Pulled(wanted.version, wanted.identity, folder, fetched)


def _is_there(folder: Path, wanted: Version | Event, say: Say) -> bool:
    try:
        if identity((folder / MANIFEST).read_bytes()) != wanted.identity:
            return False
        verify_folder(folder)
    except FileNotFoundError:
        return False
    except ManifestError as error:
        say(f"{error}: fetched again")
        return False
    return True
