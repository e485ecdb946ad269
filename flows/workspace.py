"""A run's own checkout: the git worktree `.cache/flows/worktrees/RUN` on the branch `retrain/RUN`. No Prefect in here.

    project/                           what people work in: no run touches its files, its index, or what is checked out
      .cache/flows/worktrees/RUN/      the files of the run
        .dvc/config.local              the project's, and cache.dir = the project's DVC cache: nothing is stored twice
        runs -> project/runs           checkpoints, found by what is trained, so that the next run goes on with them
      .cache/flows/owners/RUN.json     who uses it, for flows/reap.py
      .git                             shared: branches and tags of a run are there at once

What DVC locks, and what it remembers of files, lies in the worktree (`.dvc/tmp`), so runs do not wait for each other.
Into the shared cache DVC writes every file under another name first, and renames it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from flows import child
from flows.child import ChildError
from flows.settings import FOLDER
from loupe import git
from loupe.cloud.records import RUN_NAME
from loupe.errors import InputError
from loupe.named import STORE
from loupe.release.tags import ARTIFACT, Tags

REMOTE = "origin"
NEW = ("dvc.lock", "metrics", "params.yaml", ".dvc/remote")  # what a commit takes of untracked files
TAGS = tuple(f"refs/tags/{ARTIFACT}{mark}*" for mark in "@#")  # the model's versions, and the moves of its aliases
GIT = {
    "core.hooksPath": "/dev/null",  # the user's hooks: DVC's check out data, others ask questions
    "gc.auto": "0",  # it goes on in the background
    "maintenance.auto": "false",
}
REFUSED, NONE_FOUND, FATAL = 1, 2, 128  # exit codes of `git push`, of `git ls-remote --exit-code`, of all
DVC_FAILED = (1, 255)  # exit codes of `dvc pull` and `dvc push`; others are of wrong use and wrong configuration
LASTING = re.compile(r"missing-files|NoSuchKey|No space left")  # what DVC says where another try would go no better
LOCKED = re.compile(r"\.lock': File exists|cannot lock ref|could not lock")
TRIES, WAIT = 6, 0.1  # another git holds its locks for milliseconds; seconds between tries, doubled each time

LITTLE = 1 << 20  # bytes; with less a disk is full

Say = Callable[[str], object]


class UnreachableError(InputError):
    """A remote of git or DVC did not answer, or would not talk to us: another try may go well."""


@dataclass(frozen=True)
class Owner:
    """Who uses a worktree.

    flow_run: the id of a Prefect flow run, empty if none does. process, started: the process that opened it last, and
    when that began, in seconds since 1970.
    """

    flow_run: str
    process: int
    started: float

    @property
    def is_alive(self) -> bool:
        """Whether that process is still running on this machine."""
        try:
            return bool(psutil.Process(self.process).create_time() == self.started)
        except psutil.NoSuchProcess:
            return False


@dataclass(frozen=True)
class Workspace:
    """A run's checkout; from `open_workspace` or `reopen`.

    project: the folder that people work in. folder: the worktree. run: the run's name. branch: its branch. say:
    receives the lines that commands print. facts: environment variables of commands, beside those of `environment`.
    """

    project: Path
    folder: Path
    run: str
    branch: str
    say: Say
    facts: Mapping[str, str] = field(default_factory=dict)

    def told(self, listen: Say) -> Workspace:
        """The same, but `listen` hears the lines of commands, too."""

        def both(line: str) -> None:
            self.say(line)
            listen(line)

        return replace(self, say=both)

    def python(self, *arguments: str, ok: Collection[int] = (0,), echo: bool = True) -> str:
        """Run `python -m ARGUMENTS` in the worktree, with the code that is there; its stdout. See `child.run`."""
        command = [sys.executable, "-m", *arguments]
        return child.run(command, cwd=self.folder, env=self.environment(), say=self.say, ok=ok, echo=echo)

    def loupe(self, *arguments: str, ok: Collection[int] = (0,)) -> str:
        """Run `loupe ARGUMENTS` in the worktree; its stdout. With ok=(0, 1) some of its inputs may fail."""
        return self.python("loupe.cli", *arguments, ok=ok)

    def json(self, *arguments: str, ok: Collection[int] = (0,)) -> dict[str, Any]:
        """Run `loupe ARGUMENTS --json`; what it found.

        Raises:
            ChildError: it failed, or ended with a code of `ok`, but printed nothing that can be read.
        """
        printed = self.python("loupe.cli", *arguments, "--json", ok=ok, echo=False)
        try:
            return dict(json.loads(printed))
        except ValueError:
            raise ChildError(["loupe", *arguments], 1, printed.splitlines()[-5:]) from None

    def dvc(self, *arguments: str, ok: Collection[int] = (0,)) -> str:
        """Run `dvc ARGUMENTS` in the worktree; its stdout."""
        return self.python("dvc", *arguments, ok=ok)

    def git(self, *arguments: str, ok: Collection[int] = (0,)) -> str:
        """Run `git ARGUMENTS` in the worktree, in English and without hooks; its stdout, which is not said."""
        return _git(self.folder, *arguments, env=self.environment(), say=self.say, ok=ok)

    def environment(self) -> dict[str, str]:
        """The environment of all commands in the worktree: they use its code, and know whose they are."""
        env = _environment()
        return env | {
            "PATH": _joined(Path(sys.executable).parent, env.get("PATH")),
            "PYTHONPATH": _joined(self.folder / "src", env.get("PYTHONPATH")),
            "PYTHONUNBUFFERED": "1",  # a line is shown when it is printed
            "LOUPE_RUN_ID": self.run,
            "LOUPE_PROJECT": str(self.project),
            "LOUPE_STORE": self.store,
            "LOUPE_CACHE": str(self.project / (env.get("LOUPE_CACHE") or ".cache")),  # downloads, pulled models
            "DVC_SITE_CACHE_DIR": str(self.folder / ".dvc/tmp/site"),  # goes when the worktree goes
            "DVC_NO_ANALYTICS": "1",
            "DO_NOT_TRACK": "1",
            "GIT_CEILING_DIRECTORIES": str(self.folder.parent),  # in a broken worktree git must not find the project
            **self.facts,
        }

    @property
    def store(self) -> str:
        """The release store's address."""
        return store_address(self.project)

    def products_at(self, commit: str) -> frozenset[str]:
        """The names of the product images that a commit had, as `loupe facts data/products` gives them."""
        where = (".", "data/products", "--rev", commit, "--recursive", "--dvc-only")
        listed = self.python("dvc", "list", *where, "--json", echo=False)
        return frozenset(entry["path"] for entry in json.loads(listed))

    def fetch(self) -> None:
        """Bring what the commit's .dvc files name from the DVC remote: product images, and the champion's weights.

        Raises:
            UnreachableError: the remote did not answer.
            ChildError: it lacks them, or is configured wrongly; or the disk is full.
        """
        self._transfer("pull", *self._pointers())

    def fetch_or_remove(self) -> None:
        """`fetch`; where that fails nothing is left of the worktree, for nobody has it yet who could remove it."""
        try:
            self.fetch()
        except BaseException:
            self.remove()
            raise

    def push_data(self, *, computed: bool = True) -> None:
        """Send to the DVC remote what it lacks; to be called before `commit`.

        That is what .dvc files name, and, if it is `computed`, all that the recipe made here, and DVC's memory of runs.
        A remote inside the repository, as the bundled one, stays small: it receives what .dvc files name alone, and
        `commit` takes its new files.

        Raises:
            UnreachableError: the remote did not answer, or refused.
            ChildError: it is configured wrongly, or the disk is full.
        """
        self._transfer("push", *(self._pointers() if not computed or self._remote_is_inside() else ("--run-cache",)))

    def commit(self, message: str, *, empty: bool = False) -> str:
        """Commit what has changed in tracked files, and new files of the recipe's records (NEW).

        Where git does not know who commits, it is `loupe <loupe@localhost>`.

        Returns:
            The commit's id; that of the last one if nothing has changed.
        """
        self.git("add", "--update")
        self.git("add", "--", *self._pointers(), *(name for name in NEW if (self.folder / name).exists()))
        if empty or self.git("diff", "--cached", "--name-only"):
            allowed = ("--allow-empty",) if empty else ()
            self.git(*self._identity(), "commit", "--quiet", "--no-gpg-sign", *allowed, f"--message={message}")
        return _commit(self.folder, "HEAD")

    def push_branch(self) -> bool:
        """Push the run's branch to `origin`; False if the repository has none.

        Raises:
            UnreachableError: origin did not answer.
            InputError: origin refused.
        """
        if not _has_origin(self.project):
            return False
        ref = f"refs/heads/{self.branch}"
        if refused := self._push(f"{ref}:{ref}"):
            raise InputError(f"{REMOTE} refused {self.branch}: {refused[ref]}; rename or delete that branch there")
        return True

    def land(self, branch: str = "main") -> str:
        """Move a branch forward to the run's commit, and publish the model's tags.

        With a git remote `origin` the branch there is moved. Without, it is the one here, unless somebody has it
        checked out: files must not change under their hands.

        Returns:
            Nothing if all is done; else a sentence that says what was not, and what to do.

        Raises:
            UnreachableError: origin did not answer.
            InputError: there is no such branch here, and no origin.
        """
        _check_branch(branch)
        return self._land_at_origin(branch) if _has_origin(self.project) else self._land_here(branch)

    def remove(self) -> None:
        """Remove the worktree. The branch stays, and so do checkpoints and what is in DVC's cache."""
        _remove_worktree(self)
        owner_file(self.project, self.run).unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the worktree and the branch; for a run that has made nothing worth keeping."""
        self.remove()
        _git(self.project, "branch", "--quiet", "-D", self.branch)

    def _land_at_origin(self, branch: str) -> str:
        commit, ref = _commit(self.folder, "HEAD"), f"refs/heads/{branch}"
        refused = self._push(f"{commit}:{ref}", *(f"{tags}:{tags}" for tags in TAGS))
        if ref in refused:
            return (
                f"{REMOTE} did not move {branch} to commit {commit[:12]}: {refused[ref]}; merge {self.branch} into it "
                "there, for example by a pull request"
            )
        if refused:
            reasons = ", ".join(f"{tag.removeprefix('refs/tags/')}: {reason}" for tag, reason in refused.items())
            return f"{REMOTE} refused tags ({reasons}); do they name other commits there?"
        return ""

    def _land_here(self, branch: str) -> str:
        commit, old = _commit(self.folder, "HEAD"), _tip(self.project, branch)
        if old == commit:
            return ""
        if not _is_ancestor(self.project, old, commit):
            return (
                f"{branch} has gone on since this run began, and was not moved to commit {commit[:12]}; "
                f"`git merge {self.branch}` on {branch} joins them"
            )
        forward = f"`git merge --ff-only {self.branch}`"
        ref = f"refs/heads/{branch}"
        if place := _git(self.project, "for-each-ref", "--format=%(worktreepath)", ref).strip():
            return f"{branch} is checked out in {place}, and was not moved to commit {commit[:12]}; there: {forward}"
        try:
            _git(self.project, "update-ref", "-m", f"loupe: {self.branch}", ref, commit, old)
        except ChildError as error:
            if error.code != FATAL:
                raise
            return f"{branch} was moved by somebody else in this moment; on it: {forward}"
        return ""

    def _transfer(self, *arguments: str) -> None:
        try:
            self.dvc(*arguments)
        except ChildError as error:
            if error.code not in DVC_FAILED or LASTING.search("\n".join(error.tail)):
                raise
            raise UnreachableError(f"the DVC remote cannot be reached: {error}") from None

    def _push(self, *refs: str) -> dict[str, str]:
        """Push to origin; the refs that it refused, and why."""
        try:
            out = self.git("push", "--porcelain", "--no-signed", REMOTE, *refs, ok=(0, REFUSED))
        except ChildError as error:
            raise _unreachable(error) from None
        lines = [line.split("\t") for line in out.splitlines()]
        refused = {line[1].split(":")[-1]: line[2] for line in lines if len(line) == 3 and line[0] == "!"}
        if not refused and ["Done"] not in lines:
            raise UnreachableError(f"{REMOTE}: the push ended in the middle: {out.strip() or 'no answer'}")
        return refused

    def _remote_is_inside(self) -> bool:
        """Whether DVC's default remote is a folder of the worktree."""
        from dvc.config import Config

        config = Config(str(self.folder / ".dvc"))
        url = config["remote"].get(config["core"].get("remote"), {}).get("url", "")
        return Path(url).is_absolute() and Path(url).resolve().is_relative_to(self.folder)

    def _pointers(self) -> tuple[str, ...]:
        """The .dvc files: data.dvc, and champion.dvc where a run began with one."""
        return tuple(sorted(path.name for path in self.folder.glob("[!.]*.dvc")))

    def _identity(self) -> tuple[str, ...]:
        """Options that say who commits, if git does not know."""
        try:
            for role in ("GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT"):
                _git(self.folder, "-c", "user.useConfigOnly=true", "var", role, env=self.environment())
        except ChildError:
            return ("-c", "user.name=loupe", "-c", "user.email=loupe@localhost")
        return ()


def open_workspace(project: Path, run: str, say: Say, branch: str = "main", *, owner: str = "") -> Workspace:
    """Make the branch and the worktree of a new run. If that fails nothing of them is left.

    It starts from the newest of a branch and the model in production: at `origin`, if the repository has this remote.

    Args:
        project: the root of the repository that people work in.
        run: the run's name: letters, digits, `.`, `_`, `-`.
        say: receives lines for people.
        branch: what to start from.
        owner: the id of the Prefect flow run that uses it.

    Raises:
        UnreachableError: origin did not answer.
        InputError: the name, the project or the branch is wrong; the run is there already; the branch and the
            production model have diverged; DVC's cache is missing; the disk is full.
    """
    workspace = locate(project, run, say)
    _check_branch(branch)
    if _has_branch(workspace):
        raise InputError(f"the branch {workspace.branch} is there already; name the run otherwise, or reopen it")
    start = _start(workspace, branch)
    _git(workspace.project, "branch", "--no-track", workspace.branch, start)  # fails for all but one who try at once
    try:
        _set_up(workspace, owner)
    except BaseException:
        workspace.remove()
        _git(workspace.project, "branch", "--quiet", "-D", workspace.branch)
        raise
    return workspace


def reopen(project: Path, run: str, say: Say, *, owner: str = "") -> Workspace:
    """The workspace of a run that was opened before, as it was left; made anew on its branch if it was removed.

    Args:
        project: the root of the repository that people work in.
        run: the run's name.
        say: receives lines for people.
        owner: the id of the Prefect flow run that uses it from now on.

    Raises:
        UnreachableError: the branch is not here, and origin did not answer.
        InputError: there is no such run; another flow run works on it; or see `open_workspace`.
    """
    workspace = locate(project, run, say)
    user = read_owner(workspace.project, run)
    if user and user.is_alive and user.process != os.getpid() and user.flow_run != owner:
        whose = f"flow run {user.flow_run}" if user.flow_run else f"process {user.process}"
        raise InputError(f"{run}: {whose} is at work on it; wait until that has ended, or cancel it")
    ref = f"refs/heads/{workspace.branch}"
    if not _has_branch(workspace):
        if not _has_origin(workspace.project):
            raise InputError(f"there is no branch {workspace.branch}: was the run opened in another clone?")
        _fetch(workspace.project, ref, ref)  # of a run on another machine
    if _is_whole(workspace):
        _claim(workspace, owner)
        (_git_folder(workspace) / "index.lock").unlink(missing_ok=True)  # left by a git that was killed
        _furnish(workspace)
        return workspace
    _remove_worktree(workspace)
    try:
        _set_up(workspace, owner)
    except BaseException:
        workspace.remove()
        raise
    return workspace


def locate(project: Path, run: str, say: Say) -> Workspace:
    """The workspace of a run, be it there or not.

    Raises:
        InputError: the name cannot be a run's, or the project is no repository of git and DVC.
    """
    if not RUN_NAME.fullmatch(run):
        raise InputError(f"{run!r} cannot name a run: use letters, digits, `.`, `_`, `-`; begin with none of the last")
    project = project.resolve()
    if not (project / ".dvc").is_dir() or not (project / ".git").exists():
        raise InputError(f"{project}: no root of a git repository with DVC; `loupe flows` runs in the project's root")
    folder = (project / FOLDER / "worktrees").resolve()  # `.cache` may be a link to a larger disk
    return Workspace(project, folder / run, run, f"retrain/{run}", say)


def store_address(project: Path) -> str:
    """LOUPE_STORE, or `releases` of the project; a folder's path is absolute, so that it means the same everywhere."""
    given = os.environ.get("LOUPE_STORE") or STORE
    return given if "://" in given else str((project / given).resolve())


def push_tags(project: Path, say: Say) -> None:
    """Publish the model's tags, where there is an origin.

    Raises:
        UnreachableError: it did not answer.
        ChildError: it refused.
    """
    if not _has_origin(project):
        return
    try:
        _git(project, "push", "--quiet", "--no-signed", REMOTE, *(f"{tags}:{tags}" for tags in TAGS), say=say)
    except ChildError as error:
        raise _unreachable(error) from None


def is_open(project: Path, run: str) -> bool:
    """Whether a run was opened before in this repository."""
    return _has_branch(locate(project, run, print))


def owner_file(project: Path, run: str) -> Path:
    """Where it is recorded who uses a run's worktree."""
    return project / FOLDER / "owners" / f"{run}.json"


def read_owner(project: Path, run: str) -> Owner | None:
    """Who uses a run's worktree; None if that is not recorded."""
    try:
        return Owner(**json.loads(owner_file(project, run).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _start(workspace: Workspace, branch: str) -> str:
    """The commit that a new run starts from."""
    project = workspace.project
    if _has_origin(project):
        tracking = f"refs/remotes/{REMOTE}/{branch}"
        others = f"+refs/heads/retrain/*:refs/remotes/{REMOTE}/retrain/*"  # what other workers have judged
        _fetch(project, f"refs/heads/{branch}", tracking, others)
        tip = _commit(project, tracking)
    else:
        tip = _tip(project, branch)
    moves = Tags(project).moves("production")
    champion = moves[max(moves)] if moves else tip
    if _is_ancestor(project, champion, tip):
        workspace.say(f"starting from {branch}, commit {tip[:12]}")
        return tip
    if _is_ancestor(project, tip, champion):
        workspace.say(f"starting from the production model's commit {champion[:12]}, which {branch} does not hold yet")
        return champion
    raise InputError(
        f"{branch} does not hold the production model's commit {champion[:12]}, and has gone on without it; "
        f"`git merge {champion[:12]}` on {branch}, then run again"
    )


def _set_up(workspace: Workspace, owner: str) -> None:
    """Make the worktree on its branch, and all that git does not hold."""
    try:
        _claim(workspace, owner)
        workspace.folder.parent.mkdir(parents=True, exist_ok=True)
        _git(workspace.project, "worktree", "add", "--quiet", str(workspace.folder), workspace.branch)
        _furnish(workspace)
    except (ChildError, OSError) as error:
        place = next(parent for parent in workspace.folder.parents if parent.exists())
        if shutil.disk_usage(place).free < LITTLE:  # git does not say it
            raise InputError(f"{place}: the disk is full; make room, then run again") from None
        raise InputError(f"{workspace.folder}: the worktree could not be made: {error}") from None


def _claim(workspace: Workspace, owner: str) -> None:
    """Record who uses the worktree."""
    process = psutil.Process()
    file = owner_file(workspace.project, workspace.run)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(asdict(Owner(owner, process.pid, process.create_time()))))
    part.replace(file)


def _furnish(workspace: Workspace) -> None:
    """Give the worktree the project's DVC configuration and cache, and its folder of checkpoints."""
    from dvc.config import Config, ConfigError, merge  # takes half a second

    project, folder = workspace.project, workspace.folder
    try:
        theirs = Config(str(project / ".dvc"))
        cache = Path(theirs["cache"].get("dir") or project / ".dvc/cache")
        if "dir" not in theirs["cache"]:
            cache.mkdir(exist_ok=True)  # a fresh clone has none yet
        if not os.access(cache, os.W_OK):
            raise InputError(
                f"{cache}: DVC's cache is not there, or cannot be written to; is its disk mounted? `dvc cache dir` "
                "says where it is"
            )
        (folder / ".dvc/config.local").touch(mode=0o600)  # it may hold passwords
        with Config(str(folder / ".dvc")).edit("local") as ours:
            merge(ours, theirs.load_one("local"))  # paths in it are relative to the file; DVC writes them anew
            ours["cache"]["dir"] = str(cache)
    except ConfigError as error:
        raise InputError(f"{project / '.dvc'}: {error}") from None
    if not os.path.lexists(folder / "runs"):
        (project / "runs").mkdir(exist_ok=True)
        (folder / "runs").symlink_to(project / "runs")


def _is_whole(workspace: Workspace) -> bool:
    """Whether the worktree is there and on its branch, and not half made by something that was killed."""
    if not (workspace.folder / ".git").is_file():
        return False
    try:
        head = workspace.git("symbolic-ref", "HEAD").strip()
    except ChildError:
        return False
    return head == f"refs/heads/{workspace.branch}" and not (_git_folder(workspace) / "locked").exists()


def _remove_worktree(workspace: Workspace) -> None:
    """Remove the folder, and what git knows of it; `git worktree prune` would forget worktrees of others as well."""
    if workspace.folder.is_dir() and not workspace.folder.is_symlink():
        shutil.rmtree(workspace.folder)  # follows no links: what `runs` points to stays
    else:
        workspace.folder.unlink(missing_ok=True)
    command = ("worktree", "remove", "--force", "--force", str(workspace.folder))
    _git(workspace.project, *command, ok=(0, FATAL))  # FATAL: it knows nothing of it


def _git_folder(workspace: Workspace) -> Path:
    return Path(workspace.git("rev-parse", "--absolute-git-dir").strip())


def _fetch(project: Path, theirs: str, ours: str, *more: str) -> None:
    """Fetch a branch of origin, the model's tags, and whatever else `more` names as git does."""
    try:
        _git(project, "ls-remote", "--exit-code", "--quiet", REMOTE, theirs)
        refs = [f"+{theirs}:{ours}", *more, *(f"{tags}:{tags}" for tags in TAGS)]
        _git(project, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", REMOTE, *refs)
    except ChildError as error:
        if error.code == NONE_FOUND:
            raise InputError(f"{REMOTE} has no branch {theirs.removeprefix('refs/heads/')}; push it there") from None
        raise _unreachable(error) from None


def _unreachable(error: ChildError) -> InputError:
    return UnreachableError(f"{REMOTE} cannot be reached: {error}") if error.code == FATAL else error


def _tip(project: Path, branch: str) -> str:
    if not _git(project, "for-each-ref", f"refs/heads/{branch}"):
        raise InputError(f"{project}: there is no branch {branch}")
    return _commit(project, f"refs/heads/{branch}")


def _check_branch(branch: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._/-]*", branch):
        raise InputError(f"{branch!r} cannot name a branch: use letters, digits, `.`, `_`, `-`, `/`")


def _has_branch(workspace: Workspace) -> bool:
    return bool(_git(workspace.project, "for-each-ref", f"refs/heads/{workspace.branch}"))


def _has_origin(project: Path) -> bool:
    return REMOTE in _git(project, "remote").splitlines()


def _commit(folder: Path, revision: str) -> str:
    return _git(folder, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}").strip()


def _is_ancestor(project: Path, older: str, newer: str) -> bool:
    return not _git(project, "rev-list", "--max-count=1", older, f"^{newer}")


def _git(
    folder: Path,
    *arguments: str,
    env: dict[str, str] | None = None,
    say: Say = lambda line: None,
    ok: Collection[int] = (0,),
) -> str:
    """Run git in a folder, and again while another git holds a lock; its stdout."""
    env = (env or _environment()) | {"LC_ALL": "C"}  # what it says is read
    attempt = 1
    while True:
        try:
            return child.run(["git", *arguments], cwd=folder, env=env, say=say, ok=ok, echo=False)
        except ChildError as error:
            if attempt == TRIES or not LOCKED.search("\n".join(error.tail)):
                raise
        time.sleep(WAIT * 2**attempt)
        attempt += 1


def _environment() -> dict[str, str]:
    """That of this process, and git's configuration for a run, for each git that its commands start as well."""
    env = git.environment()
    for number, (key, value) in enumerate(GIT.items(), first := int(env.get("GIT_CONFIG_COUNT") or 0)):
        env |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return env | {"GIT_CONFIG_COUNT": str(first + len(GIT)), "GIT_TERMINAL_PROMPT": "0"}  # nobody would answer


def _joined(first: Path, rest: str | None) -> str:
    return os.pathsep.join(filter(None, [str(first), rest]))
