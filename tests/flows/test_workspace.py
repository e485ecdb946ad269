"""A run's own checkout, by real git and DVC: what it starts from, what it leaves, and what it never touches."""

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
from dvc.config import Config
from tests.conftest import S3
from tests.flows.conftest import Project
from tests.flows.processes import wait_for

from flows.child import ChildError
from flows.retrain import JUDGED, Case, reason_not_to_train
from flows.workspace import (
    Owner,
    UnreachableError,
    Workspace,
    open_workspace,
    owner_file,
    read_owner,
    reopen,
)
from loupe.errors import InputError
from loupe.quality.decision import Decision

ROOT = Path(__file__).parents[2]


def opened(project: Project, run: str = "r1", branch: str = "main") -> Workspace:
    return open_workspace(project.folder, run, lambda line: None, branch)


def assert_nothing_is_left(project: Project, run: str = "r1") -> None:
    assert project.git("for-each-ref", f"refs/heads/retrain/{run}") == ""
    assert f"worktrees/{run}\n" not in project.git("worktree", "list", "--porcelain") + "\n"
    assert not (project.folder / ".cache/flows/worktrees" / run).exists()
    assert not owner_file(project.folder, run).exists()


def changed(workspace: Workspace, text: str = "steps: 2\n") -> str:
    """A commit of the run."""
    (workspace.folder / "params.yaml").write_text(text)
    return workspace.commit("Retrain")


def assign(project: Project, number: int, commit: str) -> None:
    """The tag of a promotion, as the registry makes it."""
    project.git("tag", "--annotate", "--message=promoted", f"rdn-x2#production#{number}", commit)


# ------------------------------------------------------------------------------------------------- the whole journey


def test_a_whole_run_leaves_the_project_as_it_is(project: Project) -> None:
    (project.folder / "params.yaml").write_text("steps: 3 # being edited\n")
    (project.folder / "notes.txt").write_text("untracked")
    project.git("rm", "--quiet", "--cached", "train.py")
    before, start = project.state(), project.git("rev-parse", "HEAD")

    said: list[str] = []
    workspace = open_workspace(project.folder, "r1", said.append)
    assert workspace.folder == project.folder / ".cache/flows/worktrees/r1"
    assert (workspace.folder / "params.yaml").read_text() == "steps: 1\n", "what is committed, not what is edited"
    workspace.fetch()
    (workspace.folder / "data/products/two.txt").write_text("two")
    workspace.dvc("add", "data/products")
    workspace.dvc("repro")
    assert "Running stage 'train':" in said
    workspace.push_data()
    (workspace.folder / "scratch.txt").write_text("no record")
    commit = workspace.commit("Retrain with one more picture\n\n# and why")

    assert workspace.git("status", "--porcelain").split() == ["??", "scratch.txt"]
    names = workspace.git("show", "--format=", "--name-only").split()
    remote = [name for name in names if name.startswith(".dvc/remote/files/md5/")]
    assert len(remote) == 2, "one picture, and the list of all"
    assert sorted(set(names) - set(remote)) == ["data.dvc", "dvc.lock", "metrics/evaluate.json"]
    assert workspace.git("log", "-1", "--format=%an <%ae> %P\n%B").split("\n", 1) == [
        f"Pat <pat@loupe.invalid> {start}",
        "Retrain with one more picture\n\n# and why\n\n",
    ]
    assert workspace.commit("Nothing new") == commit
    assert project.state() == before

    workspace.remove()
    assert project.state() == before
    assert (project.folder / "runs/checkpoint").read_text() == "kept"
    assert not (project.folder / ".dvc/tmp").exists(), "DVC never ran here"

    again = reopen(project.folder, "r1", said.append)
    assert again.git("rev-parse", "HEAD").strip() == commit
    again.dvc("checkout", "models")
    assert (again.folder / "models/weights").read_text() == "onetwo", "from the project's cache"
    assert ".cache" not in project.dvc("status", "--json"), "stages of worktrees are not the project's"
    assert project.state() == before


def test_two_runs_at_once(project: Project) -> None:
    before = project.state()

    def retrain(run: str) -> str:
        workspace = opened(project, run)
        workspace.fetch()
        (workspace.folder / f"data/products/{run}.txt").write_text(run)
        workspace.dvc("add", "data/products")
        workspace.dvc("repro")
        workspace.push_data()
        return workspace.commit(f"Retrain {run}")

    with ThreadPoolExecutor(2) as both:
        commits = list(both.map(retrain, ("a", "b")))
    for run, commit in zip("ab", commits, strict=True):
        folder = project.folder / ".cache/flows/worktrees" / run
        assert (folder / "models/weights").read_text() == f"{run}one"
        assert project.git("rev-parse", f"retrain/{run}") == commit
    assert project.state() == before


# ------------------------------------------------------------------------------------------------ what it starts from


def test_it_starts_from_the_branch_or_the_newer_champion(project: Project) -> None:
    first = project.git("rev-parse", "HEAD")
    assign(project, 1, first)
    second = project.commit("second.txt")
    assert opened(project, "of-the-branch").git("rev-parse", "HEAD").strip() == second

    ahead = opened(project, "promoted")
    champion = changed(ahead)
    assign(project, 10, champion)
    assign(project, 9, second)  # an older move, though its tag is newer
    said: list[str] = []
    workspace = open_workspace(project.folder, "of-the-champion", said.append)
    assert workspace.git("rev-parse", "HEAD").strip() == champion
    assert said == [
        f"starting from the production model's commit {champion[:12]}, which main does not hold yet",
    ]

    project.commit("third.txt")
    with pytest.raises(InputError, match=f"main does not hold .* commit {champion[:12]}.*`git merge {champion[:12]}`"):
        opened(project)
    assert_nothing_is_left(project)
    project.git("merge", "--quiet", "--no-edit", champion)
    assert opened(project).git("rev-parse", "HEAD").strip() == project.git("rev-parse", "HEAD")


def test_with_an_origin_it_starts_from_there(project: Project, origin: Project, tmp_path: Path) -> None:
    other = Project(tmp_path / "other")
    project.run("git", "clone", "--quiet", str(origin.folder), str(other.folder))
    theirs = other.commit("theirs.txt")
    other.git("tag", "--annotate", "--message=promoted", "rdn-x2#production#1", theirs)
    other.git("tag", "--annotate", "--message=other", "other", theirs)
    other.git("push", "--quiet", "origin", "main", "--tags")
    project.commit("not-pushed.txt")
    before, fetched = project.state(), (project.folder / ".git/FETCH_HEAD").read_text()
    assert opened(project).git("rev-parse", "HEAD").strip() == theirs
    assert project.git("tag", "--list") == "rdn-x2#production#1", "the model's tags come along, others are not ours"
    assert project.state() == before
    assert (project.folder / ".git/FETCH_HEAD").read_text() == fetched, "what a person fetched last"
    with pytest.raises(InputError, match="origin has no branch next; push it there"):
        opened(project, "r2", "next")


def test_an_origin_that_does_not_answer_may_be_tried_again(project: Project, tmp_path: Path) -> None:
    project.git("remote", "add", "origin", str(tmp_path / "unplugged"))
    with pytest.raises(
        UnreachableError,
        match=r"(?s)origin cannot be reached: `git ls-remote .*unplugged' does not appear to be a git repository",
    ):
        opened(project)
    assert_nothing_is_left(project)
    project.git("remote", "set-url", "origin", "http://127.0.0.1:1/loupe.git")
    with pytest.raises(UnreachableError, match="unable to access"):
        opened(project)
    project.git("remote", "remove", "origin")
    workspace = opened(project)
    project.git("remote", "add", "origin", str(tmp_path / "unplugged"))
    for push in (workspace.push_branch, workspace.land):
        with pytest.raises(UnreachableError):
            push()


def test_a_missing_branch_is_named(project: Project) -> None:
    with pytest.raises(InputError, match="there is no branch next"):
        opened(project, branch="next")
    with pytest.raises(InputError, match="'--upload-pack=x' cannot name a branch"):
        opened(project, branch="--upload-pack=x")


# ------------------------------------------------------------------------------------------------- hostile and broken


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../r1",
        "a/b",
        "-x",
        ".hidden",
        "a..b",
        "a b",
        "a\nb",
        "r1\n",
        "é",
        "a.lock",
        "a.",
        "x" * 101,
        "a~1",
    ],
)
def test_names_that_are_none(project: Project, name: str) -> None:
    with pytest.raises(InputError, match="cannot name a run"):
        opened(project, name)
    with pytest.raises(InputError, match="cannot name a run"):
        reopen(project.folder, name, print)


def test_a_folder_that_is_no_project(tmp_path: Path, project: Project) -> None:
    with pytest.raises(InputError, match="no root of a git repository with DVC"):
        open_workspace(tmp_path, "r1", print)
    with pytest.raises(InputError, match="no root of a git repository with DVC"):
        open_workspace(project.folder / "data", "r1", print)


def test_a_run_is_opened_once(project: Project) -> None:
    commit = changed(opened(project))
    with pytest.raises(InputError, match="the branch retrain/r1 is there already"):
        opened(project)
    assert project.git("rev-parse", "retrain/r1") == commit
    with pytest.raises(InputError, match="there is no branch retrain/r2"):
        reopen(project.folder, "r2", print)


def test_hooks_and_signatures_of_the_user_do_not_get_in_the_way(project: Project, origin: Project) -> None:
    hooks = project.folder / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    for name in (
        "post-checkout",
        "pre-commit",
        "prepare-commit-msg",
        "commit-msg",
        "post-commit",
        "pre-push",
        "reference-transaction",
    ):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {project.folder.parent}/ran-{name}\nsleep 60\nexit 1\n")
        (hooks / name).chmod(0o755)
    project.git("config", "commit.gpgSign", "true")
    project.git("config", "push.gpgSign", "if-asked")
    project.git("config", "gpg.program", "/bin/false")
    workspace = opened(project)
    commit = changed(workspace)
    assert workspace.push_branch()
    assert origin.git("rev-parse", "retrain/r1") == commit
    assert list(project.folder.parent.glob("ran-*")) == []


def test_who_commits(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (Path.home() / ".gitconfig").unlink()
    workspace = opened(project)
    changed(workspace)
    assert (
        workspace.git("log", "-1", "--format=%an %ae %cn %ce").strip() == "loupe loupe@localhost loupe loupe@localhost"
    )
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Kim")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "kim@loupe.invalid")
    changed(workspace, "steps: 4\n")
    assert workspace.git("log", "-1", "--format=%an %ae %cn").strip() == "Kim kim@loupe.invalid Kim"


def test_a_git_hook_may_start_a_run(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git tells its hooks by the environment which repository is meant; that is not ours."""
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere/.git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "elsewhere/index"))
    workspace = opened(project)
    assert workspace.git("rev-parse", "--abbrev-ref", "HEAD").strip() == "retrain/r1"
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_of_another_git_is_waited_for(project: Project) -> None:
    lock = project.folder / ".git/refs/heads/retrain/r1.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    thread = threading.Timer(0.5, lock.unlink)
    started = time.monotonic()
    thread.start()
    opened(project)
    thread.join()
    assert time.monotonic() - started > 0.5


def test_a_cache_whose_disk_is_missing(project: Project, tmp_path: Path) -> None:
    (project.folder / ".dvc/config.local").write_text(f"[cache]\n    dir = {tmp_path / 'disk/cache'}\n")
    with pytest.raises(InputError, match=r"disk/cache: DVC's cache is not there.*is its disk mounted"):
        opened(project)
    assert_nothing_is_left(project)
    (tmp_path / "disk/cache").mkdir(parents=True)
    workspace = opened(project)
    assert Config(str(workspace.folder / ".dvc"))["cache"]["dir"] == str(tmp_path / "disk/cache")
    (project.folder / ".dvc/config.local").write_text("[cache\n")
    workspace.remove()
    with pytest.raises(InputError, match="config"):
        reopen(project.folder, "r1", print)
    assert "worktrees/r1\n" not in project.git("worktree", "list", "--porcelain") + "\n"


FULL_DISK = """
import pathlib, subprocess, sys
project = pathlib.Path(sys.argv[1])
(project / ".cache/flows/worktrees").mkdir(parents=True)
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", project / ".cache/flows/worktrees"], check=True)
from flows.workspace import open_workspace
try:
    open_workspace(project, "r1", print)
except ValueError as error:
    print(type(error).__name__, error)
print(list((project / ".cache/flows/worktrees").iterdir()))
"""


def test_a_full_disk_leaves_nothing_half_made(project: Project) -> None:
    if subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "true"], check=False).returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    project.commit("large.txt", "x" * 200_000)
    env = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", FULL_DISK, str(project.folder)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "worktrees: the disk is full; make room, then run again" in done.stdout
    assert done.stdout.endswith("[]\n")
    assert_nothing_is_left(project)


# ------------------------------------------------------------------------------------------------------ configuration


def test_the_users_configuration_keeps_its_meaning(project: Project, tmp_path: Path) -> None:
    local = project.folder / ".dvc/config.local"
    local.write_text(
        "[core]\n    remote = store\n"
        "['remote \"store\"']\n    url = ../../store\n"
        "['remote \"s3\"']\n    url = s3://bucket/loupe\n    access_key_id = someone\n    credentialpath = keys\n"
        "[cache]\n    dir = ../cache-of-mine\n    type = copy\n"
    )
    local.chmod(0o600)
    (project.folder / "cache-of-mine").mkdir()
    workspace = opened(project)
    mine, theirs = (Config(str(folder / ".dvc")) for folder in (project.folder, workspace.folder))
    assert theirs["core"]["remote"] == "store"
    assert theirs["remote"]["store"]["url"] == mine["remote"]["store"]["url"] == str(tmp_path / "store")
    assert theirs["remote"]["s3"] == mine["remote"]["s3"]
    assert theirs["cache"] == {**mine["cache"], "dir": str(project.folder / "cache-of-mine")}
    assert stat.S_IMODE((workspace.folder / ".dvc/config.local").stat().st_mode) == 0o600

    # a remote outside the repository receives all that was made, and DVC's memory of runs
    (workspace.folder / "data/products").mkdir()
    (workspace.folder / "data/products/one.txt").write_text("one")
    workspace.dvc("commit", "--force", "data.dvc")
    workspace.dvc("repro", "--force")
    workspace.push_data()
    shutil.rmtree(project.folder / "cache-of-mine")
    (project.folder / "cache-of-mine").mkdir()
    workspace.dvc("pull", "--force", "models")
    assert (workspace.folder / "models/weights").read_text() == "one"
    assert list((tmp_path / "store/runs").rglob("*"))
    assert not workspace.git("status", "--porcelain", ".dvc")


def test_the_cache_folder_may_be_a_link_to_a_larger_disk(project: Project, tmp_path: Path) -> None:
    (tmp_path / "large/disk").mkdir(parents=True)
    (project.folder / ".cache").symlink_to(tmp_path / "large/disk")
    workspace = opened(project)
    assert workspace.folder == tmp_path / "large/disk/flows/worktrees/r1"
    assert "/.dvc/remote" in workspace.dvc("remote", "list")
    (workspace.folder / "data/products").mkdir()
    (workspace.folder / "data/products/new.txt").write_text("new")
    workspace.dvc("commit", "--force", "data.dvc")
    workspace.push_data()
    assert len(list((workspace.folder / ".dvc/remote").rglob("*/md5/*/*"))) == 4, (
        "the one inside, and its two new files"
    )
    workspace.remove()
    assert not workspace.folder.exists()
    assert str(workspace.folder) not in project.git("worktree", "list")


def test_a_dvc_remote_that_does_not_answer_may_be_tried_again(
    project: Project, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.folder / ".dvc/config.local").write_text(
        f"[core]\n    remote = s3\n['remote \"s3\"']\n    url = s3://{s3.bucket}/loupe\n    read_timeout = 1\n"
    )
    workspace = opened(project)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # each try takes DVC half a minute else
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(UnreachableError, match=r"DVC remote cannot be reached: `python -m dvc pull data\.dvc` ended"):
        workspace.fetch()
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    with pytest.raises(ChildError, match="Checkout failed"):  # it answers, and has nothing
        workspace.fetch()
    (workspace.folder / "data/products").mkdir(exist_ok=True)
    (workspace.folder / "data/products/one.txt").write_text("one")
    workspace.dvc("commit", "--force", "data.dvc")
    workspace.push_data()
    shutil.rmtree(workspace.folder / "data/products")
    workspace.fetch()
    assert (workspace.folder / "data/products/one.txt").read_text() == "one"


def test_commands_know_whose_they_are_and_use_the_worktrees_code(project: Project) -> None:
    workspace = opened(project)
    package = workspace.folder / "src/loupe"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "cli.py").write_text(
        "import os, sys; print(sys.argv[1:], os.environ['LOUPE_RUN_ID'], os.getcwd()); sys.exit(1)"
    )
    assert workspace.loupe("drift", "a", ok=(0, 1)) == f"['drift', 'a'] r1 {workspace.folder}\n"
    with pytest.raises(ChildError, match=r"loupe\.cli drift` ended with code 1"):
        workspace.loupe("drift")
    env = workspace.environment()
    assert env["LOUPE_PROJECT"] == str(project.folder)
    assert env["LOUPE_CACHE"] == str(project.folder / ".cache")


def test_git_in_a_broken_worktree_does_not_find_the_project(project: Project) -> None:
    workspace = opened(project)
    (workspace.folder / ".git").unlink()
    with pytest.raises(ChildError, match="not a git repository"):
        workspace.commit("Into the wrong branch")


# ------------------------------------------------------------------------------------------------------------ reopen


def test_a_kept_worktree_is_reopened_as_it_is(project: Project) -> None:
    workspace = opened(project)
    (workspace.folder / "params.yaml").write_text("steps: 9\n")
    (Path(workspace.git("rev-parse", "--absolute-git-dir").strip()) / "index.lock").touch()  # of a git that was killed
    again = reopen(project.folder, "r1", print, owner="flow-2")
    assert (again.folder / "params.yaml").read_text() == "steps: 9\n"
    assert again.commit("Go on") == project.git("rev-parse", "retrain/r1")
    owner = read_owner(project.folder, "r1")
    assert owner
    assert (owner.flow_run, owner.process, owner.is_alive) == ("flow-2", os.getpid(), True)
    assert not Owner("", owner.process, owner.started - 1).is_alive, "another process with the same number"


def test_a_worktree_at_work_is_not_taken_from_its_flow_run(project: Project) -> None:
    workspace = open_workspace(project.folder, "r1", print, owner="flow-1")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        started = psutil.Process(other.pid).create_time()
        owner_file(project.folder, "r1").write_text(json.dumps(asdict(Owner("flow-1", other.pid, started))))
        with pytest.raises(InputError, match=r"^r1: flow run flow-1 is at work on it; wait until that has ended"):
            reopen(project.folder, "r1", print, owner="flow-2")
        assert workspace.folder.is_dir()
        reopen(project.folder, "r1", print, owner="flow-1")  # Prefect starts a run again
        owner_file(project.folder, "r1").write_text(json.dumps(asdict(Owner("flow-1", other.pid, started))))
    reopen(project.folder, "r1", print, owner="flow-2")


def test_nothing_is_left_where_pictures_cannot_be_fetched(project: Project) -> None:
    workspace = opened(project)
    shutil.rmtree(project.folder / ".dvc/cache", ignore_errors=True)
    project.dvc("remote", "modify", "--local", "bundled", "url", str(project.folder / "away"))
    workspace.remove()
    again = reopen(project.folder, "r1", print)
    with pytest.raises(ChildError):
        again.fetch_or_remove()
    assert not again.folder.exists()
    assert not owner_file(project.folder, "r1").exists()


@pytest.mark.parametrize("what", ["no .git", "being made", "gone", "a file is in the way"])
def test_a_half_made_worktree_is_made_anew(project: Project, what: str) -> None:
    workspace = opened(project)
    commit = changed(workspace)
    if what == "no .git":
        (workspace.folder / ".git").unlink()
    elif what == "being made":  # `git worktree add` was killed
        (Path(workspace.git("rev-parse", "--absolute-git-dir").strip()) / "locked").write_text("initializing")
        (workspace.folder / "train.py").unlink()
    else:
        shutil.rmtree(workspace.folder)
    if what == "a file is in the way":
        workspace.folder.write_text("")
    again = reopen(project.folder, "r1", print)
    assert again.git("rev-parse", "HEAD").strip() == commit
    assert again.git("status", "--porcelain") == ""
    assert (again.folder / "train.py").exists()
    assert (again.folder / "runs").resolve() == project.folder / "runs"


def test_a_run_of_another_clone_is_reopened_from_origin(project: Project, origin: Project, tmp_path: Path) -> None:
    workspace = opened(project)
    commit = changed(workspace)
    workspace.push_branch()
    other = Project(tmp_path / "other")
    project.run("git", "clone", "--quiet", str(origin.folder), str(other.folder))
    assert reopen(other.folder, "r1", print).git("rev-parse", "HEAD").strip() == commit
    with pytest.raises(InputError, match="origin has no branch retrain/r2"):
        reopen(other.folder, "r2", print)


def test_what_another_worker_has_judged_is_not_trained_again(project: Project, origin: Project, tmp_path: Path) -> None:
    other = Project(tmp_path / "other")
    project.run("git", "clone", "--quiet", str(origin.folder), str(other.folder))
    workspace = opened(project)
    workspace.commit(f"Refused: no gain\n\n{JUDGED}: abc", empty=True)
    workspace.push_branch()
    case = Case(Decision(True, ("214 new images",)), 214, None)
    for place in (project, other):
        space = opened(place, "r2")
        said = reason_not_to_train(space, case, "abc")
        assert said == "the same images, recipe and champion were judged before (Refused: no gain)"
        assert reason_not_to_train(space, case, "def") == ""


def test_worktrees_of_others_are_left_alone(project: Project, tmp_path: Path) -> None:
    project.git("worktree", "add", "--quiet", str(tmp_path / "disk"), "-b", "mine")
    (tmp_path / "disk").rename(tmp_path / "unplugged")
    workspace = opened(project)
    workspace.remove()
    workspace.remove()
    (tmp_path / "unplugged").rename(tmp_path / "disk")
    assert Project(tmp_path / "disk").git("rev-parse", "--abbrev-ref", "HEAD") == "mine"
    assert project.git("rev-parse", "retrain/r1"), "the branch stays"
    assert read_owner(project.folder, "r1") is None


# ----------------------------------------------------------------------------------------------------------- landing


def test_a_branch_that_is_checked_out_is_not_moved(project: Project) -> None:
    before = project.state()
    workspace = opened(project)
    commit = changed(workspace)
    said = workspace.land()
    assert project.state() == before
    assert said == (
        f"main is checked out in {project.folder}, and was not moved to commit {commit[:12]}; "
        "there: `git merge --ff-only retrain/r1`"
    )
    project.run(*said.split("`")[1].split())
    assert project.git("rev-parse", "main") == commit
    assert workspace.land() == ""


def test_a_branch_that_nobody_has_checked_out_is_moved(project: Project) -> None:
    workspace = opened(project)
    commit = changed(workspace)
    project.git("switch", "--quiet", "--create", "mine")
    assert workspace.land() == ""
    assert project.git("rev-parse", "main") == commit
    assert project.git("rev-parse", "--abbrev-ref", "HEAD") == "mine"
    with pytest.raises(InputError, match="there is no branch next"):
        workspace.land("next")


def test_a_branch_that_has_gone_on_is_not_moved(project: Project) -> None:
    workspace = opened(project)
    changed(workspace)
    theirs = project.commit("theirs.txt")
    project.git("switch", "--quiet", "--create", "mine")
    said = workspace.land()
    assert said.endswith("`git merge retrain/r1` on main joins them")
    assert project.git("rev-parse", "main") == theirs


def test_origin_is_moved_forward_and_receives_the_models_tags(project: Project, origin: Project) -> None:
    before = project.state()
    workspace = opened(project)
    commit = changed(workspace)
    assign(project, 1, commit)
    project.git("tag", "--annotate", "--message=one", "rdn-x2@v1.0.0", commit)
    project.git("tag", "private", commit)
    assert workspace.land() == ""
    assert origin.git("rev-parse", "main") == commit
    assert origin.git("tag", "--list").split() == ["rdn-x2#production#1", "rdn-x2@v1.0.0"]
    assert project.state() == before, "people pull when they want to"
    assert workspace.land() == "", "again is no harm"


def test_an_origin_that_has_gone_on_says_so(project: Project, origin: Project, tmp_path: Path) -> None:
    workspace = opened(project)
    commit = changed(workspace)
    assign(project, 1, commit)
    other = Project(tmp_path / "other")
    project.run("git", "clone", "--quiet", str(origin.folder), str(other.folder))
    theirs = other.commit("theirs.txt")
    other.git("push", "--quiet", "origin", "main")
    said = workspace.land()
    assert said == (
        f"origin did not move main to commit {commit[:12]}: [rejected] (fetch first); merge retrain/r1 into it there, "
        "for example by a pull request"
    )
    assert origin.git("rev-parse", "main") == theirs
    assert origin.git("tag", "--list") == "rdn-x2#production#1", "what was promoted is known all the same"


def test_an_origin_with_files_and_other_tags_refuses(project: Project, tmp_path: Path) -> None:
    origin = Project(tmp_path / "origin")
    project.run("git", "clone", "--quiet", str(project.folder), str(origin.folder))
    project.git("remote", "add", "origin", str(origin.folder))
    workspace = opened(project)
    commit = changed(workspace)
    assert "[remote rejected] (branch is currently checked out)" in workspace.land()
    assert workspace.push_branch()
    origin.git("switch", "--quiet", "--create", "mine")
    assign(origin, 1, "main")
    assign(project, 1, commit)
    said = workspace.land()
    assert said.startswith("origin refused tags (rdn-x2#production#1: [rejected] (already exists))"), said
    assert origin.git("rev-parse", "main") == commit
    origin.git("switch", "--quiet", "retrain/r1")
    changed(workspace, "steps: 5\n")
    with pytest.raises(
        InputError, match=r"origin refused retrain/r1: \[remote rejected\] \(branch is currently checked"
    ):
        workspace.push_branch()


def test_without_an_origin_nothing_is_pushed(project: Project) -> None:
    assert opened(project).push_branch() is False


# ------------------------------------------------------------------------------------------------- what kills it

KILLED = """
import pathlib, sys
from flows.workspace import open_workspace
workspace = open_workspace(pathlib.Path(sys.argv[1]), "r1", print)
(workspace.folder / "train.py").write_text("import time; print('training', flush=True); time.sleep(60)")
workspace.fetch()
pathlib.Path("ready").touch()
workspace.dvc("repro")
"""


def test_a_run_that_was_killed_is_gone_on_with(project: Project, tmp_path: Path) -> None:
    """`kill -9` while `dvc repro` holds its locks: the next one is not kept out."""
    env = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    log = tmp_path / "log"
    with log.open("wb") as out:
        flow = subprocess.Popen([sys.executable, "-c", KILLED, str(project.folder)], cwd=tmp_path, env=env, stdout=out)
        assert wait_for(lambda: b"\ntraining" in log.read_bytes(), 60), log.read_text()
        flow.kill()
        flow.wait()
    before = project.state()
    owner = read_owner(project.folder, "r1")
    assert owner
    assert not owner.is_alive
    workspace = reopen(project.folder, "r1", print)
    assert "time.sleep" in (workspace.folder / "train.py").read_text(), "what was done is still there"
    workspace.git("checkout", "--", "train.py")
    workspace.dvc("repro")
    assert json.loads((workspace.folder / "metrics/evaluate.json").read_text()) == {"pictures": 1}
    assert project.state() == before
