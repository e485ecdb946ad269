"""Flow `watch_inbox`: says, once, that new pictures lie in an inbox. An automation starts `retrain` on that word.

It emits the event `loupe.products.landed` with the payload {"inbox", "images", "new"}: where, how many pictures lie
there, and how many of them were not there at any earlier word. What counts is the content: the same picture again,
under another name, copied or touched, is not new.

What was announced is remembered in .cache/flows/inbox/, and only when the server has taken the event: a word may come
twice, but none is lost. Twice is no harm, for `loupe ingest` knows what it has taken in.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from prefect import State, flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.events import Event, RelatedResource, Resource
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import Field

from flows.settings import FOLDER
from loupe.imaging.files import atomic_file
from loupe.quality.inbox import digest_of, list_s3, looks_like_picture, read_folder
from loupe.s3 import SCHEME
from loupe.threads import in_order

EVENT = "loupe.products.landed"
MEMORY = FOLDER / "inbox"

Stamp = tuple[int, int, int]  # size, and when the content and when anything else of a file changed last


@flow(name="watch-inbox", flow_run_name="watch {inbox}")
def watch_inbox(inbox: str = "inbox", settle: Annotated[float, Field(ge=0)] = 30.0) -> State[Any]:
    """Look for new product images in the inbox, and say so once they are all there.

    Whoever listens to the event `loupe.products.landed` begins to work then: usually the flow `retrain`. The same
    pictures again are no news, whatever they are called.

    Args:
        inbox: Folder into which product images are dropped, or s3://BUCKET/PREFIX.
        settle: Seconds in which nothing there may have changed, so that no copy is still going on.
    """
    at_s3 = inbox.startswith(SCHEME)
    if not at_s3 and not Path(inbox).exists():
        return Completed(name="Empty", message=f"{inbox}: there is no such folder yet; make it and drop pictures in")
    memory = Memory.read(inbox, get_run_logger().warning)
    found = _at_s3(inbox) if at_s3 else _in_folder(Path(inbox), memory)
    memory.write()  # what was read need not be read again, whatever comes now
    new = set(found.contents) - memory.announced
    if not new:
        return Completed(name="Nothing new", message=f"{inbox}: {len(found.contents)} pictures, none of them new")
    age = time.time() - found.changed
    if abs(age) < settle:  # a change that lies farther ahead than that was made by a clock that was wrong
        quiet = f"something there changed {max(age, 0):.0f} s ago; they are announced after {settle:g} s of quiet"
        return Completed(name="Waiting", message=f"{inbox}: {len(new)} new pictures, but {quiet}")
    announce(inbox, len(found.contents), len(new))
    memory.announced |= new
    memory.write()
    return Completed(
        name="Announced", message=f"{inbox}: {len(new)} new of {len(found.contents)} pictures; said {EVENT}"
    )


@dataclass(frozen=True)
class Found:
    """What lies in an inbox.

    contents: one word for each picture that can be read, the same for the same content. changed: when anything there
    changed last, seconds since 1970.
    """

    contents: tuple[str, ...]
    changed: float


@dataclass
class Memory:
    """What was announced of one inbox, and the contents of files that have not changed since they were read.

    inbox: its name. announced: contents. files: by name, the stamp and the content.
    """

    inbox: str
    announced: set[str] = field(default_factory=set)
    files: dict[str, tuple[Stamp, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, inbox: str, say: Callable[[str], object]) -> Memory:
        """What is remembered; nothing, and a word about it, where the file is damaged."""
        path = _memory_of(inbox)
        try:
            found = json.loads(path.read_bytes())
            files = {
                str(name): ((int(size), int(content), int(other)), str(digest))
                for name, ((size, content, other), digest) in found["files"].items()
            }
            return cls(inbox, set(map(str, found["announced"])), files)
        except FileNotFoundError:
            return cls(inbox)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            say(f"{path}: damaged ({error}); all pictures of {inbox} count as new once more")
            return cls(inbox)

    def write(self) -> None:
        """Keep it, whole or not at all."""
        told = {"inbox": self.inbox, "announced": sorted(self.announced), "files": self.files}
        path, data = _memory_of(self.inbox), json.dumps(told).encode()
        if not path.exists() or path.read_bytes() != data:  # most looks find what the one before has found
            with atomic_file(path) as stream:
                stream.write(data)


def announce(inbox: str, images: int, new: int) -> None:
    """Give the event to the server, and return when it has taken it.

    Prefect's own `emit_event` hands an event to a thread and reports no failure: nobody would know whether to remember.

    Raises:
        httpx.HTTPError: the server cannot be reached, or refuses it.
    """
    event = Event(
        event=EVENT,
        resource=Resource({"prefect.resource.id": f"loupe.inbox.{_key(inbox)}", "prefect.resource.name": inbox}),
        related=[
            RelatedResource(
                {
                    "prefect.resource.id": f"prefect.flow-run.{flow_run.id}",
                    "prefect.resource.name": str(flow_run.name),
                    "prefect.resource.role": "flow-run",
                }
            )
        ],
        payload={"inbox": inbox, "images": images, "new": new},
    )
    with get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[event.model_dump(mode="json")])


def _in_folder(folder: Path, memory: Memory) -> Found:
    """The pictures of a folder; what cannot be read, or leads out of it, is none. Only what changed is read again."""
    first = _last_change(folder)
    items = {item.name: item.path for item in read_folder(folder).items}
    stamps = {name: stamp for name, path in items.items() if (stamp := _stamp(path))}
    known = {name: one for name, one in memory.files.items() if one[0] == stamps.get(name)}
    fresh = [name for name in stamps if name not in known]
    workers = len(os.sched_getaffinity(0))
    digests = in_order(lambda name: digest_of(items[name], folder), fresh, workers, ahead=workers)
    read = {name: (stamps[name], digest) for name, digest in zip(fresh, digests, strict=True)}
    memory.files = known | read
    last = _last_change(folder)
    return Found(
        tuple(sorted({digest for _, digest in memory.files.values() if digest})),
        time.time() if last != first else last,  # it changed while it was read
    )


def _at_s3(url: str) -> Found:
    """The pictures below a prefix, by ETag and size, without reading them.

    An ETag is made of the content, except where a file came in parts or S3 encrypts by a customer's key: the same
    picture again may be new then.
    """
    listed = list(list_s3(url))
    pictures = [one for one in listed if looks_like_picture(one.name)]
    return Found(
        tuple(sorted({f"{one.etag.strip(chr(34))}-{one.bytes}" for one in pictures})),
        max((one.changed for one in listed), default=0.0),
    )


def _last_change(folder: Path) -> float:
    """When anything in a folder changed last, hidden files and those under other names included: copying makes them."""
    return max(_changes(folder), default=0.0)


def _changes(folder: Path) -> Iterator[float]:
    for top, folders, names in os.walk(folder):
        for path in (Path(top), *(Path(top, name) for name in (*folders, *names))):
            with suppress(FileNotFoundError):
                yield path.lstat().st_ctime  # copies keep the time of the content, but not this one


def _stamp(path: Path) -> Stamp | None:
    """What changes with a file; None where there is none."""
    with suppress(OSError):
        found = path.stat()
        return found.st_size, found.st_mtime_ns, found.st_ctime_ns
    return None


def _memory_of(inbox: str) -> Path:
    return MEMORY / f"{_key(inbox)}.json"


def _key(inbox: str) -> str:
    """A folder is the same under all its names."""
    place = inbox.rstrip("/") if inbox.startswith(SCHEME) else os.path.realpath(inbox)
    return hashlib.sha256(os.fsencode(place)).hexdigest()[:16]
