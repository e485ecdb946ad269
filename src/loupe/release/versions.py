"""What lies in a release store, and how it is read: versions, aliases, the log. Nothing read is believed unchecked.

An alias names a version and the sha256 of its manifest; the manifest names the sha256 of every file: so whoever has
read the alias can tell whether a file is the right one. Needs the base install only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from loupe.errors import InputError
from loupe.imaging.files import atomic_file
from loupe.release.manifest import MANIFEST, Entry, file_entry, identity, parse_manifest, verify_folder
from loupe.release.store import Store, download, part_of

FORMAT = 1
NUMBER = r"(?:0|[1-9]\d{0,8})\.(?:0|[1-9]\d{0,8})\.(?:0|[1-9]\d{0,8})"
ALIAS = r"[a-z][a-z0-9-]{0,30}"
HEX = r"[0-9a-f]{64}"
TIME = "%Y-%m-%dT%H:%M:%SZ"
READERS = 8  # small objects are read at once: at S3 each takes as long as the way there and back
Say = Callable[[str], None]


class RegistryError(InputError):
    """Something is not in the store as it should be, or must not be done; the message says what to do."""


@dataclass(frozen=True)
class Version:
    """versions/NUMBER.json: what was registered under a number, once and for ever.

    version: semantic, such as 1.4.0. identity: sha256 of the manifest. commit: the git commit that reproduces it. by:
    who or which run. registered_at: UTC.
    """

    version: str
    identity: str
    commit: str
    by: str
    registered_at: str

    @property
    def path(self) -> str:
        """The folder of its files."""
        return version_path(self.version, self.identity)

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return {"format": FORMAT, **asdict(self)}


@dataclass(frozen=True)
class Attachment:
    """A file that an event names: its place in the store, and its sha256."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Event:
    """A move of an alias: the content of aliases/ALIAS.json, and of one file of the log. Or a removal.

    event: `promote`, `rollback`, or `remove` for files of a version that retention took away. alias: empty for a
    removal. generation: 1 for the first move of this alias, then counted; 0 for a removal. previous: the version that
    the alias named before (`from` in the file). moved_at: UTC, a second or more after the one before. decision,
    picture: why, as the gate wrote it. id: tells two events apart that are else the same.
    """

    event: str
    alias: str
    generation: int
    version: str
    identity: str
    previous: str | None
    moved_at: str
    by: str
    reason: str
    decision: Attachment | None
    picture: Attachment | None
    id: str

    @property
    def path(self) -> str:
        """The folder of the version's files."""
        return version_path(self.version, self.identity)

    @property
    def log_name(self) -> str:
        """Where the event is kept; names sort by time, those of one alias by generation, too."""
        moment = self.moved_at.replace("-", "").replace(":", "")
        what = f"{self.alias}-{self.generation:06}" if self.alias else f"remove-{self.version}"
        return f"log/{moment}-{what}.json"

    def to_json(self) -> dict[str, Any]:
        """As it is stored: `from` is its word for `previous`, and `path` is told so that nobody has to make it up."""
        fields = asdict(self)
        return {"format": FORMAT, **fields, "from": fields.pop("previous"), "path": self.path}


def version_path(version: str, identity: str) -> str:
    """versions/1.4.0-0f3a5b7c9d1e: the number and the first 12 digits of the identity."""
    return f"versions/{version}-{identity[:12]}"


def version_name(version: str) -> str:
    """Where the record of a version lies."""
    return f"versions/{check_number(version)}.json"


def alias_name(alias: str) -> str:
    """Where an alias lies.

    Raises:
        RegistryError: it can be no name of an alias.
    """
    if not re.fullmatch(ALIAS, alias):
        raise RegistryError(f"{alias!r}: no alias has such a name; small letters, digits and - are allowed")
    return f"aliases/{alias}.json"


def check_number(version: str) -> str:
    """`version`, if it is one.

    Raises:
        RegistryError: it is no semantic version.
    """
    if not re.fullmatch(NUMBER, version):
        raise RegistryError(f"{version!r}: no version; they look like 1.4.0")
    return version


def sort_key(version: str) -> tuple[int, ...]:
    """Semantic versions by size: 1.10.0 after 1.9.0."""
    return tuple(int(part) for part in version.split("."))


def encode(content: Mapping[str, Any]) -> bytes:
    """A record as it is stored, the same bytes for the same content."""
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_version(store: Store, version: str) -> Version | None:
    """What was registered under a number; None if nothing was. Raises RegistryError for a damaged record."""
    name = version_name(version)
    stored = store.read(name)
    if stored is None:
        return None
    content = _parsed(stored.data, f"{store.address}/{name}")
    found = Version(*(_text(content, key) for key in ("version", "identity", "commit", "by", "registered_at")))
    sound = re.fullmatch(HEX, found.identity) and re.fullmatch(r"[0-9a-f]{40,64}", found.commit) and found.by != "\0"
    if found.version != version or not sound or not _is_time(found.registered_at):
        raise _damaged(f"{store.address}/{name}")
    return found


def read_versions(store: Store) -> list[Version]:
    """Everything ever registered, lowest number first."""
    names = (re.fullmatch(rf"versions/({NUMBER})\.json", name) for name in store.names("versions/"))
    numbers = sorted((found[1] for found in names if found), key=sort_key)
    with ThreadPoolExecutor(READERS) as pool:
        return [found for found in pool.map(partial(read_version, store), numbers) if found]


def read_alias(store: Store, alias: str) -> Event | None:
    """What an alias names now; None if it was never set. Raises RegistryError for a damaged one."""
    name = alias_name(alias)
    stored = store.read(name)
    if stored is None:
        return None
    event = parse_event(stored.data, f"{store.address}/{name}")
    if event.alias != alias:
        raise _damaged(f"{store.address}/{name}")
    return event


def read_aliases(store: Store) -> list[str]:
    """The names of all aliases, sorted."""
    names = (re.fullmatch(rf"aliases/({ALIAS})\.json", name) for name in store.names("aliases/"))
    return [found[1] for found in names if found]


def read_log(store: Store) -> list[Event]:
    """Every event, oldest first. Raises RegistryError for a damaged one."""
    names = [name for name in store.names("log/") if name.endswith(".json")]  # else not ours, or being written
    found = []
    with ThreadPoolExecutor(READERS) as pool:
        for name, stored in zip(names, pool.map(store.read, names), strict=True):
            event = parse_event(stored.data if stored else b"", f"{store.address}/{name}")
            if event.log_name != name:
                raise _damaged(f"{store.address}/{name}")
            found.append(event)
    return found


def parse_event(data: bytes, origin: str) -> Event:
    """The content of an alias or of a file of the log, which may come from anybody; `origin` is named in errors.

    Raises:
        RegistryError: it is none.
    """
    content = _parsed(data, origin)
    event = Event(
        event=_text(content, "event"),
        alias=_text(content, "alias"),
        generation=content["generation"] if type(content.get("generation")) is int else -1,
        version=_text(content, "version"),
        identity=_text(content, "identity"),
        previous=None if content.get("from") is None else _text(content, "from"),
        moved_at=_text(content, "moved_at"),
        by=_text(content, "by"),
        reason=_text(content, "reason"),
        decision=_attachment(content.get("decision"), origin),
        picture=_attachment(content.get("picture"), origin),
        id=_text(content, "id"),
    )
    removal = event.event == "remove" and event.alias == "" and event.generation == 0
    move = event.event in ("promote", "rollback") and re.fullmatch(ALIAS, event.alias) and event.generation > 0
    numbers = [event.version] if event.previous is None else [event.version, event.previous]
    sound = all(re.fullmatch(NUMBER, number) for number in numbers) and re.fullmatch(HEX, event.identity)
    told = "\0" not in (event.by, event.reason, event.id) and _is_time(event.moved_at)
    if not (removal or move) or not sound or not told or content.get("path") != event.path:
        raise _damaged(origin)
    return event


def is_complete(store: Store, version: Version) -> bool:
    """Whether all files of a version are said to be there: its manifest, which is written last, is."""
    return store.read(f"{version.path}/{MANIFEST}") is not None


def read_manifest(store: Store, version: Version | Event) -> tuple[bytes, dict[str, Entry]]:
    """The manifest of a version: its bytes, and what it says.

    Raises:
        RegistryError: it is not there, or is not the one that was registered. ManifestError: it cannot be used.
    """
    name = f"{version.path}/{MANIFEST}"
    stored = store.read(name)
    if stored is None:
        raise RegistryError(
            f"{store.address}/{name}: is not there: {version.version} was not finished, or was removed; "
            "`loupe registry list` shows what can be had, and `loupe registry rollback` goes back to one of them"
        )
    if identity(stored.data) != version.identity:
        raise RegistryError(f"{store.address}/{name}: refused: not the manifest that was registered; it was exchanged")
    return stored.data, parse_manifest(stored.data, f"{store.address}/{name}")


def fetch(store: Store, version: Version | Event, folder: Path) -> int:
    """Bring all files of a version into `folder`, its manifest last, and nothing else; how many bytes came.

    What is there already and right is not fetched again, parts of files are completed, all else is thrown away.

    Raises:
        RegistryError, StoreError, ManifestError, UnsafeNameError: something is missing, or is not what it should be.
    """
    data, entries = read_manifest(store, version)
    folder.mkdir(parents=True, exist_ok=True)
    parts = {part_of(folder / name, entry) for name, entry in entries.items()}
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder comes before the folder
        name = path.relative_to(folder).as_posix()
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.is_symlink() or (path not in parts and not (name in entries and file_entry(path) == entries[name])):
            path.unlink()
    came = 0
    for name, entry in entries.items():
        if not (folder / name).is_file():
            came += download(store, f"{version.path}/{name}", entry, folder / name)
    with atomic_file(folder / MANIFEST) as stream:
        stream.write(data)
    verify_folder(folder)
    return came + len(data)


def now_after(event: Event | None) -> str:
    """The time, UTC, to the second, and later than an event: clocks differ, and GTO orders its tags by the second."""
    moment = datetime.now(UTC).timestamp()
    if event:
        moment = max(moment, moment_of(event.moved_at) + 1)
    return datetime.fromtimestamp(moment, UTC).strftime(TIME)


def moment_of(time: str) -> float:
    """Seconds since 1970 of a time as it is stored."""
    return datetime.strptime(time, TIME).replace(tzinfo=UTC).timestamp()


def way_back(events: Iterable[Event], alias: str) -> Sequence[str]:
    """The versions that an alias would go back through, the present one last.

    A promotion adds a version, a rollback takes away all above the one it goes to. So a second rollback goes further
    back, not forward to what the first one fled from.
    """
    stack: list[str] = []
    for event in events:
        if event.alias != alias:
            continue
        if event.event == "rollback" and event.version in stack:
            del stack[stack.index(event.version) + 1 :]
        else:
            stack.append(event.version)
    return stack


def _parsed(data: bytes, origin: str) -> dict[str, Any]:
    try:
        content: Any = json.loads(data)
    except (ValueError, RecursionError):
        raise _damaged(origin) from None
    if not isinstance(content, dict):
        raise _damaged(origin)
    if content.get("format") != FORMAT:
        raise RegistryError(f"{origin}: its format is {content.get('format')!r}; this version of loupe reads {FORMAT}")
    return content


def _text(content: Mapping[str, Any], key: str) -> str:
    """A short text; what is none becomes one that no check lets through."""
    value = content.get(key)
    return value if isinstance(value, str) and value.isprintable() else "\0"


def _attachment(value: Any, origin: str) -> Attachment | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _damaged(origin)
    found = Attachment(_text(value, "path"), _text(value, "sha256"))
    if not re.fullmatch(HEX, found.sha256) or not re.fullmatch(r"decisions/[0-9a-z.-]+", found.path):
        raise _damaged(origin)
    return found


def _is_time(text: str) -> bool:
    try:
        return datetime.strptime(text, TIME).strftime(TIME) == text
    except ValueError:
        return False


def _damaged(origin: str) -> RegistryError:
    return RegistryError(
        f"{origin}: damaged, or not written by loupe; `loupe registry verify` looks at the whole store"
    )
