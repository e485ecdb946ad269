"""Promotion, rollback, history and retention, over a folder and over S3; what dies half-way is mended."""

import hashlib
import io
import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.release.conftest import DECISION, Repository, make_bundle, python

from loupe.errors import InputError
from loupe.release.manifest import verify_folder
from loupe.release.pull import pull
from loupe.release.registry import (
    AlreadyPromotedError,
    LostRaceError,
    UnsettledError,
    check_version,
    describe,
    history,
    overview,
    promote,
    prune,
    rollback,
    seed,
    verify,
)
from loupe.release.store import Store, open_store
from loupe.release.tags import Tags
from loupe.release.versions import Event, RegistryError, read_alias, read_version, read_versions

pytestmark = pytest.mark.timeout(120)

Publish = Callable[..., Event]
on_disk = pytest.mark.parametrize("store", ["folder"], indirect=True)  # what does not depend on the kind of store
STEPS = (
    "claimed",
    "file golden/größe 1.png",
    "file model.onnx",
    "file MANIFEST.json",
    "uploaded",
    "registered",
    "explained",
    "moved",
    "logged",
    "assigned",
)


class Died(Exception):  # noqa: N818
    """Stands for the end of a process."""


def dies_after(name: str) -> Callable[[str], None]:
    def step(done: str) -> None:
        if done == name:
            raise Died

    return step


def story(store: Store) -> list[tuple[str, str | None, str]]:
    return [(event.event, event.previous, event.version) for event in history(store)]


def test_a_life(store: Store, publish: Publish, repository: Repository) -> None:
    first = publish("one", reason="the first")
    assert (first.version, first.previous, first.generation) == ("1.0.0", None, 1)
    assert publish("two").version == "1.1.0"
    assert publish("three", bump="patch").version == "1.1.1"
    assert publish("four", bump="major").version == "2.0.0"
    tags = Tags(repository.folder)
    assert rollback(store, None, tags, by="night shift", reason="halos").version == "1.1.1"
    assert rollback(store, None, tags, by="night shift").version == "1.1.0", "further back, not forward"
    assert rollback(store, "1.0.0", tags, by="night shift").version == "1.0.0"
    with pytest.raises(RegistryError, match=r"nothing came before version 1\.0\.0"):
        rollback(store, None, tags, by="night shift")
    assert publish("five").version == "2.1.0", "a number is never used twice"
    assert rollback(store, None, tags, by="day shift").version == "1.0.0"
    assert story(store) == [
        ("promote", None, "1.0.0"),
        ("promote", "1.0.0", "1.1.0"),
        ("promote", "1.1.0", "1.1.1"),
        ("promote", "1.1.1", "2.0.0"),
        ("rollback", "2.0.0", "1.1.1"),
        ("rollback", "1.1.1", "1.1.0"),
        ("rollback", "1.1.0", "1.0.0"),
        ("promote", "1.0.0", "2.1.0"),
        ("rollback", "2.1.0", "1.0.0"),
    ]
    times = [event.moved_at for event in history(store)]
    assert times == sorted(set(times)), "later by a second at least, however fast they came"
    assert [event.generation for event in history(store, "production")] == list(range(1, 10))
    assert history(store)[4].by == "night shift"
    assert history(store)[4].reason == "halos"
    assert [name for name in repository.tags() if "@" in name] == [
        f"rdn-x2@v{number}" for number in ("1.0.0", "1.1.0", "1.1.1", "2.0.0", "2.1.0")
    ]
    assert sum("#production#" in name for name in repository.tags()) == 9
    assert verify(store, tags) == []


def test_what_lies_in_the_store(store: Store, publish: Publish, tmp_path: Path) -> None:
    picture = tmp_path / "gate.svg"
    picture.write_text("<svg/>")
    event = publish("one", picture=picture)
    manifest = (tmp_path / "bundle-one" / "MANIFEST.json").read_bytes()
    digest = hashlib.sha256(manifest).hexdigest()
    names = store.names("versions/")
    assert f"versions/1.0.0-{digest[:12]}/golden/größe 1.png" in names
    assert f"versions/1.0.0-{digest[:12]}/MANIFEST.json" in names
    alias = store.read("aliases/production.json")
    assert alias is not None
    content = json.loads(alias.data)
    assert content["identity"] == digest
    assert content["path"] == f"versions/1.0.0-{digest[:12]}"
    assert {"version", "generation", "moved_at", "by", "from", "reason"} <= set(content)
    (log,) = store.names("log/")
    assert re.fullmatch(r"log/\d{8}T\d{6}Z-production-000001\.json", log)
    logged = store.read(log)
    assert logged is not None
    assert logged.data == alias.data
    for attachment, expected in ((event.decision, json.dumps(DECISION)), (event.picture, '"<svg/>"')):
        assert attachment is not None
        kept = store.read(attachment.path)
        assert kept is not None
        assert hashlib.sha256(kept.data).hexdigest() == attachment.sha256
        assert kept.data.decode() == "<svg/>" or json.loads(kept.data) == json.loads(expected)
    page = store.read("index.html")
    assert page is not None
    for words in (b"1.0.0", b"34.09", b"+2.23", event.by.encode()):
        assert words in page.data


@on_disk
def test_overview_and_describe(store: Store, publish: Publish) -> None:
    publish("one")
    publish("two")
    rows = overview(store, [])
    assert [(row["version"], row["state"], row["aliases"]) for row in rows] == [
        ("1.1.0", "complete", ["production"]),
        ("1.0.0", "complete", []),
    ]
    assert rows[0]["sets"]["photos"]["gain_db"] == 2.23
    told = describe(store, "production")
    assert told["version"] == "1.1.0"
    assert "model.onnx" in told["files"]
    assert [event["event"] for event in describe(store, "1.0.0")["events"]] == ["promote", "promote"]
    with pytest.raises(RegistryError, match=r"has no 7\.0\.0"):
        describe(store, "7.0.0")


@on_disk
def test_what_is_not_promoted(store: Store, publish: Publish, repository: Repository, tmp_path: Path) -> None:
    publish("one")
    with pytest.raises(AlreadyPromotedError, match=r"production already, as version 1\.0\.0"):
        publish("one")
    make_bundle(tmp_path / "bundle-same", "same commit")
    with pytest.raises(RegistryError, match=r"is version 1\.0\.0 already, .*commit what made this bundle"):
        publish("same")
    publish("two")
    with pytest.raises(RegistryError, match=r"has left behind for 1\.1\.0; .*registry rollback 1\.0\.0"):
        publish("one")
    rollback(store, by="tester")
    assert publish("two").version == "1.1.0", "forward again, under its number"
    (repository.folder / "dvc.lock").write_text("changed")
    make_bundle(tmp_path / "bundle-dirty", "dirty")
    with pytest.raises(RegistryError, match=r"not committed: dvc\.lock; .*git commit"):
        publish("dirty")
    repository.git("checkout", "--quiet", "dvc.lock")
    repository.commit("tag by hand")
    repository.git("tag", "-a", "-m", "x", "rdn-x2@v4.0.0", "HEAD~3")  # the first
    make_bundle(tmp_path / "bundle-hand", "hand")
    assert publish("hand").version == "4.1.0", "numbers of tags count too"
    before = sorted((tmp_path / "releases").rglob("*"))
    for bad, message in (
        ({"by": ""}, "by must name somebody"),
        ({"by": ".'"}, "by must name somebody"),
        ({"reason": "two\nlines"}, "a line of text"),
        ({"alias": "../x"}, "no alias has such a name"),
        ({"picture": tmp_path / "x.exe"}, "no picture of a decision"),
    ):
        with pytest.raises(InputError, match=message):
            publish("hand", **bad)
    (tmp_path / "bundle-hand" / "model.onnx").write_text("tampered")
    with pytest.raises(InputError, match=r"model\.onnx is damaged"):
        publish("hand")
    assert sorted((tmp_path / "releases").rglob("*")) == before


def test_a_number_is_given_once(store: Store, publish: Publish, repository: Repository, tmp_path: Path) -> None:
    publish("one")
    make_bundle(tmp_path / "bundle-quick", "quick")
    real = store.swap
    done: list[str] = []

    def swap(name: str, data: bytes, tag: str | None) -> bool:
        if name == "versions/1.1.0.json" and not done:  # another process, between our look and our claim
            done.append(name)
            publish("quick")
        return real(name, data, tag)

    repository.commit("quick")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "swap", swap)
        with pytest.raises(LostRaceError, match=r"1\.1\.0: was registered by tester .*never given twice"):
            publish("slow")
    found = read_version(store, "1.1.0")
    assert found is not None
    alias = read_alias(store, "production")
    assert alias is not None
    assert alias.identity == found.identity


@pytest.mark.parametrize("when", ["registered", "explained"])
def test_who_comes_second_loses(
    store: Store, publish: Publish, repository: Repository, tmp_path: Path, when: str
) -> None:
    publish("one")
    champion = read_alias(store, "production")

    def step(name: str) -> None:
        if name == when:
            publish("quick")

    with pytest.raises(LostRaceError, match=r"from 1\.0\.0 to 1\.2\.0 by tester .*judge the bundle again"):
        publish("slow", step=step)
    with pytest.raises(LostRaceError, match="judge the bundle again"):
        publish("slow", champion=champion)
    assert story(store)[1:] == [("promote", "1.0.0", "1.2.0")]
    assert verify(store, Tags(repository.folder)) == []
    assert publish("slow").version == "1.1.0", "judged against the new champion, under the number that it has"
    with pytest.raises(AlreadyPromotedError):
        publish("slow")


@pytest.mark.parametrize(
    ("store", "step"),
    [*(("folder", step) for step in STEPS), *(("s3", step) for step in ("file model.onnx", "registered", "moved"))],
    indirect=["store"],
)
def test_a_death_after_any_step_is_mended(
    store: Store, publish: Publish, repository: Repository, tmp_path: Path, step: str
) -> None:
    tags = Tags(repository.folder)
    publish("one")
    with pytest.raises(Died):
        publish("two", step=dies_after(step))
    happened = STEPS.index(step) >= STEPS.index("moved")
    pulled = pull(store, tmp_path / "served", say=print)
    assert pulled.version == ("1.1.0" if happened else "1.0.0")
    verify_folder(tmp_path / "served")
    left = [finding for finding in verify(store, tags) if not finding.mended]
    if STEPS.index("claimed") < STEPS.index(step) < STEPS.index("file MANIFEST.json"):
        assert "promoting the same bundle again" in left.pop().what
    assert not left
    if happened:
        assert {"rdn-x2@v1.1.0", "rdn-x2#production#2"} <= set(repository.tags())
        assert verify(store, tags) == []
        with pytest.raises(AlreadyPromotedError):
            publish("two")
    else:
        assert "rdn-x2#production#2" not in repository.tags()
        assert publish("two").version == "1.1.0", "gone on with, under its number"
    assert verify(store, tags) == []
    assert story(store) == [("promote", None, "1.0.0"), ("promote", "1.0.0", "1.1.0")]


@on_disk
def test_what_fails_after_the_move(store: Store, publish: Publish, repository: Repository) -> None:
    first = publish("one")

    def step(name: str) -> None:
        if name == "moved":
            repository.git("tag", "-a", "-m", "by hand", "rdn-x2#production#2", "HEAD~1")

    with pytest.raises(
        UnsettledError, match=r"names version 1\.1\.0 now, but not all .*production#2.*registry verify"
    ) as raised:
        publish("two", step=step)
    assert raised.value.event == read_alias(store, "production")
    with pytest.raises(LostRaceError, match=r"from 1\.0\.0 to 1\.1\.0 by tester"):
        rollback(store, by="tester", after=first)
    assert rollback(store, tags=Tags(repository.folder), by="tester").version == "1.0.0", "tags are no obstacle"
    repository.git("tag", "--delete", "rdn-x2#production#2")
    assert {finding.mended for finding in verify(store, Tags(repository.folder))} == {True}
    assert verify(store, Tags(repository.folder)) == []


@on_disk
def test_a_store_that_is_not_there_is_not_made(store: Store, repository: Repository, tmp_path: Path) -> None:
    assert verify(store, Tags(repository.folder)) == []
    assert not history(store)
    assert not overview(store, [])
    assert not prune(store, by="tester")
    with pytest.raises(RegistryError, match="production was never set; promote a bundle first"):
        rollback(store, by="tester")
    assert not (tmp_path / "releases").exists()


def test_nothing_is_lost_when_nobody_verifies(store: Store, publish: Publish, repository: Repository) -> None:
    publish("one")
    with pytest.raises(Died):
        publish("two", step=dies_after("moved"))
    publish("three")
    assert len(store.names("log/")) == 3
    assert [event.version for event in history(store)] == ["1.0.0", "1.1.0", "1.2.0"]
    with pytest.raises(Died):
        publish("four", step=dies_after("moved"))
    assert rollback(store, by="no git here").version == "1.2.0"
    assert len(store.names("log/")) == 5
    findings = verify(store, Tags(repository.folder))
    assert all(finding.mended for finding in findings)
    assert "rdn-x2#production#5" in repository.tags()


@on_disk
def test_an_abandoned_upload_is_removed(store: Store, publish: Publish, repository: Repository) -> None:
    publish("one")
    with pytest.raises(Died):
        publish("two", step=dies_after("file model.onnx"))
    path = read_versions(store)[1].path
    assert store.names(f"{path}/")
    findings = verify(store, Tags(repository.folder), abandoned=0)
    assert [finding.mended for finding in findings] == [True, True]
    assert "3 files of an upload" in findings[0].what
    assert not store.names(f"{path}/")
    assert overview(store, [])[0]["state"] == "unfinished"
    assert publish("two").version == "1.1.0", "the number stays with its bundle"


@on_disk
def test_an_upload_that_lost_files_is_repaired_by_the_next_promotion(
    store: Store, publish: Publish, repository: Repository
) -> None:
    publish("one")
    with pytest.raises(Died):
        publish("two", step=dies_after("file model.onnx"))
    path = read_versions(store)[1].path

    def step(name: str) -> None:
        if name == "file model.onnx":  # to a `verify` that runs meanwhile it looks abandoned
            verify(store, abandoned=0)

    with pytest.raises(InputError, match="No such file"):
        publish("two", step=step)
    assert f"{path}/MANIFEST.json" in store.names(f"{path}/")
    assert publish("two").version == "1.1.0"
    store.put(f"{path}/model.onnx", io.BytesIO(b"tampered"))
    rollback(store, by="tester")
    assert publish("two").version == "1.1.0", "the bundle is at hand, and is what was registered"
    assert verify(store, Tags(repository.folder)) == []


@on_disk
def test_scores_that_were_exchanged_are_not_shown(store: Store, publish: Publish) -> None:
    path = publish("one").path
    scores = store.read(f"{path}/metrics.json")
    assert scores is not None
    store.put(f"{path}/metrics.json", io.BytesIO(scores.data.replace(b"2.23", b"9.99")))
    assert overview(store, [])[0]["sets"] is None


@on_disk
def test_retention(store: Store, publish: Publish, repository: Repository) -> None:
    for content in ("one", "two", "three", "four", "five", "six"):
        publish(content)
    publish("four", alias="staging", champion=None)
    rollback(store, "1.1.0", by="tester")  # six versions, two of them in use; before 1.1.0 came 1.0.0
    gone = prune(store, keep=1, by="tester", reason="disk")
    assert [version.version for version in gone] == ["1.2.0", "1.4.0"]
    assert {row["version"]: row["state"] for row in overview(store, history(store))} == {
        "1.5.0": "complete",
        "1.4.0": "removed",
        "1.3.0": "complete",
        "1.2.0": "removed",
        "1.1.0": "complete",
        "1.0.0": "complete",
    }
    assert not store.names(f"{gone[0].path}/")
    assert [event.reason for event in history(store) if event.event == "remove"] == ["disk", "disk"]
    assert all(finding.mended for finding in verify(store, Tags(repository.folder))), "the page, perhaps"
    assert verify(store, Tags(repository.folder)) == []
    assert prune(store, keep=1, by="tester") == []
    with pytest.raises(RegistryError, match=r"1\.2\.0 was not finished, or was removed"):
        rollback(store, "1.2.0", by="tester")
    assert rollback(store, by="tester").version == "1.0.0"
    with pytest.raises(RegistryError, match="at least the last version"):
        prune(store, keep=0, by="tester")


@on_disk
def test_a_removal_that_died_is_finished(store: Store, publish: Publish, repository: Repository) -> None:
    for content in ("one", "two", "three"):
        publish(content)
    path = read_versions(store)[0].path
    with pytest.MonkeyPatch.context() as patch:

        def remove(name: str) -> None:
            raise Died

        patch.setattr(store, "remove", remove)
        with pytest.raises(Died):
            prune(store, keep=1, by="tester")
    check_version(store, read_versions(store)[0])
    store.remove(f"{path}/MANIFEST.json")
    assert any("were left" in finding.what and finding.mended for finding in verify(store, Tags(repository.folder)))
    assert not store.names(f"{path}/")


@on_disk
def test_what_verify_cannot_mend(store: Store, publish: Publish, repository: Repository, tmp_path: Path) -> None:
    tags = Tags(repository.folder)
    first, second = publish("one"), publish("two")
    store.put(f"{first.path}/model.onnx", io.BytesIO(b"tampered"))
    (finding,) = verify(store, tags)
    assert not finding.mended
    assert f"{first.path}/model.onnx: refused" in finding.what
    with pytest.raises(InputError, match="refused"):
        rollback(store, by="tester")
    alias = read_alias(store, "production")
    assert alias is not None
    assert alias.version == "1.1.0"
    store.remove(f"{second.path}/MANIFEST.json")
    assert any("yet an alias names it" in finding.what for finding in verify(store, tags))
    with pytest.raises(RegistryError, match="rollback"):
        pull(store, tmp_path / "served")
    store.remove(store.names("log/")[0])
    assert any("its log has the moves [2]" in finding.what for finding in verify(store, tags))
    store.put("aliases/production.json", io.BytesIO(b"{"))
    assert any("production.json: damaged" in finding.what for finding in verify(store, tags))


@on_disk
def test_a_clone_without_the_commits(store: Store, publish: Publish, repository: Repository, tmp_path: Path) -> None:
    publish("one")
    publish("two")
    other = Repository(tmp_path / "other")
    findings = [finding.what for finding in verify(store, Tags(other.folder))]
    assert findings
    assert all("git fetch" in finding for finding in findings)
    other.git("fetch", "--quiet", "--no-tags", str(repository.folder), "main")
    assert all(finding.mended for finding in verify(store, Tags(other.folder)))
    assert other.git("show-ref", "--tags") == repository.git("show-ref", "--tags"), "the same tags, byte for byte"


def test_a_reader_never_sees_a_mix(store: Store, publish: Publish, tmp_path: Path) -> None:
    publish("v0")
    done = threading.Event()
    seen: list[str] = []
    wrong: list[str] = []

    def read() -> None:
        reader = open_store(store.address)
        try:
            while not done.is_set():
                pulled = pull(reader, tmp_path / "served", say=wrong.append)
                texts = {
                    (pulled.folder / "model.onnx").read_text(),
                    (pulled.folder / "golden" / "größe 1.png").read_text(),
                    json.loads((pulled.folder / "metrics.json").read_text())["content"],
                }
                seen.append(pulled.version)
                if texts != {f"v{pulled.version.split('.')[1]}"}:
                    wrong.append(f"{pulled.version}: {texts}")
        except InputError as error:
            wrong.append(str(error))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for number in range(1, 5):
            publish(f"v{number}")
        rollback(store, "1.2.0", by="tester")
    finally:
        done.set()
        thread.join()
    assert not wrong
    assert len(set(seen)) > 1
    assert pull(store, tmp_path / "served").version == "1.2.0"


PROMOTE = """
import os, sys, time
from pathlib import Path
from loupe.errors import InputError
from loupe.release.registry import promote
from loupe.release.store import open_store
from loupe.release.tags import Tags

address, bundle, repository, name, after = sys.argv[1:]
gate = Path(bundle).parent
def step(done):
    if done == after:
        os._exit(9)
(gate / f"{name}.ready").touch()
while not (gate / "go").exists():
    time.sleep(0.001)
try:
    event = promote(open_store(address), Path(bundle), Tags(Path(repository)), {}, champion=None, by=name, step=step)
except InputError as error:
    print(type(error).__name__, error)
    sys.exit(2)
"""


def test_two_processes_promote_at_once(repository: Repository, tmp_path: Path) -> None:
    other = Repository(tmp_path / "other")
    other.git("fetch", "--quiet", str(repository.folder), "main")
    for round_ in range(2):
        store = open_store(tmp_path / f"store{round_}")
        (tmp_path / "go").unlink(missing_ok=True)
        runs = []
        for name, repo in (("alice", repository), ("bob", other)):
            make_bundle(tmp_path / f"{name}{round_}", f"{name} {round_}")
            repo.git("tag", "--list")
            runs.append(python(PROMOTE, store.address, tmp_path / f"{name}{round_}", repo.folder, name, ""))
        while not all((tmp_path / f"{name}.ready").exists() for name in ("alice", "bob")):
            pass
        (tmp_path / "go").touch()
        outputs = [run.communicate(timeout=60)[0] for run in runs]
        codes = [run.returncode for run in runs]
        assert sorted(codes) == [0, 2], outputs
        assert "LostRaceError" in outputs[codes.index(2)]
        winner = ("alice", "bob")[codes.index(0)]
        assert [event.by for event in history(store)] == [winner]
        for repo in (repository, other):
            for tag in repo.tags():
                repo.git("tag", "--delete", tag)
        for name in ("alice", "bob"):
            (tmp_path / f"{name}.ready").unlink()


def test_processes_that_really_die(repository: Repository, tmp_path: Path) -> None:
    """One store, and a process that dies a step later each time: in the end it is as if none had died."""
    store = open_store(tmp_path / "store")
    make_bundle(tmp_path / "bundle", "one")
    (tmp_path / "go").touch()
    for step in STEPS[: STEPS.index("moved") + 1]:
        run = python(PROMOTE, store.address, tmp_path / "bundle", repository.folder, "alice", step)
        assert "Error" not in run.communicate(timeout=60)[0]
        assert run.returncode == 9, step
    findings = verify(store, Tags(repository.folder))
    assert all(finding.mended for finding in findings)
    assert story(store) == [("promote", None, "1.0.0")]
    assert verify(store, Tags(repository.folder)) == []


@pytest.fixture
def shipped(repository: Repository, tmp_path: Path) -> Event:
    """The only move in a store in the folder `seed`, made from a repository that nobody here has."""
    elsewhere = Repository(tmp_path / "elsewhere")
    bundle = make_bundle(tmp_path / "bundle", "shipped")
    elsewhere.commit("shipped")
    source, tags = open_store(tmp_path / "seed"), Tags(elsewhere.folder)
    picture = tmp_path / "decision.svg"
    picture.write_text("<svg/>")
    event = promote(source, bundle, tags, DECISION, champion=None, by="maker", picture=picture, say=lambda line: None)
    compiled = next((tmp_path / "seed" / "versions").glob("1.0.0-*")) / "__pycache__" / "verify.pyc"
    compiled.parent.mkdir()
    compiled.write_bytes(b"made by an installation")
    return event


def test_a_store_begins_with_a_seed(
    store: Store, shipped: Event, repository: Repository, publish: Publish, tmp_path: Path
) -> None:
    tags = Tags(repository.folder)
    assert seed(store, tmp_path / "seed") == [shipped]
    assert seed(store, tmp_path / "seed") == [shipped], "again changes nothing"
    assert pull(store, tmp_path / "pulled").identity == shipped.identity
    assert story(store) == [("promote", None, "1.0.0")]
    assert not [name for name in store.names("versions/") if "pycache" in name]
    assert verify(store, tags, seeds=[shipped.identity]) == []
    assert "git fetch" in verify(store, tags)[0].what, "a commit that must be here, and is not"
    second = publish("mine")
    assert (second.version, second.previous, second.generation) == ("1.1.0", "1.0.0", 2)
    assert verify(store, tags, seeds=[shipped.identity]) == []
    with pytest.raises(RegistryError, match="is in use already; a store begins with the seed, or does without it"):
        seed(store, tmp_path / "seed")
    assert read_alias(store, "production") == second
    assert rollback(store, None, tags, by="night shift").version == "1.0.0"


def test_a_store_with_versions_of_its_own_is_not_seeded(
    store: Store, shipped: Event, publish: Publish, tmp_path: Path
) -> None:
    mine = publish("mine")
    with pytest.raises(RegistryError, match="is in use already"):
        seed(store, tmp_path / "seed")
    assert read_alias(store, "production") == mine
    assert pull(store, tmp_path / "pulled").identity == mine.identity


def test_a_promotion_that_was_quicker_than_the_seed_wins(
    store: Store, shipped: Event, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = read_versions
    mine: list[Event] = []

    def late(looked_at: Store) -> Any:
        found = read(looked_at)
        if looked_at is store and not mine:
            mine.append(shipped)  # so that the promotion's own look changes nothing
            mine[0] = publish("mine")
        return found

    monkeypatch.setattr("loupe.release.registry.read_versions", late)
    with pytest.raises(RegistryError):
        seed(store, tmp_path / "seed")
    assert read_alias(store, "production") == mine[0]
    assert pull(store, tmp_path / "pulled").identity == mine[0].identity


def test_a_seed_that_was_cut_off_is_gone_on_with(
    store: Store, shipped: Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = store.put
    names: list[str] = []

    def dies(name: str, content: Any) -> None:
        if len(names) == 3:
            put(str(Path(name).with_name(".0f3a.part")), content)  # as a killed process leaves it in a folder
            raise Died
        names.append(name)
        put(name, content)

    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(store, "put", dies)
        seed(store, tmp_path / "seed")
    assert read_alias(store, "production") is None
    assert seed(store, tmp_path / "seed") == [shipped]
    assert pull(store, tmp_path / "pulled").identity == shipped.identity
