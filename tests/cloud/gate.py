"""A real HTTP server on loopback before moto's EC2: it answers what it is told to, and passes on the rest.

moto never lacks capacity, never throttles, ignores ClientToken, and has the same spot price everywhere since 2006.
"""

import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

Parameters = Mapping[str, str]  # of a request, such as {"Action": "RunInstances", "InstanceType": "g5.xlarge"}
Reply = tuple[int, str]  # status and XML
Answer = Callable[[Parameters], Reply | None]  # None: what moto says


@dataclass
class Gate:
    """A running gate. answers: by action, one for each coming request, then moto's. always: by action, for all."""

    url: str
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    always: dict[str, Answer] = field(default_factory=dict)
    requests: list[Parameters] = field(default_factory=list)

    def asked(self, action: str) -> list[Parameters]:
        """The requests of one action, in the order of their arrival."""
        return [request for request in self.requests if request["Action"] == action]


def error(code: str, message: str = "as the test told it to", status: int = 400) -> Answer:
    """EC2's error."""
    xml = f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors></Response>"
    return lambda _: (status, xml)


def reply(action: str, content: str) -> Reply:
    """EC2's answer that all is well."""
    name = f"{action}Response"
    return 200, f'<{name} xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">{content}</{name}>'


def spot_market(prices: Sequence[tuple[str, str, str, float]], page: int = 2) -> Answer:
    """DescribeSpotPriceHistory as EC2 does it: the changes since a time, the last before it, newest first, in pages.

    Args:
        prices: type, zone, time (as 2026-01-31T12:00:00Z) and USD an hour of each change.
        page: changes on one.
    """

    def answer(asked: Parameters) -> Reply:
        types = {value for key, value in asked.items() if key.startswith("InstanceType.")}
        zone = asked.get("Filter.1.Value.1")
        assert asked["ProductDescription.1"] == "Linux/UNIX"
        start = asked["StartTime"]
        found = []
        for place in sorted({(type_, zone) for type_, zone, _, _ in prices}):
            if place[0] in types and zone in (None, place[1]):
                changes = sorted((time, price) for type_, zone_, time, price in prices if (type_, zone_) == place)
                before = [change for change in changes if change[0] <= start][-1:]
                within = [change for change in changes if change[0] > start]
                found += [(*place, *change) for change in before + within]
        found.sort(key=lambda change: change[2], reverse=True)
        first = int(asked.get("NextToken", 0))
        items = "".join(
            f"<item><instanceType>{type_}</instanceType><availabilityZone>{zone}</availabilityZone>"
            f"<timestamp>{time}</timestamp><spotPrice>{price}</spotPrice></item>"
            for type_, zone, time, price in found[first : first + page]
        )
        token = first + page if first + page < len(found) else ""
        history = f"<spotPriceHistorySet>{items}</spotPriceHistorySet><nextToken>{token}</nextToken>"
        return reply("DescribeSpotPriceHistory", history)

    return answer


@contextmanager
def gate_before(moto: str) -> Iterator[Gate]:
    """A gate on a free loopback port before the server at the address `moto`, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked = {key: values[0] for key, values in parse_qs(body.decode(), keep_blank_values=True).items()}
            gate.requests.append(asked)
            action = asked["Action"]
            told = gate.answers[action].pop(0) if gate.answers.get(action) else gate.always.get(action)
            status, xml = (told(asked) if told else None) or passed_on(f"{moto}{self.path}", body, dict(self.headers))
            content = xml.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    gate = Gate(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield gate
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def passed_on(url: str, body: bytes, headers: dict[str, str]) -> Reply:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, body, headers), timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, answer.read().decode()


def at(text: str) -> datetime:
    """A time of a test, as 2026-01-31T12:00:00Z."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
