"""A real HTTP server on loopback that serves bytes from memory, by ranges, and misbehaves when it is told to."""

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Step = int | tuple[str, int]  # an HTTP status; ("cut", n): n bytes, then the end; ("stall", n): n bytes, then nothing


@dataclass
class Request:
    """What one request asked for, and how many bytes of the body were sent."""

    path: str
    range: str | None
    sent: int = 0


@dataclass
class Serving:
    """Behaviour of a running server, to be changed at any time.

    files: bodies by path. script: by path, what the next requests get instead. ranges: whether `Range` is honoured.
    validators: whether ETag is sent. conditions: whether `If-Range` is understood. lengths: whether Content-Length is
    sent. rate: bytes a second, 0 for no limit. requests: in the order of their arrival.
    """

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    script: dict[str, list[Step]] = field(default_factory=dict)
    ranges: bool = True
    validators: bool = True
    conditions: bool = True
    lengths: bool = True
    rate: int = 0
    requests: list[Request] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def sent(self) -> list[int]:
        """Bytes sent for each request."""
        return [request.sent for request in self.requests]

    def ranges_asked(self) -> list[str | None]:
        """The `Range` of each request."""
        return [request.range for request in self.requests]


@contextmanager
def serve() -> Iterator[Serving]:
    """A server on a free loopback port until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self, serving)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    serving = Serving(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield serving
    finally:
        serving.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def answer(to: BaseHTTPRequestHandler, serving: Serving) -> None:
    asked = to.headers.get("Range")
    request = Request(to.path, asked)
    serving.requests.append(request)
    steps = serving.script.get(to.path, [])
    step = steps.pop(0) if steps else 200
    body = serving.files.get(to.path)
    if body is None or (isinstance(step, int) and step != 200):
        to.send_response(step if isinstance(step, int) and step != 200 else 404)
        to.send_header("Content-Length", "0")
        to.end_headers()
        return
    tag = f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
    start = 0
    same = not serving.conditions or to.headers.get("If-Range") in (None, tag)
    if serving.ranges and asked and same:
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])  # type: ignore[index]
        to.send_response(206 if start < len(body) else 416)
        given = f"{start}-{len(body) - 1}" if start < len(body) else "*"
        to.send_header("Content-Range", f"bytes {given}/{len(body)}")
    else:
        to.send_response(200)
    if serving.validators:
        to.send_header("ETag", tag)
    if serving.lengths:
        to.send_header("Content-Length", str(max(len(body) - start, 0)))
    to.end_headers()
    end = len(body) if isinstance(step, int) else start + step[1]
    try:
        while start < end:
            piece = body[start : min(start + 16384, end)]
            to.wfile.write(piece)
            start += len(piece)
            request.sent += len(piece)
            if serving.rate:
                time.sleep(len(piece) / serving.rate)
    except OSError:
        return  # the client has gone
    if step == ("stall", request.sent):
        serving.closing.wait(10)
