"""runs/ of a machine and its copy in S3, by which the next machine goes on: checkpoints, and TensorBoard's files.

    s3://BUCKET/PREFIX/checkpoints/KEY/rdn-D4-C3-G32-0f3a5b7c9d1e/checkpoint.0     its name here is kept with it
                                                                  checkpoint.1
                                                                  events.out.tfevents...

A trainer writes a checkpoint a minute, for days. The newest takes the place of the older of two in S3, so that neither
room nor a right to delete is needed, and a whole one is there whatever happens. Files must appear by renaming, as
checkpoints do, or only grow, as TensorBoard's do.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from loupe.cloud.mailbox import Mailbox
from loupe.names import safe_name

PATTERN = "checkpoint-*.pt"  # sorted as written
PLACES = ("checkpoint.0", "checkpoint.1")
NAME = "name"  # key of an object's metadata

Stamp = tuple[str, int, int]  # a file's name, time of change in nanoseconds, and size


class Checkpoints:
    """The copy in S3 of a folder that a trainer fills. One thread at a time.

    newest: the path, below the folder, of the checkpoint that was sent last; empty if none was.

    Args:
        mailbox: of the run.
        key: of the order: what computes the same shares its checkpoints.
        folder: runs/ here.
    """

    def __init__(self, mailbox: Mailbox, key: str, folder: Path) -> None:
        self.newest = ""
        self._mailbox, self._folder = mailbox, folder
        self._root = mailbox.shared(f"checkpoints/{key}/")
        self._place: dict[str, int] = {}  # of the newest checkpoint in S3, by the folder that it is of
        self._sent: dict[str, Stamp] = {}  # by key below the root

    def fetch(self, *, checkpoints: bool = True) -> list[str]:
        """Bring what is in S3 here.

        Args:
            checkpoints: without, only the other files.

        Returns:
            The path of each run's newest checkpoint that came, below the folder.
        """
        names: dict[str, tuple[str, int]] = {}
        for key in self._mailbox.sizes(self._root):
            parent, file = PurePosixPath(safe_name(key, self._root)).parent, PurePosixPath(key).name
            if file not in PLACES:
                self._take(key, key)
            elif checkpoints:
                name = (parent / safe_name(self._mailbox.metadata(self._root + key)[NAME], key)).as_posix()
                self._take(key, name)
                newest = names.get(parent.as_posix(), ("", 0))
                names[parent.as_posix()] = max(newest, (name, PLACES.index(file)))
        self._place = {parent: place for parent, (_, place) in names.items()}
        return sorted(name for name, _ in names.values())

    def send(self) -> list[str]:
        """Bring to S3 what is new or has changed here; the newest checkpoint of each run's folder first.

        Returns:
            The paths of the checkpoints that went, below the folder.
        """
        went, others = [], []
        for folder in sorted({path.parent for path in self._folder.rglob("[!.]*") if path.is_file()}):
            parent = folder.relative_to(self._folder).as_posix()
            written = sorted(folder.glob(PATTERN))
            others += [path for path in sorted(folder.glob("[!.]*")) if path.is_file() and path not in written]
            if written:
                last = self._place.get(parent, 1)
                place = (last + 1) % len(PLACES)
                newest = f"{parent}/{PLACES[last]}"
                if self._give(written[-1], f"{parent}/{PLACES[place]}", self._sent.get(newest)):
                    self._place[parent] = place
                    self.newest = f"{parent}/{written[-1].name}"
                    went.append(self.newest)
        for path in others:
            key = path.relative_to(self._folder).as_posix()
            self._give(path, key, self._sent.get(key))
        return went

    def _take(self, key: str, name: str) -> None:
        path = self._folder / safe_name(name, self._root)
        self._mailbox.download(self._root + key, path)
        self._sent[key] = _stamp(path)

    def _give(self, path: Path, key: str, sent: Stamp | None) -> bool:
        """Upload a file unless that was done; False too if it has gone meanwhile."""
        try:
            stamp = _stamp(path)
            if stamp == sent:
                return False
            with path.open("rb") as stream:
                self._mailbox.upload(self._root + key, stream, metadata={NAME: path.name})
        except FileNotFoundError:
            return False
        self._sent[key] = stamp
        return True


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return path.name, found.st_mtime_ns, found.st_size
