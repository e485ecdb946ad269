"""Is everything there that the flows need? Says of each thing whether it is well, or what to do.

    loupe flows doctor
    loupe flows doctor --json

Looks, and changes nothing but a git worktree that it makes and removes. Exit code 1 when something is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import deploy
from flows.settings import LOOPBACK, REPORTS_PORT, addresses, answers, enter, folder_of, project_here
from loupe.cli import exit_as_loupe
from loupe.errors import InputError
from loupe.named import STORE
from loupe.s3 import SCHEME, connect, split

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

SECONDS = 30.0  # for each group of checks; they go on side by side
CLOCK = 30.0  # seconds by which server and worker may differ
ROOM = 1 << 30  # bytes for checkpoints, TensorBoard and logs beside what the recipe's outputs take
PROBE = "loupe-doctor"  # of an upload to S3 that is begun and given up, so that nothing is left


@dataclass(frozen=True)
class Finding:
    """What is known about one thing: a sentence; when it is wrong, another one that says what to do."""

    name: str
    ok: bool
    message: str
    remedy: str = ""


def examine(project: Path) -> list[Finding]:
    """Look at everything at once; no check waits longer than SECONDS.

    Args:
        project: its root folder; the environment says where the server, the stores and the remote are.
    """
    groups: dict[str, Callable[[Path], Iterator[Finding]]] = {
        "server": _server,
        "git": _git,
        "dvc remote": _remote,
        "release store": _store,
        "reports": _reports,
        "disk": _disk,
    }
    found: dict[str, list[Finding]] = {name: [] for name in groups}

    def look(name: str) -> None:
        try:
            found[name].extend(groups[name](project))
        except Exception as error:  # whatever it is, it is a finding
            found[name].append(Finding(name, False, f"{type(error).__name__}: {error}", "see docs/operations.md"))

    threads = [threading.Thread(target=look, args=(name,), name=name, daemon=True) for name in groups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
        if thread.is_alive():
            late = Finding(
                thread.name, False, f"no answer within {SECONDS:.0f} s", "is the network, or the disk, well?"
            )
            found[thread.name] = [*found[thread.name], late]
    return [one for name in groups for one in found[name]]


def _server(project: Path) -> Iterator[Finding]:
    """The Prefect server, and on it the pool, its workers, the deployments and the automations."""
    import prefect
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        address = str(client.api_url).rstrip("/")
        if error := client.api_healthcheck():
            yield Finding("server", False, f"none at {address}: {error}", "start one: loupe flows up")
            return
        theirs, ours = client.api_version(), prefect.__version__
        mend = "install the same release of Prefect on both sides"
        yield Finding("server", _minor(theirs) == _minor(ours), f"{address}, Prefect {theirs}, here {ours}", mend)
        told = client.request("GET", "/health").headers.get("date")
        off = abs((parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds()) if told else 0.0
        yield Finding(
            "clock", off < CLOCK, f"{off:.0f} s between the server and here", "let both follow one time server"
        )
        yield from _pool(client)
        yield from _deployments(client, project)
        yield from _automations(client)


def _minor(version: str) -> list[str]:
    """The part of a Prefect version that decides whether server and client go together."""
    return version.split(".")[:2]


def _pool(client: SyncPrefectClient) -> Iterator[Finding]:
    """The work pool and its workers."""
    from prefect.exceptions import ObjectNotFound

    try:
        pool = client.read_work_pool(deploy.POOL)
    except ObjectNotFound:
        yield Finding("work pool", False, f"no work pool {deploy.POOL}", "make it: loupe flows deploy")
        return
    beat = int((pool.base_job_template["variables"]["properties"]["env"].get("default") or {}).get(deploy.FREQUENCY, 0))
    well = pool.type == "process" and not pool.is_paused and 0 < beat <= deploy.HEARTBEAT
    message = f"{pool.name}, {'paused' if pool.is_paused else 'open'}, type {pool.type}, a sign of life every {beat} s"
    yield Finding("work pool", well, message, "resume it in the UI, or: loupe flows deploy")
    online = [worker.name for worker in client.read_workers_for_work_pool(deploy.POOL) if worker.status == "ONLINE"]
    message = f"{', '.join(online)} online" if online else "none is online, so nothing runs"
    yield Finding("worker", bool(online), message, "start one: loupe flows up, or loupe flows up --no-server")


def _deployments(client: SyncPrefectClient, project: Path) -> Iterator[Finding]:
    """The deployments of prefect.yaml, and what starts them."""
    found = deploy.deployed(client)
    entries = deploy.deployments_of(project)
    wrong, paused = [], []
    for entry in entries:
        name = entry["name"]
        if name not in found:
            wrong.append(f"{name} is missing")
            continue
        wrong += [f"{name}: {text}" for text in deploy.differences(entry, found[name])]
        off = [str(schedule.slug) for schedule in found[name].schedules if not schedule.active]
        paused += [f"{name} ({', '.join(off)})"] if off or found[name].paused else []
    wrong += [f"{name} is not in prefect.yaml" for name in found.keys() - {entry["name"] for entry in entries}]
    well = f"{len(entries)}, as prefect.yaml says" + (f"; paused by someone: {', '.join(paused)}" if paused else "")
    yield Finding("deployments", not wrong, "; ".join(wrong) or well, "bring them in line: loupe flows deploy")
    for entry in entries:
        for trigger in entry.get("triggers", []):
            there = found.get(entry["name"])
            made = [one for one in deploy.triggers_of(client, there.id) if one.name == trigger["name"]] if there else []
            on = bool(made) and made[0].enabled
            state = "on" if on else "off" if made else "missing"
            text = f"{', '.join(trigger['expect'])} starts {entry['name']}: {state}"
            yield Finding("event trigger", on, text, "switch it on in the UI, or: loupe flows deploy")


def _automations(client: SyncPrefectClient) -> Iterator[Finding]:
    """The automation that finds runs that died, and the one that tells people."""
    made = client.read_automations_by_name(deploy.CRASHES)
    within = getattr(made[0].trigger, "within", None) if made else None
    silence = int(within.total_seconds()) if within else deploy.SILENCE
    for name, wanted in deploy.automations(client, silence).items():
        found = client.read_automations_by_name(name)
        if wanted is None:
            text = f"no block {deploy.BLOCK}, so nobody is told of runs that fail; docs/operations.md shows how"
            yield Finding("notifications", not found, text, "remove the automation: loupe flows deploy")
            continue
        well = len(found) == 1 and deploy.same(wanted, found[0])
        on = well and found[0].enabled
        text = f"{name!r}: {'on' if on else 'off' if well else 'missing, or not as it should be'}"
        what = "automations" if name == deploy.CRASHES else "notifications"
        yield Finding(what, on, text, "switch it on in the UI" if well else "make it anew: loupe flows deploy")


def _git(project: Path) -> Iterator[Finding]:
    """Whether runs can commit, and have a worktree of their own."""

    def git(*arguments: str) -> tuple[bool, str]:
        done = subprocess.run(["git", *arguments], cwd=project, capture_output=True, text=True, timeout=SECONDS)
        return done.returncode == 0, (done.stdout if done.returncode == 0 else done.stderr).strip()

    well, said = git("-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT")
    name = said.rsplit(" ", 2)[0] if well else "nobody, so runs cannot commit"
    yield Finding("git identity", well, name, "git config user.name NAME; git config user.email ADDRESS")
    trees = folder_of(project) / "worktrees"
    trees.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="doctor-", dir=trees) as place:
        tree = str(Path(place) / "tree")
        well, said = git("worktree", "add", "--quiet", "--detach", "--no-checkout", tree)
        if well:
            git("worktree", "remove", "--force", tree)
    message = "possible" if well else said
    yield Finding("git worktrees", well, message, "runs need a git repository with a commit, and git 2.17 or newer")


def _remote(project: Path) -> Iterator[Finding]:
    """The DVC remote: can it be read, and does it look as if it could be written?"""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    mend = "see `dvc remote list` and the credentials; docs/operations.md shows how to set one up"
    try:
        with Repo(str(project)) as repo:
            remote = repo.cloud.get_remote()
            root, protocol = remote.path, remote.fs.protocol
            there = remote.fs.exists(root)
            if there:
                remote.fs.ls(root, detail=False)
            address = f"{remote.name}: {remote.fs.unstrip_protocol(root)}"
            if protocol == "local":
                writable = _writable(Path(root))
            elif protocol == "s3":
                bucket, _, prefix = root.partition("/")
                writable = _accepts_uploads(remote.fs.fs.call_s3, bucket, prefix)
            else:
                writable = ""
    except (DvcException, OSError, ValueError) as error:
        yield Finding("dvc remote", False, str(error), mend)
        return
    state = "is read" if there else "is empty"
    yield Finding("dvc remote", not writable, f"{address} {state}" + (f", but {writable}" if writable else ""), mend)


def _store(project: Path) -> Iterator[Finding]:
    """The release store: what is in production, and does it look as if it could be written?"""
    from loupe.release.store import open_store

    address = os.environ.get("LOUPE_STORE") or STORE
    try:
        alias = open_store(address if "://" in address else project / address).read("aliases/production.json")
        if address.startswith(SCHEME):
            bucket, prefix = split(address)
            client = connect(address, "s3").client
            writable = _accepts_uploads(lambda method, **given: getattr(client, method)(**given), bucket, prefix)
        else:
            writable = _writable(project / address)
    except InputError as error:
        yield Finding("release store", False, str(error), "see LOUPE_STORE and the credentials")
        return
    version = json.loads(alias.data).get("version") if alias else None
    message = f"{address}: {f'production is {version}' if version else 'nothing is in production yet'}"
    if writable:
        message += f", but {writable}"
    yield Finding("release store", not writable, message, "see LOUPE_STORE and the credentials")


def _reports(project: Path) -> Iterator[Finding]:
    """The place of the reports: does it look as if it could be written, and is it served?"""
    place = os.environ.get("LOUPE_REPORTS") or str(folder_of(project).relative_to(project) / "reports")
    mend = "see LOUPE_REPORTS and the credentials"
    if place.startswith(SCHEME):
        bucket, prefix = split(place)
        client = connect(place, "s3").client
        problem = _accepts_uploads(lambda method, **given: getattr(client, method)(**given), bucket, prefix)
        address = os.environ.get("LOUPE_REPORTS_URL", "")
    else:
        problem = _writable(Path(place))
        found = addresses(project)
        address = os.environ.get("LOUPE_REPORTS_URL") or (
            found.reports if found else f"http://{LOOPBACK}:{REPORTS_PORT}"
        )
    if not problem and address and not answers(address):
        problem, mend = f"nothing serves it at {address}", "start it: loupe flows up; or see LOUPE_REPORTS_URL"
    message = f"{place}, {f'at {address}' if address else 'given as archives to download'}"
    yield Finding("reports", not problem, f"{place}, but {problem}" if problem else message, mend)


def _writable(folder: Path) -> str:
    """Why a folder that may not be there yet cannot be written; "" if it can."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return "" if os.access(there, os.W_OK | os.X_OK) else f"{there} cannot be written"


def _accepts_uploads(call: Callable[..., Any], bucket: str, prefix: str) -> str:
    """Why a place at S3 cannot be written; "" if it can. An upload is begun and given up: no object ever is there."""
    key = "/".join(filter(None, (prefix.strip("/"), PROBE)))
    try:
        begun = call("create_multipart_upload", Bucket=bucket, Key=key)
        call("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=begun["UploadId"])
    except Exception as error:  # boto's errors and those of s3fs have no base in common
        return f"it cannot be written ({error})"
    return ""


def _disk(project: Path) -> Iterator[Finding]:
    """Room for a run: its outputs in the worktree, the same in DVC's cache, and what is written beside them."""
    from ruamel.yaml import YAML

    lock = project / "dvc.lock"
    stages = (YAML(typ="safe").load(lock) or {}).get("stages", {}) if lock.is_file() else {}
    outputs = sum(out.get("size", 0) for stage in stages.values() for out in stage.get("outs", []))
    needed, free = 2 * outputs + ROOM, shutil.disk_usage(project).free
    message = f"{free / 1e9:.1f} GB free, a run needs about {needed / 1e9:.1f} GB"
    yield Finding(
        "disk",
        free >= needed,
        message,
        "make room: the flow reap, old folders of runs/, dvc gc --all-branches --all-tags",
    )


def lines(findings: list[Finding]) -> list[str]:
    """The findings for people."""
    width = max(len(one.name) for one in findings)
    return [
        line
        for one in findings
        for line in (
            f"{'ok   ' if one.ok else 'WRONG'}  {one.name:{width}}  {one.message}",
            *([] if one.ok else [f"       {'':{width}}  -> {one.remedy}"]),
        )
    ]


def main() -> int:
    """Read the command line, look, and say what was found."""
    parser = argparse.ArgumentParser(
        prog="loupe flows doctor", description="Check all that the flows need; exit code 1 when something is wrong."
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    arguments = parser.parse_args()
    project = project_here()
    enter(project)
    findings = examine(project)
    well = all(one.ok for one in findings)
    if arguments.json:
        print(json.dumps({"ok": well, "findings": [asdict(one) for one in findings]}, indent=2))
    else:
        print("\n".join(lines(findings)))
    return 0 if well else 1


if __name__ == "__main__":
    exit_as_loupe(main)
