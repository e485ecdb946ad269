"""What goes to a machine, and what comes back: code by git, inputs by their content, results by DVC.

    here                                     S3                                    the machine
    HEAD, what has changed in its files  ->  code.bundle, changes.patch        ->  the same tree, or it refuses
    index/, which git does not hold      ->  inputs/MD5/                       ->  the same MD5, or it refuses
    champion.dvc                         ->  DVC's remote                      ->  champion/
    dvc.lock, metrics/train/curves.csv   <-  result/                           <-  made by `dvc repro --single-item`
    models/                              <-  DVC's remote                      <-  `dvc push`

DVC hashes what a stage reads before it believes that a result belongs to it. So the machine must compute in the very
tree that is here, and what it made is taken only if DVC finds nothing left to do afterwards.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loupe.cloud import aws
from loupe.cloud.checkpoints import Checkpoints
from loupe.cloud.mailbox import Mailbox
from loupe.cloud.records import Order, Remote
from loupe.errors import InputError
from loupe.git import environment as environment_of_git
from loupe.names import printable, safe_name
from loupe.s3 import SCHEME

LOCK = "dvc.lock"
RECORDS = ("params.yaml", LOCK, "metrics/*", "*.dvc")  # what a recipe writes: their changes belong to a run
SECRET = re.compile(r"SECRET|PASSWORD|TOKEN|CREDENTIAL|ACCESS_KEY|PRIVATE")  # in names of variables
EVERY, LOOK = 5.0, 0.05  # seconds between lines of progress, and until it is looked again
SHOWN = 5  # names in an error
FRESH = 15.0  # days: the stack has S3 remove inputs after 30, and a run may take some

Say = Callable[[str], object]


@dataclass(frozen=True)
class Needs:
    """What DVC says of a stage.

    inputs: paths that it reads and git does not hold, and the MD5 of what is there. code: the files of all other paths
    that it reads. tracked: .dvc files that no stage before it reads, whose contents it may use by a parameter. loose:
    outputs that DVC does not keep in its cache.
    """

    inputs: Mapping[str, str]
    code: tuple[str, ...]
    tracked: tuple[str, ...]
    loose: tuple[str, ...]


def ship(
    project: Path,
    mailbox: Mailbox,
    *,
    stage: str = "train",
    dirty: bool = False,
    environment: Mapping[str, str] | None = None,
    again: bool = False,
    say: Say = print,
) -> Order:
    """Bring all to S3 that a machine needs to compute a stage, and order it. What is there already is not sent again.

    Args:
        project: the root of the git worktree, where `dvc repro` has made what the stage reads.
        mailbox: of the run.
        stage: of dvc.yaml.
        dirty: also ship changes in files that are none of the recipe's records (RECORDS).
        environment: facts for the process that computes; no secrets.
        again: the run was ordered before: send all anew, for what is in S3 may be damaged, or about to be removed.
        say: receives lines of progress.

    Raises:
        InputError: the worktree is not in a state to be shipped; DVC's default remote is not at S3; S3 refuses.
    """
    project = project.resolve()
    if secrets := sorted(name for name in environment or {} if SECRET.search(name.upper())):
        raise InputError(f"environment: {', '.join(secrets)}: a machine has rights of its own; leave secrets out")
    remote = remote_of(project)
    if git(project, "rev-parse", "--is-shallow-repository").strip() == "true":
        raise InputError(f"{project}: a shallow clone cannot be shipped; run `git fetch --unshallow`")
    commit = git(project, "rev-parse", "--verify", "HEAD^{commit}").strip()
    needs = needs_of(project, stage)
    tree = _tree(project, needs, dirty)
    if needs.tracked:
        say(f"{', '.join(needs.tracked)}: to DVC's remote")
        _dvc(project, "push", *needs.tracked)
    with TemporaryDirectory() as scratch:
        bundle, patch = Path(scratch, "code.bundle"), Path(scratch, "changes.patch")
        git(project, "bundle", "create", "--quiet", str(bundle), "HEAD")
        changes = _git(project, "diff-tree", "-p", "--binary", "--full-index", "--no-renames", commit, tree)
        patch.write_bytes(changes)
        say(f"commit {commit[:12]}: {_size(bundle.stat().st_size)}, and changes of {_size(len(changes))}")
        order = Order(
            run=mailbox.run,
            stage=stage,
            commit=commit,
            bundle=mailbox.put_file(bundle.name, bundle),
            patch=mailbox.put_file(patch.name, patch) if changes else "",
            inputs=needs.inputs,
            tracked=needs.tracked,
            remote=asdict(remote),
            key=key_of(tree, needs.inputs),
            environment=dict(environment or {}),
        )
    for path, md5 in needs.inputs.items():
        _send(project / path, path, mailbox, mailbox.shared(f"inputs/{md5}/"), 0 if again else FRESH, say)
    mailbox.write_order(order, again=again)
    return order


def fetch_inputs(
    project: Path, mailbox: Mailbox, order: Order, say: Say, check: Callable[[], object] = lambda: None
) -> None:
    """Bring an order's inputs to where the stage reads them.

    Args:
        project: the root of the checkout.
        mailbox: of the run.
        order: from it.
        say: receives lines of progress.
        check: called again and again; what it raises ends this.

    Raises:
        InputError: one is missing in S3, or S3 refuses.
    """
    for path, md5 in order.inputs.items():
        target, root = project / safe_name(path, mailbox.address("order.json")), mailbox.shared(f"inputs/{md5}/")
        sizes = mailbox.sizes(root)
        if not sizes:
            raise InputError(f"s3://{mailbox.bucket}/{root}: {path} is not there (any more); launch the run again")
        below = target if md5.endswith(".dir") else target.parent
        files = {root + name: below / safe_name(name, root) for name in sizes}
        _move(mailbox, path, files, False, sum(sizes.values()), say, check)


def receive(project: Path, mailbox: Mailbox, say: Say = print) -> None:
    """Take over what a machine has computed, as if it had been computed here.

    dvc.lock receives the stage's entry, its outputs come from DVC's remote into the cache and the worktree, and those
    that DVC keeps in git, such as curves, beside them. Afterwards `dvc repro` finds nothing to do for the stage. If it
    would, for the worktree has changed meanwhile, all is left as it was before. TensorBoard's files come to runs/.

    Raises:
        InputError: there is no result; it is not what was announced; or it does not belong to what is here.
    """
    project = project.resolve()
    order, result = mailbox.read_order(), mailbox.read_result()
    if result is None:
        raise InputError(f"{mailbox.address('result.json')}: there is no result of the run {mailbox.run} (yet)")
    loose = needs_of(project, order.stage, current=False).loose
    if strange := sorted(result.files.keys() - {LOCK, *loose}):
        raise InputError(f"{mailbox.address('result.json')}: refused: {strange[0]!r} is no output of {order.stage}")
    if LOCK not in result.files:
        raise InputError(f"{mailbox.address('result.json')}: refused: {LOCK} is missing")
    with TemporaryDirectory() as scratch, _undone(project, result.files):
        for name, sha256 in result.files.items():
            came = Path(scratch, name)
            came.parent.mkdir(parents=True, exist_ok=True)
            mailbox.get_file(f"result/{name}", came, sha256)
            if name != LOCK:
                (project / name).parent.mkdir(parents=True, exist_ok=True)
                (project / name).write_bytes(came.read_bytes())
        _copy_entry(Path(scratch, LOCK), project / LOCK, order.stage)
        if changed := _changes(project, order.stage, ("changed deps", "changed command")):
            raise InputError(
                f"the result of the run {mailbox.run} does not belong to what is here ({changed}); "
                f"check out commit {order.commit[:12]}, with params.yaml as it was"
            )
        say(f"{order.stage}: its outputs from DVC's remote")
        _dvc(project, "pull", "--force", order.stage)
        if changed := _changes(project, order.stage):
            raise InputError(f"the result of the run {mailbox.run} is not whole: {changed}; launch the run again")
    Checkpoints(mailbox, order.key, project / "runs").fetch(checkpoints=False)


def remote_of(project: Path) -> Remote:
    """DVC's default remote.

    Raises:
        InputError: it is not at S3, where a machine could reach it.
    """
    from dvc.config import Config, ConfigError  # takes half a second

    try:
        config = Config(str(project / ".dvc"))
    except ConfigError as error:
        raise InputError(f"{project / '.dvc'}: {error}") from None
    section = config["remote"].get(config["core"].get("remote"), {})
    url = str(section.get("url", ""))
    if not url.startswith(SCHEME):
        raise InputError(
            f"DVC's default remote is {url or 'not set'}, which a machine on EC2 cannot reach; run "
            "`dvc remote add --local --default s3 s3://BUCKET/dvc` (BUCKET: as `loupe ec2 doctor` shows it)"
        )
    return Remote(url, str(section.get("endpointurl") or ""))


def check_remote(project: Path) -> None:
    """Write the empty file, at its place, to DVC's default remote: where that can be written, results can.

    Raises:
        UnreachableError: the remote does not answer.
        InputError: it refuses.
    """
    with _opened(project) as repo:
        place = repo.cloud.get_remote_odb()
        try:
            place.add_bytes(hashlib.md5(b"", usedforsecurity=False).hexdigest(), b"")
        except (PermissionError, FileNotFoundError) as error:
            raise InputError(f"DVC's remote s3://{place.path} cannot be written to: {error}") from None
        except Exception as error:  # of any of the libraries below DVC
            raise aws.UnreachableError(f"DVC's remote s3://{place.path}: {error}") from None


def needs_of(project: Path, stage: str, *, current: bool = True) -> Needs:
    """What a stage reads and writes.

    Args:
        project: the root of the checkout.
        stage: of dvc.yaml.
        current: demand that the stages before it have nothing to do, so that what is here is what dvc.lock names.

    Raises:
        InputError: they have; there is no such stage; or DVC cannot read the project.
    """
    from dvc.dependency.param import ParamsDependency

    held = set(_git(project, "ls-files", "-z").decode(errors="surrogateescape").split("\0"))
    with _opened(project) as repo:
        this = _stage(repo, stage)
        graph, found = repo.index.graph, [this]
        before: set[Any] = set()
        while found:
            new = set(graph.successors(found.pop())) - before
            before |= new
            found += new
        for one in sorted(before, key=str) if current else ():
            if one.status():
                makers = " ".join(_makers(repo, this))
                raise InputError(
                    f"{one.name if one.cmd else one.path_in_repo}: not up to date, and {stage} depends on it; "
                    f"run `dvc repro {makers or stage}` first"
                )
        inputs, code = {}, []
        for dep in this.deps:
            if isinstance(dep, ParamsDependency):
                continue
            path = Path(dep.fs_path).relative_to(project).as_posix()
            if path in held or any(name.startswith(f"{path}/") for name in held):
                files = repo.dvcignore.find(dep.fs, dep.fs_path) if dep.fs.isdir(dep.fs_path) else [dep.fs_path]
                code += [Path(name).relative_to(project).as_posix() for name in files]
            else:
                if not dep.exists:
                    raise InputError(f"{path} is missing, which {stage} reads; run `dvc repro {stage}` or `dvc pull`")
                inputs[path] = str(dep.get_hash().value)
        read = {one.path_in_repo for one in before}
        tracked = {one.path_in_repo for one in repo.index.stages if one.path_in_repo.endswith(".dvc")} - read
        loose = [Path(out.fs_path).relative_to(project).as_posix() for out in this.outs if not out.use_cache]
    return Needs(inputs, tuple(code), tuple(sorted(tracked)), tuple(loose))


def stages_before(project: Path, stage: str) -> list[str]:
    """The stages that make what a stage reads.

    Raises:
        InputError: there is no such stage, or DVC cannot read the project.
    """
    with _opened(project) as repo:
        return _makers(repo, _stage(repo, stage))


def is_up_to_date(project: Path, stage: str) -> bool:
    """Whether DVC would not run a stage.

    Raises:
        InputError: there is no such stage, or DVC cannot read the project.
    """
    return not _changes(project, stage)


def content_key(project: Path, stage: str, *, dirty: bool = False) -> str:
    """The key that `ship` would give an order; see `key_of`.

    Raises:
        InputError: the worktree is not in a state to be shipped.
    """
    project = project.resolve()
    needs = needs_of(project, stage)
    return key_of(_tree(project, needs, dirty), needs.inputs)


def key_of(tree: str, inputs: Mapping[str, str]) -> str:
    """A hash of all that a stage's outcome depends on.

    Args:
        tree: git's id of the files that it holds, as they are in the worktree.
        inputs: the others that the stage reads, and their MD5.
    """
    return hashlib.sha256(json.dumps([tree, dict(sorted(inputs.items()))]).encode()).hexdigest()


def git(folder: Path, *arguments: str, index: Path | None = None) -> str:
    """Run git in a folder, with an index of its own if one is given; what it wrote to stdout.

    Raises:
        InputError: it failed.
    """
    return _git(folder, *arguments, index=index).decode(errors="surrogateescape")


def _tree(project: Path, needs: Needs, dirty: bool) -> str:
    """Git's id of the worktree as a machine is to have it; the index and the worktree stay as they are."""
    with TemporaryDirectory() as scratch:
        index = Path(scratch, "index")
        index.write_bytes(Path(project, git(project, "rev-parse", "--git-path", "index").strip()).read_bytes())
        git(project, "add", "--update", "--", ":/", index=index)
        listed = _git(project, "ls-files", "-z", "--others", "--exclude-standard").decode(errors="surrogateescape")
        _add(project, [name for name in listed.split("\0") if _is_record(name)], index)
        held = set(_git(project, "ls-files", "-z", index=index).decode(errors="surrogateescape").split("\0"))
        unknown = [name for name in needs.code if name not in held]
        if unknown and not dirty:
            raise InputError(f"{_some(unknown)}: git does not know what the stage reads; `git add` and commit")
        _add(project, unknown, index)
        tree = git(project, "write-tree", index=index).strip()
    names = _git(project, "diff-tree", "-r", "-z", "--name-only", "--no-renames", "HEAD", tree)
    changed = [name for name in names.decode(errors="surrogateescape").split("\0") if name and not _is_record(name)]
    if changed and not dirty:
        raise InputError(f"{_some(changed)}: changed, and not committed; commit, or ask for changes to be shipped, too")
    return tree


def _add(project: Path, names: Sequence[str], index: Path) -> None:
    """Let an index hold files, ignored ones too."""
    if names:
        literal = ("--literal-pathspecs", "add", "--force", "--pathspec-from-file=-", "--pathspec-file-nul")
        _git(project, *literal, stdin="\0".join(names).encode(errors="surrogateescape"), index=index)


def _is_record(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in RECORDS)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown


def _send(path: Path, name: str, mailbox: Mailbox, root: str, days: float, say: Say) -> None:
    """Upload a file, or all of a folder, below a key, unless it is there with the same size since `days` at most."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    there = mailbox.sizes(root, days) if days else {}
    start = path.parent if path.is_file() else path
    sizes = {file.relative_to(start).as_posix(): file.stat().st_size for file in files}
    lacking = {root + file: start / file for file, size in sizes.items() if there.get(file) != size}
    if lacking:
        _move(mailbox, name, lacking, True, sum(path.stat().st_size for path in lacking.values()), say, lambda: None)
    else:
        say(f"{name}: is in S3 already ({_size(sum(sizes.values()))})")


def _move(
    mailbox: Mailbox,
    name: str,
    files: Mapping[str, Path],
    up: bool,
    total: int,
    say: Say,
    check: Callable[[], object],
) -> None:
    """Upload or download files, several at once and large ones in parts.

    Args:
        mailbox: whose bucket is meant.
        name: of them all, for lines of progress.
        files: by key.
        up: whether they are uploaded.
        total: bytes.
        say: receives a line every EVERY seconds.
        check: called several times a second; what it raises ends this.
    """
    from boto3.s3.transfer import ProgressCallbackInvoker, TransferConfig, create_transfer_manager

    moved, lock = 0, threading.Lock()

    def count(size: int) -> None:
        nonlocal moved
        with lock:
            moved += size

    began = said = time.monotonic()
    heard = [ProgressCallbackInvoker(count)]
    classic = TransferConfig(preferred_transfer_client="classic")
    # what ends the block by an exception also cancels what is under way
    with aws.told(f"s3://{mailbox.bucket}: {name}"), create_transfer_manager(mailbox.client, classic) as manager:
        for path in files.values() if not up else ():
            path.parent.mkdir(parents=True, exist_ok=True)
        waiting = [
            manager.upload(str(path), mailbox.bucket, key, subscribers=heard)
            if up
            else manager.download(mailbox.bucket, key, str(path), subscribers=heard)
            for key, path in files.items()
        ]
        while waiting:
            check()
            for one in waiting:
                if one.done():
                    one.result()
            waiting = [one for one in waiting if not one.done()]
            if time.monotonic() - said >= EVERY:
                said = time.monotonic()
                say(f"{name}: {_size(moved)} of {_size(total)}, {_size(moved / (said - began))}/s")
            time.sleep(LOOK)
    seconds = time.monotonic() - began
    say(f"{name}: {_size(total)} {'to' if up else 'from'} S3 in {seconds:.0f} s ({_size(total / seconds)}/s)")


def _copy_entry(theirs: Path, ours: Path, stage: str) -> None:
    """Copy a stage's entry from one dvc.lock into another, as DVC writes it."""
    from dvc.utils.serialize import load_yaml, modify_yaml

    with _told(), modify_yaml(str(ours)) as data:
        entry = load_yaml(str(theirs)).get("stages", {}).get(stage)
        if not entry:
            raise InputError(f"the result's {LOCK} has no entry of {stage}")
        data.setdefault("schema", "2.0")
        data.setdefault("stages", {})[stage] = entry


def _changes(project: Path, stage: str, kinds: Sequence[str] = ()) -> str:
    """Why DVC would run a stage, in a few words; of some kinds of reasons only, if they are given."""
    with _opened(project) as repo:
        status = _stage(repo, stage).status()
        reasons: list[Any] = next(iter(status.values()), [])
    words = []
    for reason in reasons:
        for kind, paths in reason.items() if isinstance(reason, dict) else [(reason, {})]:
            if not kinds or kind in kinds:
                words.append(f"{kind}: {_some(sorted(paths))}" if paths else kind)
    return "; ".join(words)


@contextmanager
def _undone(project: Path, names: Iterable[str]) -> Iterator[None]:
    """If the block fails, the files are what they were before."""
    paths = [project / name for name in names]
    before = {path: path.read_bytes() if path.exists() else None for path in paths}
    try:
        yield
    except BaseException:
        for path, data in before.items():
            if data is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(data)
        raise


@contextmanager
def _opened(project: Path) -> Iterator[Any]:
    """The project as DVC sees it."""
    from dvc.repo import Repo, lock_repo  # takes a second

    with _told(), Repo(str(project)) as repo, lock_repo(repo):
        yield repo


def _stage(repo: Any, name: str) -> Any:
    """A stage of the project's dvc.yaml. What Repo offers for that depends on this process's working directory."""
    for stage in repo.index.stages:
        if stage.path_in_repo == "dvc.yaml" and stage.name == name:
            return stage
    raise InputError(f"dvc.yaml: there is no stage {name}")


def _makers(repo: Any, stage: Any) -> list[str]:
    return sorted(maker.name for maker in repo.index.graph.successors(stage) if maker.cmd)


@contextmanager
def _told() -> Iterator[None]:
    """Within the block errors of DVC become sentences."""
    from dvc.exceptions import DvcException

    try:
        yield
    except DvcException as error:
        raise InputError(f"DVC: {error}") from None


def _dvc(project: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        last = "\n  ".join(done.stderr.strip().splitlines()[-SHOWN:])
        raise InputError(f"`dvc {' '.join(arguments)}` ended with code {done.returncode}:\n  {last}")


def _git(folder: Path, *arguments: str, stdin: bytes | None = None, index: Path | None = None) -> bytes:
    env = environment_of_git()
    if index:
        env["GIT_INDEX_FILE"] = str(index)
    command = ["git", *arguments]
    try:
        done = subprocess.run(command, cwd=folder, env=env, input=stdin, capture_output=True, check=False)
    except FileNotFoundError:
        raise InputError("git is not installed") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise InputError(f"{folder}: git {arguments[0]}: {said or 'failed'}")
    return done.stdout


def _size(count: float) -> str:
    """Bytes for people."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
