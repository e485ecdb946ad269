"""A proxy on loopback that stands between a client and an S3 server, and misbehaves when it is told to."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Step = (
    int | tuple[str, int]
)  # an HTTP status; ("cut", n) or ("stall", n): n bytes of the answer, then its end or nothing
SKIPPED = ("connection", "transfer-encoding", "content-length")


@dataclass
class Flaky:
    """A running proxy.

    script: by method and the end of a path, what the next such requests get instead: a status without asking the
    server; ("cut", n) or ("stall", n) after asking it; ("deaf", 0) asks it and never says what it answered. requests:
    method, path and `Range` of each request.
    """

    url: str
    script: dict[tuple[str, str], list[Step]] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)
    alone: threading.Lock = field(
        default_factory=threading.Lock
    )  # a real S3 decides on one write at a time; moto may not

    def gets(self, end: str) -> list[str | None]:
        """The ranges of all downloads of what ends so."""
        return [range_ for method, path, range_ in self.requests if method == "GET" and path.endswith(end)]


@contextmanager
def flaky(target: str) -> Iterator[Flaky]:
    """A proxy for the server at `target`, on a free port until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            forward(self, proxy, target)

        do_PUT = do_HEAD = do_DELETE = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy = Flaky(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def forward(to: BaseHTTPRequestHandler, proxy: Flaky, target: str) -> None:
    to.close_connection = True
    body = to.rfile.read(int(to.headers.get("Content-Length", 0)))
    path = to.path.partition("?")[0]
    proxy.requests.append((to.command, path, to.headers.get("Range")))
    steps = next((steps for (m, end), steps in proxy.script.items() if m == to.command and path.endswith(end)), [])
    step = steps.pop(0) if steps else None
    if isinstance(step, int):
        to.send_response(step)
        to.send_header("Content-Length", "0")
        to.end_headers()
        return
    connection = http.client.HTTPConnection(urlsplit(target).netloc, timeout=30)
    with proxy.alone:
        connection.request(to.command, to.path, body, dict(to.headers.items()))
        answer = connection.getresponse()
        content = answer.read()
    connection.close()
    if step and step[0] == "deaf":
        return
    to.send_response(answer.status)
    for name, value in answer.headers.items():
        if name.lower() not in SKIPPED:
            to.send_header(name, value)
    length = answer.headers["Content-Length"] if to.command == "HEAD" else str(len(content))
    to.send_header("Content-Length", length)
    to.end_headers()
    if to.command != "HEAD":
        to.wfile.write(content if step is None else content[: step[1]])
    if step and step[0] == "stall":
        to.wfile.flush()
        proxy.closing.wait(10)
