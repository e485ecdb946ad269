"""`loupe flows deploy` against a real server: what it makes, what a run then finds, and what people may change."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.flows.yard import PREFECT, ROOT, Yard, eventually, make_project, running_server

from flows.deploy import deployments_of

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """A small project that has been deployed to a server of its own."""
    base = tmp_path_factory.mktemp("deploy")
    with running_server(base / "home") as env:
        yard = Yard(make_project(base / "project", env), env)
        yard.deploy()
        yield yard


@pytest.fixture
def worker(yard: Yard) -> Iterator[None]:
    """A worker that runs what the test starts."""
    with yard.worker():
        yield


def everything(yard: Yard) -> dict[str, Any]:
    """What there is on the server, but for what changes each time by nature."""
    passing = {"updated", "last_polled", "status", "id", "created", "version_id", "version_info", "trigger_id"}

    def lasting(found: Any) -> Any:
        if isinstance(found, dict):
            return {key: lasting(value) for key, value in found.items() if key not in passing}
        if isinstance(found, list):
            return sorted(map(lasting, found), key=repr)
        return found

    places = ("deployments", "work_pools", "automations", "flows", "v2/concurrency_limits")
    return {place: lasting(yard.ask("POST", f"/{place}/filter", {})) for place in places}


def test_what_a_run_loads_before_it_begins_is_light() -> None:
    script = "import sys, flows.retrain, flows.evaluate, flows.release, flows.catalogue, flows.reap, flows.inbox; "
    heavy = "{'torch', 'lightning', 'great_expectations', 'evidently', 'matplotlib', 'onnxruntime'}"
    subprocess.run([sys.executable, "-c", f"{script}assert not {heavy} & set(sys.modules)"], cwd=ROOT, check=True)


def test_twice_leaves_one_of_each(yard: Yard) -> None:
    before = everything(yard)
    assert len(before["deployments"]) == 4
    assert len(before["automations"]) == 2  # the trigger and what finds runs that died
    assert [pool["name"] for pool in before["work_pools"]] == ["loupe"]
    ids = {name: yard.deployment(name)["id"] for name in ("note", "fail", "refuse", "linger")}
    said = yard.deploy()
    assert said.splitlines() == ["deployed note, fail, refuse, linger"]
    assert everything(yard) == before
    assert {name: yard.deployment(name)["id"] for name in ids} == ids


def test_no_path_of_this_machine_is_on_the_server(yard: Yard) -> None:
    assert str(yard.project) not in json.dumps(everything(yard))


def test_a_run_works_in_the_checkout_with_the_packages_of_its_worker(yard: Yard, worker: None) -> None:
    assert yard.ends(yard.start("note", inbox="s3://photos/new")) == "Completed"
    seen = (yard.project / "noted.txt").read_text().splitlines()
    assert seen[:3] == ["s3://photos/new", str(yard.project), sys.executable]
    assert [Path(path) for path in seen[3:]] == [ROOT / "flows/__init__.py", ROOT / "src/loupe/__init__.py"]


def test_an_event_starts_a_run_with_its_payload(yard: Yard, worker: None) -> None:
    emit = "from prefect.events import emit_event; import time; emit_event(*{!r}, payload={!r}); time.sleep(1)"
    event = ["loupe.products.landed", {"prefect.resource.id": "loupe.inbox.test"}]
    code = emit.format(event, {"inbox": "landed"})
    subprocess.run([sys.executable, "-c", code], cwd=yard.project, env=yard.env, check=True, timeout=60)
    body = {"deployments": {"id": {"any_": [yard.deployment("note")["id"]]}}}

    def landed() -> list[Any]:
        runs = yard.ask("POST", "/flow_runs/filter", body)
        return [run for run in runs if run["parameters"].get("inbox") == "landed"]

    runs = eventually(landed, 30.0)
    assert len(runs) == 1
    assert runs[0]["created_by"]["type"] == "AUTOMATION"
    assert yard.ends(runs[0]["id"]) == "Completed"


@contextmanager
def changed(yard: Yard, text: str) -> Iterator[None]:
    """Another prefect.yaml for a while."""
    (yard.project / "prefect.yaml").write_text(text)
    try:
        yield
    finally:
        (yard.project / "prefect.yaml").write_text(PREFECT)
        yard.deploy()


def test_what_people_set_stays_and_what_the_file_no_longer_names_goes(yard: Yard) -> None:
    note = yard.deployment("note")
    path = f"/deployments/{note['id']}/schedules"
    yard.ask("PATCH", f"{path}/{note['schedules'][0]['id']}", {"active": False})
    yard.ask("POST", path, [{"schedule": {"cron": "0 5 * * 3", "timezone": "Europe/Berlin"}, "active": True}])
    trigger = next(one for one in yard.ask("POST", "/automations/filter", {}) if one["name"] == "landed starts note")
    yard.ask("PATCH", f"/automations/{trigger['id']}", {"enabled": False})

    text = PREFECT.replace('slug: weekly, cron: "0 3 * * 1"', 'slug: weekly, cron: "0 4 * * 1"')
    without = "\n".join(line for line in text.splitlines() if "name: refuse" not in line)
    with changed(yard, without):
        said = yard.deploy()
        assert "removed refuse" in said
        assert "the schedule weekly is what prefect.yaml says" in said
        schedules = {one["slug"]: one for one in yard.deployment("note")["schedules"]}
        assert set(schedules) == {"weekly", None}
        assert schedules["weekly"]["schedule"]["cron"] == "0 4 * * 1"
        assert not schedules["weekly"]["active"]
        assert schedules[None]["schedule"]["cron"] == "0 5 * * 3"
        assert schedules[None]["active"]
        names = [one["name"] for one in yard.ask("POST", "/deployments/filter", {})]
        assert sorted(names) == ["fail", "linger", "note"]
        triggers = [one for one in yard.ask("POST", "/automations/filter", {}) if one["name"] == "landed starts note"]
        assert [one["enabled"] for one in triggers] == [False]
    yard.ask("PATCH", f"/automations/{trigger_id(yard)}", {"enabled": True})
    for schedule in yard.deployment("note")["schedules"]:
        if schedule["slug"]:
            yard.ask("PATCH", f"{path}/{schedule['id']}", {"active": True})
        else:
            yard.ask("DELETE", f"{path}/{schedule['id']}")


def trigger_id(yard: Yard) -> str:
    """The id of the automation that starts `note`; each deployment gives another."""
    return next(
        str(one["id"]) for one in yard.ask("POST", "/automations/filter", {}) if one["name"] == "landed starts note"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("deployments: [", "prefect.yaml"),
        (PREFECT.replace("tags: [loupe, small]", "tags: [small]"), "note needs the tag loupe"),
        (PREFECT.replace("jobs.py:note", "jobs.py:absent"), "absent"),
    ],
)
def test_a_wrong_file_is_refused_in_a_sentence(yard: Yard, text: str, message: str) -> None:
    (yard.project / "prefect.yaml").write_text(text)
    try:
        done = yard.flows("deploy")
    finally:
        (yard.project / "prefect.yaml").write_text(PREFECT)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr


def test_no_server_is_said_in_a_sentence(yard: Yard) -> None:
    done = yard.flows("deploy", PREFECT_API_URL="http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES="0")
    assert done.returncode == 2
    assert "no Prefect server at http://127.0.0.1:9/api" in done.stderr
    assert "loupe flows up" in done.stderr


class Receiver(BaseHTTPRequestHandler):
    """Keeps what is posted to it."""

    received: list[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.received.append(json.loads(body)["text"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def shown(end: str) -> str:
    """The program that docs/operations.md gives to the shell between two such words."""
    match = re.search(f"<<'{end}'\n(.*?)\n{end}\n", (ROOT / "docs/operations.md").read_text(), re.DOTALL)
    assert match
    return match[1]


def test_people_are_told_of_runs_that_fail_or_are_refused(yard: Yard, worker: None) -> None:
    received: list[str] = []
    server = HTTPServer(("127.0.0.1", 0), type("Here", (Receiver,), {"received": received}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/"
        make = [sys.executable, "-c", shown("END").replace("https://HOOK", url)]
        subprocess.run(make, cwd=yard.project, env=yard.env, check=True, timeout=60, capture_output=True)
        assert "made the automation 'loupe: tell people'" in yard.deploy()
        runs = {name: yard.start(name) for name in ("fail", "refuse", "note")}
        assert {name: yard.ends(run) for name, run in runs.items()} == {
            "fail": "Failed",
            "refuse": "Refused",
            "note": "Completed",
        }
        eventually(lambda: len(received) >= 2, 20.0, lambda: received)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    told = {text.splitlines()[0]: text for text in received}
    assert set(told) == {"fail: Failed", "refuse: Refused"}
    assert "on purpose" in told["fail: Failed"]
    assert "worse than the champion" in told["refuse: Refused"]
    assert runs["fail"] in told["fail: Failed"]  # the address of the run


def test_runs_of_others_on_the_same_server_are_left_alone(yard: Yard) -> None:
    for automation in yard.ask("POST", "/automations/filter", {}):
        if automation["name"].startswith("loupe: "):
            related = automation["trigger"]["match_related"]
            assert related == {"prefect.resource.id": "prefect.tag.loupe", "prefect.resource.role": "tag"}


def test_a_run_that_is_killed_with_its_worker_is_marked_crashed_and_a_living_one_is_not(yard: Yard) -> None:
    """About 60 s: Prefect allows no sign of life more often than every 30 s."""
    yard.deploy("--silence", "40")
    place = yard.project / "lingers.txt"
    with yard.worker() as first:
        refused = yard.start("refuse")
        assert yard.ends(refused) == "Refused"
        killed = yard.start("linger")
        number = int(eventually(lambda: place.read_text() if place.exists() else "", 60.0))
        os.killpg(first.pid, signal.SIGKILL)
        os.killpg(number, signal.SIGKILL)
    with yard.worker():
        living = yard.start("linger", seconds=50)
        assert yard.ends(killed, 90.0) == "Crashed"
        assert "no sign of life" in yard.ask("GET", f"/flow_runs/{killed}")["state"]["message"]
        assert yard.ends(living) == "Completed"
    assert yard.state(refused) == "Refused"  # an end by a name of its own is one, too


def test_the_project_s_own_file_is_complete() -> None:
    entries = {entry["name"]: entry for entry in deployments_of(ROOT)}
    assert set(entries) == {"retrain", "evaluate", "approve", "rollback", "upscale-catalogue", "reap", "watch-inbox"}
    for entry in entries.values():
        assert "loupe" in entry["tags"]
        assert entry["work_pool"] == {"name": "loupe"}
        file, function = entry["entrypoint"].split(":")
        assert f"def {function}(" in (ROOT / file).read_text()
        assert all(schedule["slug"] and schedule["timezone"] == "UTC" for schedule in entry.get("schedules", []))
    assert entries["retrain"]["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
    assert entries["retrain"]["triggers"][0]["parameters"] == {"inbox": "{{ event.payload.inbox }}"}
