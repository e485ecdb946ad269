"""Fetching from a real server that fails in every way a server fails: what arrives is whole, right, or not there."""

import hashlib
import json
import random
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from tests.datasets.conftest import python, wait_for_bytes
from tests.file_server import Serving

from loupe.datasets import fetch as module
from loupe.datasets.fetch import FetchError, Patience, RemoteFile, fetch, missing_bytes, require_space

pytestmark = pytest.mark.timeout(60)

BODY = random.Random(1).randbytes(1_500_000)
OTHER = random.Random(2).randbytes(1_500_000)
QUICK = Patience(connect=5, read=5, tries=3, pause=0.01)
SCRIPT = """
import json, resource, sys
from pathlib import Path
from loupe.datasets.fetch import FetchError, Patience, RemoteFile, fetch
facts, limit = json.loads(sys.argv[1]), int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    fetch(RemoteFile(**facts), Path("cache"), patience=Patience(pause=0.01))
except FetchError as error:
    sys.exit(f"error: {error}")
"""


def known(*addresses: str, body: bytes = BODY) -> RemoteFile:
    return RemoteFile("file.zip", addresses, len(body), hashlib.sha256(body).hexdigest())


def process(file: RemoteFile, folder: Path, limit: int = 0) -> subprocess.Popen[str]:
    return python(SCRIPT, json.dumps(asdict(file)), str(limit), cwd=folder)


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def get(server: Serving, tmp_path: Path, lines: list[str]) -> Any:
    """Fetches a file into the test's cache; addresses are paths on the server."""
    server.files["/file.zip"] = BODY

    def run(*paths: str, file: RemoteFile | None = None, read: float = QUICK.read) -> bytes:
        addresses = tuple(server.url + path for path in paths or ("/file.zip",))
        wanted = file or known(*addresses)
        return fetch(wanted, tmp_path / "cache", patience=replace(QUICK, read=read), say=lines.append).read_bytes()

    return run


def in_cache(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "cache").iterdir()} - {"file.zip.lock"}


def test_a_file_is_fetched_once(get: Any, server: Serving, tmp_path: Path) -> None:
    assert get() == BODY
    assert get() == BODY
    assert server.sent() == [len(BODY)]
    assert in_cache(tmp_path) == {"file.zip"}


def test_a_spoilt_file_in_the_cache_is_replaced(get: Any, server: Serving, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "file.zip").write_bytes(OTHER)
    assert get() == BODY
    assert server.ranges_asked() == [None]


def test_killed_half_way_the_next_run_fetches_only_the_rest(server: Serving, tmp_path: Path) -> None:
    server.files["/file.zip"] = BODY
    server.script["/file.zip"] = [("stall", 700_000)]
    part = tmp_path / "cache" / "file.zip.part"
    first = process(known(f"{server.url}/file.zip"), tmp_path)
    wait_for_bytes(part, 600_000)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=10)
    have = part.stat().st_size
    assert 600_000 <= have <= 700_000
    assert not (tmp_path / "cache" / "file.zip").exists()
    second = process(known(f"{server.url}/file.zip"), tmp_path)
    output = second.communicate(timeout=30)[0]
    assert second.returncode == 0, output
    assert "are here" in output
    assert (tmp_path / "cache" / "file.zip").read_bytes() == BODY
    assert server.ranges_asked() == [None, f"bytes={have}-"]
    assert server.sent()[1] == len(BODY) - have


def test_two_processes_at_once_fetch_it_once(server: Serving, tmp_path: Path) -> None:
    server.files["/file.zip"] = BODY
    server.rate = 100_000
    file = known(f"{server.url}/file.zip")
    first = process(file, tmp_path)
    wait_for_bytes(tmp_path / "cache" / "file.zip.part", 1)
    second = process(file, tmp_path)
    assert second.stdout is not None
    assert second.stdout.readline() == "file.zip: another process is fetching it; waiting\n"
    server.rate = 0
    outputs = [each.communicate(timeout=30)[0] for each in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert server.sent() == [len(BODY)]
    assert (tmp_path / "cache" / "file.zip").read_bytes() == BODY


def test_a_server_that_breaks_off_again_and_again_is_asked_for_the_rest(
    get: Any, server: Serving, lines: list[str]
) -> None:
    server.script["/file.zip"] = [("cut", 300_000)] * 4  # more often than `tries`: each brings something new
    assert get() == BODY
    assert "file.zip: the connection failed (it broke off); trying again in 0 s" in lines
    assert sum(server.sent()) < len(BODY) + 5 * module.CHUNK
    assert server.ranges_asked()[0] is None
    assert all(server.ranges_asked()[1:])


def test_a_server_that_falls_silent_is_asked_again(get: Any, server: Serving, lines: list[str]) -> None:
    server.script["/file.zip"] = [("stall", 400_000)]
    assert get(read=0.5) == BODY
    assert server.ranges_asked()[1] is not None
    assert "file.zip: the connection failed (Read timed out); trying again in 0 s" in lines


def test_what_can_pass_is_tried_again_and_what_cannot_is_not(get: Any, server: Serving, lines: list[str]) -> None:
    server.script["/file.zip"] = [500, 429]
    assert get() == BODY
    assert [line.partition(";")[0] for line in lines[:2]] == [
        "file.zip: HTTP 500 Internal Server Error",
        "file.zip: HTTP 429 Too Many Requests",
    ]
    with pytest.raises(FetchError, match=r"file.zip could not be fetched.*\n.*/gone: HTTP 404 Not Found"):
        get("/gone", file=known(f"{server.url}/gone", body=OTHER))
    assert sum(request.path == "/gone" for request in server.requests) == 1


def test_the_next_address_goes_on_where_the_first_stopped(get: Any, server: Serving) -> None:
    server.files["/first.zip"] = BODY
    server.script["/first.zip"] = [("cut", 500_000), 503, 503, 503]
    assert get("/none.zip", "/first.zip", "/file.zip") == BODY
    last = server.requests[-1]
    assert last.path == "/file.zip"
    assert last.range is not None
    assert last.sent <= len(BODY) - 500_000 + module.CHUNK


def test_nobody_listens(tmp_path: Path, lines: list[str]) -> None:
    with pytest.raises(
        FetchError, match=r"  http://127.0.0.1:9/file.zip: the connection failed \(Connection refused\)$"
    ):
        fetch(known("http://user:secret@127.0.0.1:9/file.zip?key=1"), tmp_path, patience=QUICK, say=lines.append)
    assert len(lines) == QUICK.tries - 1


def test_a_wrong_checksum_goes_on_to_the_next_address(get: Any, server: Serving, tmp_path: Path) -> None:
    server.files["/wrong.zip"] = OTHER
    assert get("/wrong.zip", "/file.zip") == BODY
    with pytest.raises(FetchError, match=r"/wrong.zip: wrong checksum"):
        get(file=known(f"{server.url}/wrong.zip", body=BODY[:-1] + b"!"))
    assert in_cache(tmp_path) == set(), "neither the file nor a part of it"


def test_a_part_from_elsewhere_is_not_held_against_an_address(get: Any, server: Serving) -> None:
    server.files["/wrong.zip"] = OTHER
    server.script["/wrong.zip"] = [("cut", 700_000), 404]
    assert get("/wrong.zip", "/file.zip") == BODY
    assert server.ranges_asked()[-1] is None, "from the beginning, at the same address"


def test_a_page_instead_of_the_file_leaves_the_part_alone(get: Any, server: Serving, tmp_path: Path) -> None:
    server.script["/file.zip"] = [("cut", 600_000), 404]
    with pytest.raises(FetchError, match=r"are kept in .*file.zip.part. Run again"):
        get()
    have = (tmp_path / "cache" / "file.zip.part").stat().st_size
    assert missing_bytes(known(), tmp_path / "cache") == len(BODY) - have
    server.files["/login"] = b"<html>please log in</html>"
    server.ranges = False
    with pytest.raises(FetchError, match="it has 26 bytes there instead of 1500000"):
        get("/login")
    server.ranges = True
    assert get() == BODY
    assert server.ranges_asked()[-1] == f"bytes={have}-"


@pytest.mark.parametrize("sha256", [True, False])
def test_a_server_without_ranges_starts_over(get: Any, server: Serving, sha256: bool) -> None:
    server.ranges = False
    server.script["/file.zip"] = [("cut", 600_000)]
    file = known(f"{server.url}/file.zip") if sha256 else RemoteFile("file.zip", (f"{server.url}/file.zip",))
    assert get(file=file) == BODY
    assert server.sent()[-1] == len(BODY)


@pytest.mark.parametrize("lengths", [True, False])
def test_without_a_checksum_it_continues_only_the_same_file(get: Any, server: Serving, lengths: bool) -> None:
    server.lengths = lengths
    file = RemoteFile("file.zip", (f"{server.url}/file.zip",))
    server.script["/file.zip"] = [("cut", 600_000), 404] if lengths else [("stall", 600_000), 404]
    with pytest.raises(FetchError, match="HTTP 404"):
        get(file=file, read=0.5)
    server.files["/file.zip"] = OTHER
    assert get(file=file) == OTHER


def test_without_a_checksum_the_server_is_asked_whether_it_has_changed(get: Any, server: Serving) -> None:
    file = RemoteFile("file.zip", (f"{server.url}/file.zip",))
    assert get(file=file) == BODY
    assert get(file=file) == BODY
    assert server.sent() == [len(BODY), 0]
    server.files["/file.zip"] = OTHER[:1000]
    assert get(file=file) == OTHER[:1000]


def test_a_server_that_ignores_if_range_is_found_out(get: Any, server: Serving) -> None:
    file = RemoteFile("file.zip", (f"{server.url}/file.zip",))
    server.script["/file.zip"] = [("cut", 600_000), 404]
    with pytest.raises(FetchError):
        get(file=file)
    server.files["/file.zip"] = OTHER
    server.conditions = False
    assert get(file=file) == OTHER
    assert [request.range is None for request in server.requests] == [True, False, False, True]


def test_an_empty_file_replaces_what_was_there(get: Any, server: Serving) -> None:
    file = RemoteFile("file.zip", (f"{server.url}/file.zip",))
    assert get(file=file) == BODY
    server.files["/file.zip"] = b""
    assert get(file=file) == b""


def test_without_checksum_and_validator_it_starts_over(get: Any, server: Serving) -> None:
    server.validators = False
    server.script["/file.zip"] = [("cut", 600_000)]
    assert get(file=RemoteFile("file.zip", (f"{server.url}/file.zip",))) == BODY
    assert server.ranges_asked() == [None, None]


def test_killed_after_the_last_byte(get: Any, server: Serving, tmp_path: Path) -> None:
    for file in (known(f"{server.url}/file.zip"), RemoteFile("file.zip", (f"{server.url}/file.zip",))):
        assert get(file=file) == BODY
        (tmp_path / "cache" / "file.zip").rename(tmp_path / "cache" / "file.zip.part")
        sent = sum(server.sent())
        assert get(file=file) == BODY
        assert sum(server.sent()) == sent
        (tmp_path / "cache" / "file.zip").unlink()


def test_progress_in_plain_lines(get: Any, server: Serving, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPORT_SECONDS", 0.1)
    server.rate = 3_000_000
    get()
    assert lines[0] == f"file.zip: 1.50MB from {server.url}/file.zip"
    assert any("%" in line and "/s" in line and "<" in line for line in lines[1:]), "share, rate and time left"


def test_too_little_room_is_said_before_the_first_byte(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"1.00EB are needed on this disk and .* are free; make room"):
        require_space([(tmp_path / "a" / "b", 10**18 - 1), (tmp_path / "c", 1)])
    require_space([(tmp_path, 1)])


def test_a_limit_on_files_met_half_way(server: Serving, tmp_path: Path) -> None:
    server.files["/file.zip"] = BODY
    file = known(f"{server.url}/file.zip")
    limited = process(file, tmp_path, limit=500_000)
    output = limited.communicate(timeout=30)[0]
    assert limited.returncode == 1
    assert "file.zip.part: File too large. What has come is kept" in output
    assert "Traceback" not in output
    assert in_cache(tmp_path) == {"file.zip.part"}
    have = (tmp_path / "cache" / "file.zip.part").stat().st_size
    assert have > 400_000
    assert fetch(file, tmp_path / "cache", say=print).read_bytes() == BODY
    assert server.ranges_asked()[-1] == f"bytes={have}-"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk(server: Serving, small_disk: Path) -> None:
    server.files["/file.zip"] = BODY
    file = RemoteFile("file.zip", (f"{server.url}/file.zip",))
    with pytest.raises(FetchError, match=r"1.50MB are needed on this disk and 1.05MB are free"):
        fetch(file, small_disk, say=print)
    assert not (small_disk / "file.zip.part").exists()
    server.lengths = False  # now it cannot know before
    with pytest.raises(FetchError, match=r"file.zip.part: No space left on device"):
        fetch(file, small_disk, say=print)
    assert not (small_disk / "file.zip").exists()
