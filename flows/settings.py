"""Where the flows keep their things on this machine, and the environment in which Prefect is loaded.

Prefect reads its settings when it is imported, so these come first, and nothing of Prefect is in here:

    .cache/flows/prefect/       PREFECT_HOME: the server's database and its copy of the user interface
    .cache/flows/logs/          what each service of `loupe flows up` printed
    .cache/flows/reports/       published reports, served on loopback
    .cache/flows/worktrees/     a git worktree for each run
    .cache/flows/up.json        the addresses of what runs
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, build_opener

from loupe.errors import InputError

FOLDER = Path(".cache/flows")  # of everything that flows keep, below the project
PORT = 4200  # of the Prefect server, as everywhere
REPORTS_PORT = 4210
TENSORBOARD_PORT = 6006
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Addresses:
    """Where `loupe flows up` answers; `api` is what PREFECT_API_URL wants."""

    ui: str
    api: str
    reports: str
    tensorboard: str


def project_here() -> Path:
    """The working directory, if it is the root of a project with flows.

    Raises:
        InputError: it is not.
    """
    project = Path.cwd()
    if not (project / "prefect.yaml").is_file():
        raise InputError("no prefect.yaml here; run in the project's root folder")
    return project


def folder_of(project: Path) -> Path:
    """The folder that holds all that flows leave on this machine."""
    return project / FOLDER


def up_file(project: Path) -> Path:
    """The file in which a running `loupe flows up` says where it answers."""
    return folder_of(project) / "up.json"


def addresses(project: Path) -> Addresses | None:
    """Where `loupe flows up` answers, as it said itself; None when it does not run, as far as its file knows."""
    try:
        return Addresses(**json.loads(up_file(project).read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise InputError(f"{up_file(project)}: damaged ({error}); remove it") from None


def api_url(project: Path) -> str:
    """PREFECT_API_URL, else the server of `loupe flows up`, else where that would be."""
    found = addresses(project)
    return os.environ.get("PREFECT_API_URL") or (found.api if found else f"http://{LOOPBACK}:{PORT}/api")


def environment(project: Path, api: str | None = None) -> dict[str, str]:
    """The environment of all that talks to Prefect: nothing of the user's own profile, and no word to others.

    Args:
        project: its root folder.
        api: address of the server; else see `api_url`.
    """
    bypass = {*filter(None, os.environ.get("NO_PROXY", "").split(",")), LOOPBACK, "localhost"}
    return os.environ | {
        "PREFECT_HOME": os.environ.get("PREFECT_HOME") or str(folder_of(project) / "prefect"),
        "PREFECT_API_URL": api or api_url(project),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "DVC_NO_ANALYTICS": "1",
        "NO_PROXY": ",".join(sorted(bypass)),  # a proxy of the environment must not see loopback
        "no_proxy": ",".join(sorted(bypass)),
    }


def enter(project: Path) -> None:
    """Make this process one that talks to Prefect; call it before anything of Prefect is imported."""
    os.environ.update(environment(project))


def answers(url: str) -> bool:
    """Whether a server of ours answers, be it that it has no such page."""
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=2):
            return True
    except HTTPError as error:
        error.close()
        return error.code < 500
    except (URLError, OSError):
        return False
