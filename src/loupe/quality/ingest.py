"""Product images in: what an inbox holds goes into data/products, or into quarantine with the reason.

    inbox -> facts -> repair -> gate -> data/products/NAME  + NAME.json, then `dvc add`
                                     -> quarantine/NAME     + NAME.json

NAME is made from the name in the inbox and from the content's sha256, so that neither can collide, and what is there
already is known whatever it is called this time. Each JSON file tells where its picture comes from and what was found
and done; those of accepted pictures are versioned with them. Nothing depends on the clock or on chance, all files
appear whole, and data.dvc changes last: a run that was killed and runs again ends as if it had never been killed.

The inbox is only read, unless it is to be cleared: then what is versioned and pushed to the remote is removed from it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import pandas as pd
from filelock import FileLock, Timeout

from loupe.errors import InputError
from loupe.imaging.facts import Facts, measure
from loupe.imaging.files import FORMATS, ImageError, atomic_file, find_images, read_bytes, read_image, write_png
from loupe.quality.gate import Limits, check
from loupe.quality.inbox import Inbox, Item, digest_of, fetch_s3, read_folder, remove_s3
from loupe.quality.repair import MOST, needs_repair, repaired
from loupe.quality.table import measure_all
from loupe.threads import in_order

PRODUCTS, QUARANTINE, WORK = Path("data/products"), Path("quarantine"), Path(".cache/ingest")
POINTER = Path("data.dvc")
SAVED = WORK / POINTER.name  # there while DVC writes the other, which it does not do at once
LOCK_SECONDS = 60  # how long to wait for another DVC command to end
STEM = 60  # characters of an inbox's name that are kept
State = Literal["accepted", "quarantined", "known", "duplicate", "changed"]
STATES: dict[State, str] = {
    "accepted": "accepted",
    "quarantined": "in quarantine",
    "known": "there already",
    "duplicate": "there twice",
    "changed": "changed while they were read",
}


class IngestError(InputError):
    """An ingest that cannot begin or end; the message says why and what to do. What is done already stays."""


@dataclass(frozen=True)
class Decision:
    """What becomes of one file of the inbox.

    name: in the inbox. state: accepted; quarantined; known, for it is in data/products already; duplicate of another
    file of the inbox; or changed while it was read, which the next run takes. sha256: of the content, "" if it cannot
    be read. file: its name in data/products or quarantine; "" if nothing is written. changes: what was done to the
    picture. findings: {rule, severity, value, allowed, advice} of the gate. picture: where it can be looked at.
    """

    name: str
    state: State
    sha256: str
    file: str = ""
    changes: tuple[str, ...] = ()
    findings: tuple[Mapping[str, str], ...] = ()
    picture: Path | None = None

    @property
    def reason(self) -> str:
        """One sentence for people."""
        critical = [one for one in self.findings if one["severity"] == "critical"]
        said = [
            f"{one['rule']} {one['value']}, allowed is {one['allowed']}: {one['advice']}"
            for one in critical or self.findings
        ]
        return "; ".join([*self.changes, *said])


@dataclass(frozen=True)
class Ingested:
    """The outcome.

    decisions: for each picture of the inbox, in the order of names. others: names that are taken for no pictures.
    before, after: DVC's hash of data/products. cleared: files removed from the inbox.
    """

    decisions: tuple[Decision, ...]
    others: tuple[str, ...]
    before: str
    after: str
    cleared: int = 0

    def count(self, state: State) -> int:
        """How many files of the inbox have this state."""
        return sum(decision.state == state for decision in self.decisions)

    @property
    def verdict(self) -> str:
        """One sentence."""
        counts = {state: self.count(state) for state in STATES}
        said = [f"{counts[state]} {words}" for state, words in STATES.items() if counts[state] or state == "accepted"]
        return f"Of {len(self.decisions)} pictures {', '.join(said)}"

    def to_json(self) -> dict[str, Any]:
        """{"counts": {state: n}, "others": [...], "data_dvc": {"before", "after"}, "cleared", "files": [...]}."""
        return {
            "counts": {state: self.count(state) for state in STATES},
            "others": list(self.others),
            "data_dvc": {"before": self.before, "after": self.after},
            "cleared": self.cleared,
            "files": [
                {key: value for key, value in asdict(decision).items() if key != "picture"}
                for decision in self.decisions
            ],
        }


@dataclass
class _Candidate:
    """A picture on its way: `path` is the item's, or that of its repaired version."""

    item: Item
    facts: Facts
    source: str  # sha256 of the content in the inbox
    path: Path
    changes: list[str] = field(default_factory=list)


Bar = Callable[[int | None, str], Callable[[], object]]


def no_bar(total: int | None, what: str) -> Callable[[], object]:
    """A progress bar that shows nothing."""
    return lambda: None


@contextmanager
def ingesting(
    inbox: str, limits: Limits, *, dry_run: bool = False, clear: bool = False, bar: Bar = no_bar
) -> Iterator[Ingested]:
    """Take in the pictures of `inbox`; to be called in the project's root folder.

    The block may look at the pictures of the decisions, which vanish afterwards where they were only made for it.

    Args:
        inbox: a folder, or `s3://BUCKET/PREFIX`.
        limits: of the gate.
        dry_run: decide, but write nothing into data/products, quarantine and data.dvc.
        clear: push the new version to DVC's remote, then remove from the inbox what is in it.
        bar: called with a number of steps, if it is known, and what they are; gives a function to call after each.

    Raises:
        IngestError: another ingest is at work, data/products is not what data.dvc says, or DVC fails.
        InboxError: the inbox cannot be read.
    """
    with _alone():
        _restore()
        before = tracked_hash()
        require_complete()
        _tidy()
        found = _open(inbox, bar)
        with tempfile.TemporaryDirectory(dir=WORK) as staging:
            decisions, after, cleared = _decide(found, limits, Path(staging), bar), before, 0
            if not dry_run:
                decisions = [_carry_out(decision) for decision in decisions]
                with atomic_file(SAVED) as stream:
                    stream.write(POINTER.read_bytes())
                dvc("add", "--quiet", PRODUCTS.as_posix())
                after = tracked_hash()
                SAVED.unlink()
                if clear:
                    dvc("push", "--quiet", POINTER.as_posix())
                    cleared = _clear(inbox, found, decisions)
            yield Ingested(tuple(decisions), found.others, before, after, cleared)


def tracked_hash() -> str:
    """DVC's hash of data/products, as data.dvc has it.

    Raises:
        IngestError: there is no data.dvc that tracks it.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        outs = YAML(typ="safe", pure=True).load(POINTER)["outs"]
        return str(next(out["md5"] for out in outs if out["path"] == PRODUCTS.as_posix()))
    except FileNotFoundError:
        raise IngestError(f"{POINTER}: no such file; run in the project's root folder") from None
    except (YAMLError, UnicodeDecodeError, KeyError, TypeError, StopIteration):
        raise IngestError(f"{POINTER}: does not track {PRODUCTS}; restore it: git checkout {POINTER}") from None


def require_complete() -> None:
    """Make sure that data/products holds what data.dvc names: `dvc add` would forget whatever is missing.

    Raises:
        IngestError: it does not.
    """
    status = json.loads(dvc("data", "status", "--granular", "--json"))
    gone = [path for path in status.get("uncommitted", {}).get("deleted", ()) if _is_product(path)]
    if gone:
        raise IngestError(
            f"{PRODUCTS}: {POINTER} names pictures that are not there ({gone[0]}"
            f"{f' and {len(gone) - 1} more' if len(gone) > 1 else ''}); get them: dvc pull {POINTER}"
        )


def dvc(*arguments: str) -> str:
    """Run DVC and return what it prints; waits for another DVC command to end.

    Raises:
        IngestError: it fails; the message has what it says.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    command = [sys.executable, "-m", "dvc", *arguments]
    while True:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=os.environ | {"DVC_NO_ANALYTICS": "1"}
        )
        if done.returncode == 0:
            return done.stdout
        if "lock" not in done.stderr.lower() or time.monotonic() > deadline:
            said = done.stderr.strip() or f"exit code {done.returncode}"
            raise IngestError(f"dvc {arguments[0]}: {said}\nnothing is lost; run again when that is mended")
        time.sleep(0.5)


def file_name(name: str, key: str, suffix: str) -> str:
    """A name for every file system, such as `Shoe-left-1a2b3c4d5e6f.png`.

    Args:
        name: path below the inbox; only its letters and digits of ASCII stay.
        key: sha256 in hexadecimal digits.
        suffix: with its dot.
    """
    stem = unicodedata.normalize("NFKD", name[: -len(found)] if (found := PurePosixPath(name).suffix) else name)
    plain = re.sub("[^A-Za-z0-9_]+", "-", stem.encode("ascii", "ignore").decode()).strip("-")
    return f"{plain[-STEM:].strip('-') or 'picture'}-{key[:12]}{suffix}"


@contextmanager
def _alone() -> Iterator[None]:
    WORK.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(WORK / "lock", timeout=0):
            yield
    except Timeout:
        raise IngestError("another ingest is at work in this folder; run again when it has ended") from None


def _restore() -> None:
    """Undo what a run that was killed while DVC wrote data.dvc has left of it."""
    if SAVED.exists():
        try:
            tracked_hash()
        except IngestError:
            SAVED.replace(POINTER)
        else:
            SAVED.unlink()


def _tidy() -> None:
    """Remove what a killed run left unfinished: files in the making, and reasons without a picture."""
    for folder in (PRODUCTS, QUARANTINE):
        for path in folder.glob(".*.part"):
            path.unlink()
    for reason in PRODUCTS.glob("*.json"):
        if not reason.with_suffix("").exists():
            reason.unlink()
    for path in WORK.glob("tmp*"):
        shutil.rmtree(path, ignore_errors=True)


def _open(inbox: str, bar: Bar) -> Inbox:
    if inbox.startswith("s3://"):
        return fetch_s3(inbox, WORK / hashlib.sha256(inbox.encode()).hexdigest()[:12], bar(None, "fetching"))
    folder = Path(inbox)
    here = Path(os.path.realpath(folder))
    for ours in (PRODUCTS.resolve(), QUARANTINE.resolve()):
        if here.is_relative_to(ours) or ours.is_relative_to(here):
            raise IngestError(f"{inbox}: holds {ours.name}, or lies in it; an inbox is a folder of its own")
    return read_folder(folder)


def _decide(inbox: Inbox, limits: Limits, staging: Path, bar: Bar) -> list[Decision]:
    """A decision for each item, in their order; repaired pictures are written into `staging`."""
    threads = len(os.sched_getaffinity(0))
    advance = bar(len(inbox.items), "looking for new ones")
    decisions: dict[str, Decision] = {}
    known, first = _known(), dict[str, str]()
    fresh: list[Item] = []
    digests = in_order(lambda item: digest_of(item.path, inbox.folder), inbox.items, threads, ahead=2 * threads)
    for item, digest in zip(inbox.items, digests, strict=True):
        advance()
        earlier = first.setdefault(digest, item.name) if digest else item.name
        if digest in known:
            decisions[item.name] = Decision(item.name, "known", digest, known[digest])
        elif earlier != item.name:
            decisions[item.name] = Decision(item.name, "duplicate", digest, changes=(f"the same file as {earlier}",))
        else:
            fresh.append(item)

    advance = bar(len(fresh), "measuring")
    table = measure_all(inbox.folder, [item.path for item in fresh], progress=advance)
    rows = ({str(key): value for key, value in row.items() if key != "path"} for row in table.to_dict("records"))
    measured = [Facts(**row) for row in rows]
    candidates = [_Candidate(item, facts, facts.sha256, item.path) for item, facts in zip(fresh, measured, strict=True)]
    broken = [one for one in candidates if one.facts.decodable and _to_be_rewritten(one.facts, limits)]
    advance = bar(len(broken), "repairing")
    for _ in in_order(lambda one: _repair(one, limits, staging), broken, threads, ahead=threads):
        advance()
    found = _findings(candidates, limits)
    for one, findings in zip(candidates, found, strict=True):
        decisions[one.item.name] = _decision(one, findings)
    return [decisions[item.name] for item in inbox.items]


def _known() -> dict[str, str]:
    """Files of data/products by the sha256 of what they were made from, and by their own."""
    known: dict[str, str] = {}
    for path in find_images(PRODUCTS):
        reason = path.with_name(f"{path.name}.json")
        if reason.exists():
            try:
                told = json.loads(reason.read_text())
                digests = (str(told["sha256"]), str(told["source"]["sha256"]))
            except (ValueError, KeyError, TypeError):
                raise IngestError(f"{reason}: damaged; restore it: dvc checkout {POINTER}") from None
        else:
            digests = (digest_of(path, None),) * 2
        known |= dict.fromkeys(digests, path.relative_to(PRODUCTS).as_posix())
    return known


def _to_be_rewritten(facts: Facts, limits: Limits) -> bool:
    """Whether a picture is not taken byte by byte: it can be repaired, or has a format that no suffix stands for."""
    return _large_enough(facts, limits) and (needs_repair(facts, limits) or not FORMATS[facts.format])


def _large_enough(facts: Facts, limits: Limits) -> bool:
    """Whether a picture is not too small to begin with, so that repair, which makes it smaller, is worth a try."""
    return min(facts.width, facts.height) >= max(2, limits.min_side.critical or 0)


def _repair(one: _Candidate, limits: Limits, staging: Path) -> None:
    """Make the best of a picture: what changes is written as PNG and measured again."""
    pixels = read_image(one.path).pixels
    if not FORMATS[one.facts.format]:
        one.changes.append(f"{one.facts.format} decoded")
    for _ in range(MOST):
        if not needs_repair(one.facts, limits) or not _large_enough(one.facts, limits):
            break
        done = repaired(pixels, one.facts, limits)
        pixels = done.pixels
        one.changes.append(done.change)
        one.facts = _written(one, pixels, staging)
    if one.path == one.item.path:
        one.facts = _written(one, pixels, staging)


def _written(one: _Candidate, pixels: Any, staging: Path) -> Facts:
    one.path = staging / f"{one.source}.png"
    write_png(one.path, pixels)
    return measure(one.path)


def _findings(candidates: Sequence[_Candidate], limits: Limits) -> list[list[dict[str, str]]]:
    """What the gate finds, for each candidate. Its path means nothing here: the content decides the split later."""
    rows = [{"path": str(number), **asdict(one.facts)} for number, one in enumerate(candidates)]
    found: list[list[dict[str, str]]] = [[] for _ in candidates]
    if rows:
        # whatever a file is called, it gets the suffix of its content
        table = pd.DataFrame(rows).assign(suffix_matches=True)
        for row in check({"inbox": table}, limits).to_dict("records"):
            finding = {str(key): str(value) for key, value in row.items() if key not in ("set", "path")}
            found[int(row["path"])].append(finding)
    return found


def _decision(one: _Candidate, findings: Sequence[Mapping[str, str]]) -> Decision:
    refused = any(finding["severity"] == "critical" for finding in findings)
    name, source = one.item.name, one.source
    if refused:
        suffix = PurePosixPath(name).suffix.lower()
        key = source or hashlib.sha256(name.encode()).hexdigest()
        file = file_name(name, key, suffix if re.fullmatch(r"\.[a-z0-9]{1,5}", suffix) else ".bin")
    else:
        suffixes = FORMATS[one.facts.format]
        given = PurePosixPath(name).suffix.lower()
        file = file_name(name, source, given if given in suffixes else suffixes[0])
    return Decision(
        name=name,
        state="quarantined" if refused else "accepted",
        sha256=source,
        file=file,
        changes=tuple(one.changes),
        findings=tuple(findings),
        picture=(one.item.path if refused else one.path) if source else None,
    )


def _carry_out(decision: Decision) -> Decision:
    """Write a picture and its reason, the reason first: a picture is never without."""
    if decision.state not in ("accepted", "quarantined"):
        return decision
    accepted = decision.state == "accepted"
    folder = PRODUCTS if accepted else QUARANTINE
    data, digest = b"", ""
    if decision.picture:
        try:
            data = read_bytes(decision.picture)
        except ImageError:
            return replace(decision, state="changed", file="")
        digest = hashlib.sha256(data).hexdigest()
        if digest != decision.sha256 and not (accepted and decision.changes):
            return replace(decision, state="changed", file="")
    reason = {
        "reason": decision.reason,
        "sha256": digest,
        "source": {"name": decision.name, "sha256": decision.sha256},
        "changes": list(decision.changes),
        "findings": [dict(finding) for finding in decision.findings],
    }
    if accepted:
        for stale in QUARANTINE.glob(f"*-{decision.sha256[:12]}.*"):
            stale.unlink()  # refused earlier, by other limits
    with atomic_file(folder / f"{decision.file}.json") as stream:
        stream.write((json.dumps(reason, indent=2) + "\n").encode())
    if decision.picture:
        with atomic_file(folder / decision.file) as stream:
            stream.write(data)
    return decision


def _clear(inbox: str, found: Inbox, decisions: Sequence[Decision]) -> int:
    """Remove from the inbox what is versioned, unless a file has another content by now; how many were removed."""
    versioned = {one.sha256 for one in decisions if one.state in ("accepted", "known")}
    removed = 0
    for item, decision in zip(found.items, decisions, strict=True):
        if decision.sha256 not in versioned:
            continue
        if inbox.startswith("s3://"):
            removed += remove_s3(inbox, item)
        elif digest_of(item.path, None) == decision.sha256:
            item.path.unlink()
            removed += 1
    return removed


def _is_product(path: str) -> bool:
    return Path(path).is_relative_to(PRODUCTS)
