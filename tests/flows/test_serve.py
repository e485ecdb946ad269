"""The server of the reports gives the files of its folder to browsers on this machine, and nothing else to nobody."""

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.serve import server


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a report, and a secret beside it."""
    report = tmp_path / "reports" / "run" / "evaluation"
    report.mkdir(parents=True)
    (report / "index.html").write_text("<p>page</p>")
    for name in ("plot.svg", "table.csv", "data.json", "picture.webp", "script.js", "odd.exe", ".hidden"):
        (report / name).write_text(name)
    (tmp_path / "secret.txt").write_text("secret")
    (report / "out.txt").symlink_to(tmp_path / "secret.txt")
    (report.parent / "away").symlink_to(tmp_path)
    (report.parent / "page").mkdir()
    (report.parent / "page" / "index.html").symlink_to(tmp_path / "secret.txt")
    return tmp_path / "reports"


@pytest.fixture
def port(place: Path) -> Iterator[int]:
    """Where a server of the place answers."""
    pages = server(place, 0)
    thread = threading.Thread(target=pages.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield pages.server_port
    pages.shutdown()
    thread.join()
    pages.server_close()


def get(port: int, path: str, method: str = "GET", host: str = "") -> http.client.HTTPResponse:
    """One answer, its body read; the path goes over the wire as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest(method, path, skip_host=bool(host))
    if host:
        connection.putheader("Host", host)
    connection.endheaders()
    response = connection.getresponse()
    response.body = response.read()  # type: ignore[attr-defined]
    connection.close()
    return response


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("", "text/html; charset=utf-8"),
        ("index.html", "text/html; charset=utf-8"),
        ("plot.svg", "image/svg+xml"),
        ("table.csv", "text/csv; charset=utf-8"),
        ("data.json", "application/json"),
        ("picture.webp", "image/webp"),
        ("script.js", "text/javascript; charset=utf-8"),
        ("odd.exe", "application/octet-stream"),
    ],
)
def test_files_come_with_their_type(port: int, name: str, kind: str) -> None:
    response = get(port, f"/run/evaluation/{name}")
    assert response.status == 200
    assert response.headers["Content-Type"] == kind
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    head = get(port, f"/run/evaluation/{name}", "HEAD")
    assert (head.status, head.headers["Content-Length"]) == (200, response.headers["Content-Length"])


@pytest.mark.parametrize(
    "path",
    [
        "/",  # folders are not listed
        "/run/",
        "/run",
        "/run/evaluation/absent.html",
        "/run/evaluation/.hidden",
        "/../secret.txt",
        "/run/%2e%2e/%2e%2e/secret.txt",
        "/run/evaluation/..%2f..%2f..%2fsecret.txt",
        "/run/evaluation/out.txt",  # links that lead out
        "/run/away/secret.txt",
        "/run/page/",
        "/run/page",
        "/run/evaluation/index.html%00.txt",
        "//etc/passwd",
    ],
)
def test_nothing_else_is_given(port: int, path: str) -> None:
    response = get(port, path)
    assert response.status == 404
    assert b"secret" not in response.body  # type: ignore[attr-defined]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:4210", "127.0.0.1.evil.example", "[::ffff:1]", "]"])
def test_other_names_than_loopback_s_are_refused(port: int, host: str) -> None:
    assert get(port, "/run/evaluation/index.html", host=host).status == 403
    assert get(port, "/run/evaluation/index.html", host=f"localhost:{port}").status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_sent(port: int, method: str) -> None:
    assert get(port, "/run/evaluation/index.html", method).status == 501


def test_it_listens_on_loopback_alone(place: Path) -> None:
    with server(place, 0) as pages:
        assert pages.server_address[0] == "127.0.0.1"
