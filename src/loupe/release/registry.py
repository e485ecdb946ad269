"""What may happen to the versions in a store: seed, promote, rollback, verify, prune; what a promotion leaves behind.

The order in which a promotion writes is what makes it safe to die anywhere:

    claimed     versions/1.4.0.json: the number belongs to this bundle for ever
    uploaded    its files, the manifest last; all are read back before anybody is pointed to them
    registered  git tag rdn-x2@v1.4.0
    explained   decisions/...: why
    moved       aliases/production.json, by compare-and-swap: the one moment that counts
    logged      log/...: the alias as it was written, byte for byte
    assigned    git tag rdn-x2#production#7
    shown       index.html

Before `moved` nothing has happened for a reader, and the same promotion can be run again. After it, everything that is
missing can be derived from the alias: `verify` does so, and so does whoever moves the alias next, before moving it.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from loupe.errors import InputError
from loupe.release.manifest import MANIFEST, identity, parse_manifest, verify_folder
from loupe.release.pull import find
from loupe.release.store import Store, open_store
from loupe.release.tags import Tags
from loupe.release.versions import (
    Attachment,
    Event,
    RegistryError,
    Say,
    Version,
    alias_name,
    encode,
    fetch,
    is_complete,
    moment_of,
    now_after,
    parse_event,
    read_alias,
    read_aliases,
    read_log,
    read_manifest,
    read_version,
    read_versions,
    sort_key,
    version_name,
    way_back,
)

PRODUCTION = "production"
ABANDONED = 24 * 3600.0  # seconds after which an upload without a manifest is nobody's any more
KEPT = 5  # versions that retention leaves besides those that are needed
PICTURES = (".png", ".svg", ".html")
Bump = Literal["major", "minor", "patch"]
Step = Callable[[str], None]


class AlreadyPromotedError(RegistryError):
    """The alias names this very bundle already."""


class LostRaceError(RegistryError):
    """Another one was quicker; the message says who, and what to do."""


class UnsettledError(RegistryError):
    """The alias is moved, and something that belongs to it could not be written. event: the move."""

    def __init__(self, message: str, event: Event) -> None:
        super().__init__(message)
        self.event = event


@dataclass(frozen=True)
class Finding:
    """Something that `verify` found. mended: whether it is well now."""

    what: str
    mended: bool


def promote(
    store: Store,
    bundle: Path,
    tags: Tags,
    decision: Mapping[str, Any],
    *,
    champion: Event | None,
    by: str,
    reason: str = "",
    alias: str = PRODUCTION,
    bump: Bump = "minor",
    picture: Path | None = None,
    say: Say = print,
    step: Step = lambda name: None,
) -> Event:
    """Publish a bundle as a new version, and let an alias name it.

    A bundle that was registered before, by a promotion that died or lost, keeps its number and is gone on with.

    Args:
        store: where to.
        bundle: a folder with a manifest.
        tags: the git repository whose present commit reproduces the bundle.
        decision: why it may be promoted, as JSON; kept as it is.
        champion: what the alias named when the decision was made, from `read_alias`; None if nothing. If it has moved
            since, the decision counts no more.
        by: who, or which run.
        reason: one line, for people.
        alias: what is to name the version.
        bump: which part of the number grows; the first version is 1.0.0.
        picture: of the decision: PNG, SVG or HTML.
        say: receives what is done.
        step: called with the name of each step that is done; for tests.

    Returns:
        The move.

    Raises:
        AlreadyPromotedError: the alias names this bundle. LostRaceError: somebody else was quicker.
        UnsettledError: the alias is moved, and something failed afterwards.
        RegistryError: the alias has named this version before a later one (that is a rollback); tracked files are not
            committed; or the commit is another version already.
        ManifestError: the bundle is damaged. StoreError: the store fails.
    """
    _check_words(by, reason)
    if picture and picture.suffix not in PICTURES:
        raise RegistryError(f"{picture}: no picture of a decision; give one of {', '.join(PICTURES)}")
    verify_folder(bundle)
    data = (bundle / MANIFEST).read_bytes()
    present = _unmoved(store, alias, champion)
    if present:
        finish(store, present, tags)
    if present and present.identity == identity(data):
        _show(store, say)  # as the promotion that did it may have died before that
        raise AlreadyPromotedError(f"{bundle}: is {alias} already, as version {present.version}; nothing to do")
    generation = present.generation + 1 if present else 1
    version = _numbered(store, identity(data), tags, bump, by)
    tags.check_free(version.version, version.commit, tags.move_tag(alias, generation))
    older = present is not None and sort_key(version.version) < sort_key(present.version)
    if present and older and any(event.version == version.version for event in history(store, alias)):
        raise RegistryError(
            f"{bundle}: is version {version.version}, which {alias} has left behind for {present.version}; "
            f"to go back, run `loupe registry rollback {version.version}`"
        )
    _claim(store, version)
    step("claimed")
    try:
        check_version(store, version)
    except InputError:  # it is not all there, or was taken for abandoned while it was written
        names = [*parse_manifest(data, bundle / MANIFEST), MANIFEST]
        _upload(store, version, bundle, names, step)
        check_version(store, version)
    step("uploaded")
    tags.register(version)
    step("registered")
    event = Event(
        event="promote",
        alias=alias,
        generation=generation,
        version=version.version,
        identity=version.identity,
        previous=present.version if present else None,
        moved_at=now_after(present),
        by=by,
        reason=reason,
        decision=_attach(store, version, encode(decision), ".json"),
        picture=_attach(store, version, picture.read_bytes(), picture.suffix) if picture else None,
        id=uuid.uuid4().hex,
    )
    step("explained")
    _move(store, event, present)
    step("moved")
    _settle(store, event, tags, say, step)
    return event


def rollback(
    store: Store,
    to: str | None = None,
    tags: Tags | None = None,
    *,
    by: str,
    reason: str = "",
    alias: str = PRODUCTION,
    after: Event | None = None,
    say: Say = print,
) -> Event:
    """Let an alias name a version again that it named before, or any other that is whole.

    Needs no git: in an emergency any machine with the store's credentials does. Tags are then made by the next
    `verify` or promotion that has a repository.

    Args:
        store: see `promote`.
        to: the version; None goes back to the one before the present one (see `way_back`).
        tags: the git repository, if there is one at hand.
        after: the move that is taken back, if no other may be.
        by, reason, alias, say: see `promote`.

    Returns:
        The move.

    Raises:
        RegistryError: there is nothing to go back to, or that version is not whole. LostRaceError: somebody else was
            quicker, or has moved the alias after `after`. UnsettledError: see `promote`.
    """
    _check_words(by, reason)
    present = read_alias(store, alias)
    if after and present != after:
        raise LostRaceError(_lost(alias, after, present))
    if present is None:
        raise RegistryError(f"{store.address}: {alias} was never set; promote a bundle first (loupe registry promote)")
    finish(store, present, None)  # the log must have no gaps; tags can wait, production cannot
    if to is None:
        way = way_back(read_log(store), alias)
        if len(way) < 2:
            raise RegistryError(f"{alias}: nothing came before version {present.version}; name a version to go to")
        to = way[-2]
    version = read_version(store, to)
    if version is None:
        raise RegistryError(f"{store.address}: has no version {to}; `loupe registry list` shows what can be had")
    if version.version == present.version:
        raise AlreadyPromotedError(f"{alias}: is version {to} already")
    check_version(store, version)
    event = replace(
        present,
        event="rollback",
        generation=present.generation + 1,
        version=version.version,
        identity=version.identity,
        previous=present.version,
        moved_at=now_after(present),
        by=by,
        reason=reason,
        decision=None,
        picture=None,
        id=uuid.uuid4().hex,
    )
    _move(store, event, present)
    _settle(store, event, tags, say)
    return event


def seed(store: Store, source: Path, say: Say = print) -> list[Event]:
    """Begin a store with all that a store in a folder holds: versions, decisions, log, and what its aliases name.

    Goes on with a copy that was cut off; aliases come last, so that nobody sees half of it.

    Returns:
        The last move of each alias.

    Raises:
        RegistryError: the store has versions or aliases of its own. LostRaceError: it gets them meanwhile.
        StoreError: it fails.
    """
    seeds = open_store(source)
    versions, log, moves = read_versions(seeds), read_log(seeds), _aliased(seeds)
    if any(one not in [*versions, *moves] for one in [*read_versions(store), *_aliased(store)]):
        raise RegistryError(f"{store.address}: is in use already; a store begins with the seed, or does without it")
    for version in versions:
        _claim(store, version)
        names = [*read_manifest(seeds, version)[1], MANIFEST]
        _upload(store, version, source / version.path, names)
        check_version(store, version)
    for event in log:
        for kept in filter(None, (event.decision, event.picture)):
            store.put(kept.path, io.BytesIO((source / kept.path).read_bytes()))
        if event not in moves:
            store.swap(event.log_name, encode(event.to_json()), None)
    for event in moves:
        if read_alias(store, event.alias) is None:
            _move(store, event, None)
        finish(store, event, None)
    _show(store, say)
    return moves


def history(store: Store, alias: str | None = None) -> list[Event]:
    """Everything that happened, oldest first; with `alias` only its moves. A move is in it at once, logged or not."""
    events = read_log(store)
    events += [event for event in _aliased(store) if event not in events]
    events.sort(key=lambda event: event.log_name)
    return [event for event in events if alias in (None, event.alias)]


def check_version(store: Store, version: Version | Event) -> None:
    """Read all files of a version as a consumer does.

    Raises:
        RegistryError, StoreError, ManifestError: something is missing, or is not what it should be.
    """
    with TemporaryDirectory(prefix="loupe-") as folder:
        fetch(store, version, Path(folder) / "bundle")


def finish(store: Store, event: Event, tags: Tags | None, step: Step = lambda name: None) -> list[str]:
    """Write what a move leaves behind, where it is missing; what was written, in words.

    Raises:
        RegistryError: the log says something else, or the tags do. StoreError: the store fails.
    """
    done = []
    data = encode(event.to_json())
    logged = store.read(event.log_name)
    if logged is None:
        store.swap(event.log_name, data, None)
        done.append(f"{event.log_name} was missing")
    elif logged.data != data:
        raise RegistryError(f"{store.address}/{event.log_name}: says something else than aliases/{event.alias}.json")
    step("logged")
    version = read_version(store, event.version)
    if tags and version and tags.has_commit(version.commit):  # else `verify` tells, but production must not wait for it
        done += [f"tag {tags.version_tag(version.version)} was missing"] if tags.register(version) else []
        done += (
            [f"tag {tags.move_tag(event.alias, event.generation)} was missing"] if tags.assign(event, version) else []
        )
    step("assigned")
    return done


def verify(
    store: Store,
    tags: Tags | None = None,
    *,
    seeds: Collection[str] = (),
    abandoned: float = ABANDONED,
    say: Say = print,
) -> list[Finding]:
    """Look at the whole store: every file of every version, aliases, log and tags; mend what a dead promotion left.

    Args:
        store: what to look at.
        tags: the git repository that should agree with it, if there is one at hand.
        seeds: identities of versions that came by `seed`: their commits are of another repository, which has the tags.
        abandoned: seconds after which an upload without a manifest is removed; a younger one may still go on.
        say: receives what cannot be done here.

    Returns:
        What was found; nothing where all is well.
    """
    findings: list[Finding] = []

    def look(action: Callable[..., Any], *arguments: Any) -> Any:
        """What `action` gives; what it raises is found, and does not keep us from looking at the rest."""
        try:
            return action(*arguments)
        except InputError as error:
            findings.append(Finding(str(error), False))
            return None

    def mend(action: Callable[..., list[str]], *arguments: Any) -> None:
        findings.extend(Finding(line, True) for line in look(action, *arguments) or [])

    aliases: list[Event] = [event for name in read_aliases(store) if (event := look(read_alias, store, name))]
    for event in aliases:
        mend(finish, store, event, None if event.identity in seeds else tags)
    events: list[Event] = look(read_log, store) or []
    versions: list[Version] = look(read_versions, store) or []
    removed = {event.identity for event in events if event.event == "remove"}
    for version in versions:
        mend(_mend_version, store, version, removed, aliases, abandoned, None if version.identity in seeds else tags)
    known = {version.version: version for version in versions}
    for event in events:
        mine = event.identity not in seeds and event not in aliases
        if tags and event.alias and mine and event.version in known:
            mend(_mend_tag, tags, event, known[event.version])
    for event in aliases:
        if event.version not in known or known[event.version].identity != event.identity:
            findings.append(Finding(f"{event.alias}: names {event.version}, which was never registered", False))
        generations = [one.generation for one in events if one.alias == event.alias]
        if generations != list(range(1, event.generation + 1)):
            findings.append(Finding(f"{event.alias}: its log has the moves {generations}, not all up to now", False))
    if versions and look(_show, store, say):
        findings.append(Finding("index.html was out of date", True))
    return findings


def prune(store: Store, keep: int = KEPT, *, by: str, reason: str = "") -> list[Version]:
    """Remove the files of old versions, and tell the log; which ones.

    Kept are the last `keep` versions, whatever an alias names, and what a rollback without a name would go to. The
    record of a version stays, so that its number is never used again. Each alias is looked at again before every
    removal. Still, do not prune while somebody rolls back to a version from before those.

    Raises:
        RegistryError: `keep` is below 1, or the store is damaged: nothing is removed that might be needed.
    """
    _check_words(by, reason)
    if keep < 1:
        raise RegistryError(f"{keep}: at least the last version is kept")
    complete = [version for version in read_versions(store) if is_complete(store, version)]
    gone = []
    for version in complete[:-keep]:
        if version.version in _needed(store):
            continue
        event = Event(
            "remove", "", 0, version.version, version.identity, None, now_after(None), by, reason, None, None,
            uuid.uuid4().hex,
        )  # fmt: skip
        store.swap(event.log_name, encode(event.to_json()), None)
        _remove_files(store, version)
        gone.append(version)
    return gone


def overview(store: Store, events: Sequence[Event]) -> list[dict[str, Any]]:
    """A row for each version, highest first: its record, `state`, `aliases`, and `sets`: its scores, or None.

    state: `complete`, `unfinished` or `removed`. events: see `history`.
    """
    named: dict[str, list[str]] = {}
    for name in read_aliases(store):
        if event := read_alias(store, name):
            named.setdefault(event.version, []).append(name)
    removed = {event.version for event in events if event.event == "remove"}
    there = set(store.names("versions/"))
    rows = []
    for version in reversed(read_versions(store)):
        complete = f"{version.path}/{MANIFEST}" in there
        state = "complete" if complete else "removed" if version.version in removed else "unfinished"
        sets = _scores(store, version) if complete else None
        rows.append(asdict(version) | {"state": state, "aliases": named.get(version.version, []), "sets": sets})
    return rows


def describe(store: Store, name: str) -> dict[str, Any]:
    """All about a version, named by its number or an alias: its record, `files`, `sets`, and `events` to and from it.

    Raises:
        RegistryError: there is none, or its manifest is not the registered one.
    """
    named = find(store, name)
    version = read_version(store, named.version)
    if version is None or version.identity != named.identity:
        raise RegistryError(f"{store.address}: {name} names {named.version}, which was never registered")
    complete = is_complete(store, version)
    entries = read_manifest(store, version)[1] if complete else {}
    return asdict(version) | {
        "files": {name: asdict(entry) for name, entry in entries.items()},
        "sets": _scores(store, version) if complete else None,
        "events": [event.to_json() for event in history(store) if version.version in (event.version, event.previous)],
    }


def _unmoved(store: Store, alias: str, champion: Event | None) -> Event | None:
    """What the alias names, if that still is what the decision was made against."""
    present = read_alias(store, alias)
    if present != champion:
        raise LostRaceError(_lost(alias, champion, present))
    return present


def _lost(alias: str, before: Event | None, now: Event | None) -> str:
    came = f"{now.version} by {now.by} at {now.moved_at}" if now else "nothing"
    return (
        f"{alias}: was moved meanwhile, from {before.version if before else 'nothing'} to {came}; this promotion "
        "did not touch it. Its decision was made against another champion: judge the bundle again"
    )


def _numbered(store: Store, bundle: str, tags: Tags, bump: Bump, by: str) -> Version:
    """The version that a bundle is, or will be."""
    versions = read_versions(store)
    for version in versions:
        if version.identity == bundle:
            return version
    if changed := tags.uncommitted():
        raise RegistryError(
            f"{tags.repo}: not committed: {', '.join(changed[:5])}{' and more' if len(changed) > 5 else ''}; a version "
            "is a commit that reproduces it: `git commit --all`, then promote again"
        )
    taken = [*(version.version for version in versions), *tags.versions()]
    number = _next(max(taken, key=sort_key), bump) if taken else "1.0.0"
    return Version(number, bundle, tags.commit(), by, now_after(None))


def _next(version: str, bump: Bump) -> str:
    major, minor, patch = sort_key(version)
    return {"major": f"{major + 1}.0.0", "minor": f"{major}.{minor + 1}.0", "patch": f"{major}.{minor}.{patch + 1}"}[
        bump
    ]


def _claim(store: Store, version: Version) -> None:
    """Take the number for ever. Raises LostRaceError if it is another bundle's."""
    if store.swap(version_name(version.version), encode(version.to_json()), None):
        return
    owner = read_version(store, version.version)
    if owner is None or owner.identity != version.identity:
        by = f"by {owner.by} at {owner.registered_at}, " if owner else ""
        raise LostRaceError(
            f"version {version.version}: was registered {by}with another content; a number is never given twice. "
            "Nothing was changed; promote again to get the next one"
        )


def _upload(store: Store, version: Version, bundle: Path, names: Sequence[str], step: Step = lambda name: None) -> None:
    """Write files of a bundle, in this order: the manifest must be the last."""
    for name in names:
        with (bundle / name).open("rb") as stream:
            store.put(f"{version.path}/{name}", stream)
        step(f"file {name}")


def _aliased(store: Store) -> list[Event]:
    """What the aliases name."""
    return [event for name in read_aliases(store) if (event := read_alias(store, name))]


def _attach(store: Store, version: Version, data: bytes, suffix: str) -> Attachment:
    """Keep a file of a decision under a name made of its content."""
    digest = hashlib.sha256(data).hexdigest()
    name = f"decisions/{version.version}-{digest[:12]}{suffix}"
    store.put(name, io.BytesIO(data))
    return Attachment(name, digest)


def _move(store: Store, event: Event, present: Event | None) -> None:
    """The one moment that counts."""
    name = alias_name(event.alias)
    there = store.read(name)
    found = parse_event(there.data, f"{store.address}/{name}") if there else None
    if found == present and store.swap(name, encode(event.to_json()), there.tag if there else None):
        return
    raise LostRaceError(_lost(event.alias, present, read_alias(store, event.alias)))


def _settle(store: Store, event: Event, tags: Tags | None, say: Say, step: Step = lambda name: None) -> None:
    """All that comes after a move. Raises UnsettledError, whatever goes wrong then."""
    try:
        finish(store, event, tags, step)
        _show(store, say)
    except InputError as error:
        raise UnsettledError(
            f"{event.alias}: names version {event.version} now, but not all that belongs to it was written: {error}. "
            "Then run `loupe registry verify`",
            event,
        ) from None
    step("shown")
    say(f"{event.alias}: {event.previous or 'nothing'} -> {event.version}")


def _show(store: Store, say: Say) -> bool:
    """Write index.html anew; whether it was another one. It is for people: that it fails stops nothing."""
    from loupe.release.page import render

    events = history(store)
    try:
        page = render(overview(store, events), events, PRODUCTION)
    except ImportError:
        say("index.html is not renewed: that needs the extra `pipeline`; `loupe registry verify` does it later")
        return False
    there = store.read("index.html")
    if there and there.data == page:
        return False
    store.put("index.html", io.BytesIO(page))
    return True


def _mend_version(
    store: Store, version: Version, removed: set[str], aliases: list[Event], abandoned: float, tags: Tags | None
) -> list[str]:
    """Check one version, and take away what is left of an upload or a removal that died."""
    if is_complete(store, version):
        check_version(store, version)
        tag = tags.version_tag(version.version) if tags else ""
        return [f"tag {tag} was missing"] if tags and tags.register(version) else []
    if any(event.identity == version.identity for event in aliases):
        raise RegistryError(
            f"{store.address}/{version.path}: has no manifest, yet an alias names it: `loupe registry rollback` goes "
            "back to a version that is whole"
        )
    left = store.names(f"{version.path}/")
    if not left:
        return []
    if version.identity not in removed and time.time() - moment_of(version.registered_at) < abandoned:
        raise RegistryError(
            f"{store.address}/{version.path}: unfinished: it is being written, or its promotion died; promoting the "
            "same bundle again goes on with it"
        )
    _remove_files(store, version)
    return [f"{version.path}: {len(left)} files of an upload or a removal that died were left"]


def _mend_tag(tags: Tags, event: Event, version: Version) -> list[str]:
    return [f"tag {tags.move_tag(event.alias, event.generation)} was missing"] if tags.assign(event, version) else []


def _remove_files(store: Store, version: Version) -> None:
    """The manifest first: from then on there is no such version."""
    store.remove(f"{version.path}/{MANIFEST}")
    for name in store.names(f"{version.path}/"):
        store.remove(name)


def _needed(store: Store) -> set[str]:
    events = read_log(store)
    needed = set()
    for name in read_aliases(store):
        present = read_alias(store, name)
        needed |= {present.version} if present else set()
        needed |= set(way_back(events, name)[-2:])
    return needed


def _scores(store: Store, version: Version) -> dict[str, Any] | None:
    """What metrics.json of a bundle says by set, if it is there and is what the manifest says."""
    try:
        expected = read_manifest(store, version)[1]["metrics.json"].sha256
        stored = store.read(f"{version.path}/metrics.json")
        if stored is None or hashlib.sha256(stored.data).hexdigest() != expected:
            return None
        sets = json.loads(stored.data)["sets"]
    except (InputError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return sets if isinstance(sets, dict) else None


def _check_words(by: str, reason: str) -> None:
    # git takes no name without a letter or a digit
    if not any(map(str.isalnum, by)) or not by.isprintable() or not reason.isprintable():
        raise RegistryError("by and reason are kept for ever: a line of text each, and by must name somebody")
