"""`loupe flows doctor` says what is wrong and what to do, of each thing that flows need."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import S3
from tests.flows.yard import PREFECT, Yard, make_project, running_server

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """A small project that has been deployed, with a worker."""
    base = tmp_path_factory.mktemp("doctor")
    with running_server(base / "home", LOUPE_REPORTS_URL="http://127.0.0.1:9") as env:  # where nothing answers
        yard = Yard(make_project(base / "project", env), env)
        yard.deploy()
        with yard.worker():
            yield yard


def examined(yard: Yard, **more: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """The exit code, and the findings by name."""
    done = yard.flows("doctor", "--json", **more)
    assert done.stdout.startswith("{"), done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] == (done.returncode == 0)
    found: dict[str, list[dict[str, Any]]] = {}
    for one in report["findings"]:
        found.setdefault(one["name"], []).append(one)
    return done.returncode, found


def wrong(found: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """What is wrong: the message by name. Each of them says what to do."""
    bad = [one for several in found.values() for one in several if not one["ok"]]
    assert all(one["remedy"] for one in bad)
    return {one["name"]: one["message"] for one in bad}


def test_only_what_is_not_there_is_wrong(yard: Yard) -> None:
    code, found = examined(yard)
    assert wrong(found).keys() == {"reports"}  # nothing serves them here; test_up.py has all of it
    assert code == 1
    assert set(found) == {
        *("server", "clock", "work pool", "worker", "deployments", "event trigger", "automations", "notifications"),
        *("git identity", "git worktrees", "dvc remote", "release store", "reports", "disk"),
    }
    assert found["event trigger"][0]["message"] == "loupe.products.landed starts note: on"


def test_lines_for_people_say_the_same(yard: Yard) -> None:
    done = yard.flows("doctor")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert any(line.startswith("ok     worker ") for line in lines)
    reports = next(number for number, line in enumerate(lines) if line.startswith("WRONG  reports "))
    assert "-> start it: loupe flows up" in lines[reports + 1]


def test_a_server_that_is_away_hides_nothing_else(yard: Yard) -> None:
    away = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_CLIENT_MAX_RETRIES": "0"}
    code, found = examined(yard, **away)
    assert code == 1
    assert "none at http://127.0.0.1:9/api" in wrong(found)["server"]
    assert found["git identity"][0]["ok"]
    assert "worker" not in found


def test_what_somebody_changed_on_the_server_is_found(yard: Yard) -> None:
    note = yard.deployment("note")
    automations = {one["name"]: one["id"] for one in yard.ask("POST", "/automations/filter", {})}
    yard.ask("PATCH", f"/deployments/{note['id']}", {"description": "Mine."})
    yard.ask("PATCH", f"/automations/{automations['landed starts note']}", {"enabled": False})
    yard.ask("DELETE", f"/automations/{automations['loupe: mark runs that died']}")
    yard.ask("PATCH", "/work_pools/loupe", {"is_paused": True})
    schedule = f"/deployments/{note['id']}/schedules/{note['schedules'][0]['id']}"
    yard.ask("PATCH", schedule, {"active": False})
    found = wrong(examined(yard)[1])
    assert "note: description is 'Mine.' instead of 'Notes.'" in found["deployments"]
    assert found["event trigger"].endswith("off")
    assert "missing" in found["automations"]
    assert "paused" in found["work pool"]

    yard.deploy()
    yard.ask("PATCH", "/work_pools/loupe", {"is_paused": False})
    triggers = {one["name"]: one["id"] for one in yard.ask("POST", "/automations/filter", {})}
    yard.ask("PATCH", f"/automations/{triggers['landed starts note']}", {"enabled": True})
    _, after = examined(yard)
    assert wrong(after).keys() == {"reports"}
    assert "paused by someone: note (weekly)" in after["deployments"][0]["message"]
    yard.ask("PATCH", schedule, {"active": True})


def test_a_file_that_was_changed_since_is_found(yard: Yard) -> None:
    (yard.project / "prefect.yaml").write_text(PREFECT.replace("0 3 * * 1", "0 4 * * 1"))
    try:
        found = wrong(examined(yard)[1])
    finally:
        (yard.project / "prefect.yaml").write_text(PREFECT)
    assert "note: schedules" in found["deployments"]


def test_what_is_wrong_on_this_machine_is_found(yard: Yard, tmp_path: Path) -> None:
    no_identity = {f"GIT_{role}_{what}": "" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    away = yard.project / "away"
    (yard.project / "remote").rename(away)
    (yard.project / "remote").write_text("no folder")
    try:
        found = wrong(examined(yard, **no_identity, LOUPE_REPORTS=str(blocked / "reports"))[1])
    finally:
        (yard.project / "remote").unlink()
        away.rename(yard.project / "remote")
    assert "git identity" in found
    assert "dvc remote" in found
    assert "cannot be written" in found["reports"]


def test_places_at_s3_are_tried_and_nothing_is_left_there(yard: Yard, s3: S3) -> None:
    env = {name: os.environ[name] for name in os.environ if name.startswith("AWS_")}
    env |= {
        "LOUPE_STORE": f"s3://{s3.bucket}/releases",
        "LOUPE_REPORTS": f"s3://{s3.bucket}/reports",
        "LOUPE_REPORTS_URL": "",
    }
    dvc = [sys.executable, "-m", "dvc", "remote", "add", "--quiet", "--local", "--default", "far"]
    local = yard.project / ".dvc/config.local"

    def remote(bucket: str) -> None:
        local.unlink(missing_ok=True)
        subprocess.run([*dvc, f"s3://{bucket}/data"], cwd=yard.project, env=yard.env, check=True, timeout=60)

    try:
        remote(s3.bucket)
        assert wrong(examined(yard, **env)[1]) == {}
        remote("absent")
        absent = {name: value.replace(s3.bucket, "absent") for name, value in env.items()}
        found = wrong(examined(yard, **absent)[1])
    finally:
        local.unlink(missing_ok=True)
    assert found.keys() == {"dvc remote", "release store", "reports"}
    assert s3.client.list_objects_v2(Bucket=s3.bucket)["KeyCount"] == 0
    assert "Uploads" not in s3.client.list_multipart_uploads(Bucket=s3.bucket)
