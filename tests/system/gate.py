"""The way to AWS in tests: a real HTTP server before moto's that hands everything on, and on command fails as AWS does.

    gate = Gate(s3_endpoint)                     # clients get gate.url as AWS_ENDPOINT_URL
    gate.fail("RunInstances", "InsufficientInstanceCapacity", times=3)
    gate.fail("s3", "SlowDown", seconds=60)      # a whole service
    gate.fail("ec2", "ExpiredToken", when=lambda request: request.key == "AKIALAUNCHER")
    gate.asked("RunInstances")                   # every request is kept

Where moto is more lenient than EC2, and a launcher could be wrong without anybody seeing it, the gate is as strict:

- RunInstances with a ClientToken that was used before launches nothing: it gets the first answer again.
- What a launch template says holds for the instance, unless the request says otherwise; moto takes some of it only.
- User-data may have 16384 bytes.
- With `lag`, a new instance is missing from DescribeInstances at first, as happens at EC2.
- With `page`, a list comes in small pages, as EC2 does it with a long one.
- Prices of spot machines, and where types are offered, can be given; moto's price is the same for all.
"""

import base64
import contextlib
import fnmatch
import hashlib
import http.client
import json
import re
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit
from uuid import uuid4
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

CUT = "cut"  # the connection ends without an answer, and nothing has been done
LOST = "lost"  # the request is carried out, then the connection ends: the answer is lost on the way
# What AWS answers with: an HTTP status that clients take for "try again" (5xx, or the code is known) or for an end.
# Capacity is a 500 at EC2: botocore tries such a request again before its caller hears of it.
STATUS = {
    "InsufficientInstanceCapacity": 500,
    "InternalError": 500,
    "RequestLimitExceeded": 503,
    "ServiceUnavailable": 503,
    "SlowDown": 503,
    "Unavailable": 503,
    "AccessDenied": 403,
    "InvalidAccessKeyId": 403,
    "UnauthorizedOperation": 403,
    "AuthFailure": 401,
}
OTHERS = 400
EC2 = "http://ec2.amazonaws.com/doc/2016-11-15/"
USER_DATA_BYTES = 16384
HOP_BY_HOP = {"connection", "content-length", "date", "expect", "keep-alive", "server", "te", "transfer-encoding"}
UPSTREAM_SECONDS = 60.0
Price = float | Sequence[tuple[datetime, float]]


@dataclass
class Request:
    """A request that arrived.

    service: as it is signed, such as ec2. action: RunInstances or GetParameter; of S3 `PUT /bucket/key`. parameters: of
    the query protocol by their names on the wire (`InstanceMarketOptions.MarketType`), of JSON its top level, of S3 the
    query. key: the access key's id that signed it. time: when it arrived, of time.monotonic. status: of the answer; 0
    without one. fault: what the gate did to it, such as SlowDown.
    """

    service: str
    action: str
    region: str
    parameters: dict[str, str]
    key: str
    time: float
    status: int = 0
    fault: str = ""

    def concerns(self, what: str) -> bool:
        """Whether `what` is the service, or a pattern of the action such as `Describe*` or `PUT /bucket/runs/*`."""
        return what == self.service or fnmatch.fnmatchcase(self.action, what)

    def values(self, name: str) -> list[str]:
        """A list of the query protocol: the values of NAME.1, NAME.2 and so on."""
        found = [(key, value) for key, value in self.parameters.items() if re.fullmatch(rf"{name}\.\d+", key)]
        return [value for _, value in sorted(found, key=lambda pair: int(pair[0].rpartition(".")[2]))]

    def filters(self) -> dict[str, list[str]]:
        """The filters of a Describe action."""
        names = {key.split(".")[1]: value for key, value in self.parameters.items() if FILTER.fullmatch(key)}
        return {name: self.values(f"Filter.{number}.Value") for number, name in names.items()}


FILTER = re.compile(r"Filter\.\d+\.Name")


@dataclass
class Fault:
    """An error that requests get. It holds until `times` requests had it, or the time is over, or `stop`."""

    what: str
    code: str
    times: int | None
    until: float
    when: Callable[[Request], bool]
    hits: int = 0
    _hit: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        """Ends it."""
        self.times = 0

    def wait(self, seconds: float) -> bool:
        """Whether a request has had it within so many seconds; what is to be carried out has been by then."""
        return self._hit.wait(seconds)


@dataclass(frozen=True)
class Answer:
    """What goes back to the client. length: what HEAD says of a body that it has not."""

    status: int
    body: bytes
    headers: Sequence[tuple[str, str]] = ()
    length: str = ""


class Gate:
    """A running server; `close` ends it. Also a context manager."""

    def __init__(self, upstream: str) -> None:
        """Starts to listen.

        Args:
            upstream: the address of moto's server.
        """
        self.upstream = upstream
        self.lag = 0.0  # seconds for which a new instance is not yet described
        self.page = 1000  # launches, or spot prices, on a page, unless the request says how many
        self.requests: list[Request] = []
        self.consoles: dict[str, Callable[[], bytes]] = {}  # what GetConsoleOutput says, by instance
        self.reasons: dict[str, tuple[str, str]] = {}  # code and message of why an instance ended, by instance
        self.broken: list[str] = []  # tracebacks of the gate itself
        self._host, self._port = urlsplit(upstream).hostname or "", urlsplit(upstream).port or 80
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._prices: dict[tuple[str, str], Price] | None = None
        self._offerings: dict[str, Sequence[str]] | None = None
        self.launching = threading.Lock()  # held while moto makes an instance, which lacks its role at first
        self._launches: dict[str, tuple[str, Answer]] = {}  # by ClientToken: hash of the request, answer
        self._launched: dict[str, float] = {}
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Gate":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the server and all its connections.

        Raises:
            AssertionError: the gate itself failed on a request.
        """
        self._server.close()
        assert not self.broken, "\n".join(self.broken)

    # ------------------------------------------------------------------------------------------ what tests say

    def fail(
        self,
        what: str,
        code: str,
        *,
        times: int | None = None,
        seconds: float | None = None,
        when: Callable[[Request], bool] = lambda _: True,
    ) -> Fault:
        """From now on requests fail.

        Args:
            what: a service (`ec2`, `s3`, `ssm`, `sts`) or a pattern of actions (`RunInstances`, `PUT /bucket/*`).
            code: of the error at AWS, such as RequestLimitExceeded; or CUT or LOST.
            times: so many requests; a client's own tries again count. None for no limit.
            seconds: for so long; None for no limit.
            when: chooses among the requests.
        """
        until = time.monotonic() + seconds if seconds is not None else float("inf")
        fault = Fault(what, code, times, until, when)
        with self._lock:
            self._faults.append(fault)
        return fault

    def heal(self) -> None:
        """Ends all faults."""
        with self._lock:
            self._faults.clear()

    def asked(self, what: str, *, key: str | None = None) -> list[Request]:
        """The requests of a service or action so far, failed ones included; with `key` those it signed."""
        with self._lock:
            return [request for request in self.requests if request.concerns(what) and key in (None, request.key)]

    def spot_prices(self, prices: Mapping[tuple[str, str], Price] | None) -> None:
        """What DescribeSpotPriceHistory says: USD an hour by type and zone, or its changes as (time, price).

        None leaves it to moto.
        """
        self._prices = None if prices is None else dict(prices)

    def offerings(self, zones: Mapping[str, Sequence[str]] | None) -> None:
        """What DescribeInstanceTypeOfferings says: zones by type. None leaves it to moto, which knows EC2's."""
        self._offerings = None if zones is None else dict(zones)

    # ------------------------------------------------------------------------------------------ what requests get

    def answer(self, method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes) -> Answer | None:
        """What a request gets; None where its connection is to end without an answer."""
        request = _understand(method, target, headers, body)
        with self._lock:
            self.requests.append(request)
            fault = self._fault(request)
        if fault is None or fault.code == LOST:
            answer: Answer | None = self._carry_out(request, method, target, headers, body)
        else:
            answer = None if fault.code == CUT else _refusal(request, fault.code, "by order of a test")
        if fault:
            request.fault = fault.code
            fault._hit.set()
            if fault.code == LOST:
                answer = None
        request.status = answer.status if answer else 0
        return answer

    def _fault(self, request: Request) -> Fault | None:
        now = time.monotonic()
        for fault in self._faults:
            alive = now < fault.until and (fault.times is None or fault.hits < fault.times)
            if alive and request.concerns(fault.what) and fault.when(request):
                fault.hits += 1
                return fault
        return None

    def _carry_out(
        self, request: Request, method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes
    ) -> Answer:
        if request.service != "ec2":
            return self._forward(method, target, headers, body)
        match request.action:
            case "RunInstances":
                return self._launch(request, method, target, headers)
            case "DescribeSpotPriceHistory" if self._prices is not None:
                return _response(request, _spot_history(request, self._prices, self.page))
            case "DescribeInstanceTypeOfferings" if self._offerings is not None:
                return _response(request, _offered(request, self._offerings))
            case "GetConsoleOutput" if request.parameters.get("InstanceId") in self.consoles:
                return _response(request, self._console(request.parameters["InstanceId"]))
            case "DescribeInstances":
                if "MaxResults" not in request.parameters and not request.values("InstanceId"):
                    body += f"&MaxResults={self.page}".encode()
                return self._describe(request, self._forward(method, target, headers, body))
        return self._forward(method, target, headers, body)

    def _forward(self, method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes) -> Answer:
        """Hands a request to moto with all its headers, Host among them, since the signature covers it."""
        moto = http.client.HTTPConnection(self._host, self._port, timeout=UPSTREAM_SECONDS)
        with contextlib.closing(moto):
            moto.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in headers:
                if name.lower() not in HOP_BY_HOP:
                    moto.putheader(name, value)
            moto.putheader("Content-Length", str(len(body)))
            moto.putheader("Connection", "close")
            moto.endheaders(body or None)
            got = moto.getresponse()
            content = got.read()
            kept = [(name, value) for name, value in got.getheaders() if name.lower() not in HOP_BY_HOP]
            return Answer(got.status, content, kept, got.headers.get("Content-Length", "") if method == "HEAD" else "")

    def _launch(self, request: Request, method: str, target: str, headers: Sequence[tuple[str, str]]) -> Answer:
        """RunInstances as EC2 does it: once for a ClientToken, by the launch template, with little user-data."""
        asked = dict(request.parameters)
        token = asked.pop("ClientToken", "")
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        with self.launching:
            if token in self._launches:
                first, answer = self._launches[token]
                if first == digest:
                    return answer
                return _refusal(request, "IdempotentParameterMismatch", "the ClientToken was used for other parameters")
            if len(base64.b64decode(asked.get("UserData", ""))) > USER_DATA_BYTES:
                return _refusal(request, "InvalidParameterValue", f"User data is limited to {USER_DATA_BYTES} bytes")
            merged = self._with_template(request)
            if isinstance(merged, Answer):
                return merged
            answer = self._forward(method, target, headers, urlencode(merged).encode())
            if answer.status == 200:
                born = time.monotonic()
                for instance in re.findall(r"<instanceId>(i-\w+)</instanceId>", answer.body.decode()):
                    self._launched[instance] = born
                if token:
                    self._launches[token] = (digest, answer)
            return answer

    def _with_template(self, request: Request) -> dict[str, str] | Answer:
        """The request's parameters, and those of its launch template that it does not give itself; tags are united."""
        given = dict(request.parameters)
        chosen = {key.partition(".")[2]: value for key, value in given.items() if key.startswith("LaunchTemplate.")}
        if not chosen:
            return given
        import botocore.exceptions
        import botocore.serialize

        ec2 = client("ec2", self.upstream, request.region)
        version = chosen.pop("Version", "$Default")
        try:
            found = ec2.describe_launch_template_versions(**chosen, Versions=[version])["LaunchTemplateVersions"]
        except botocore.exceptions.ClientError as error:
            return _refusal(request, error.response["Error"]["Code"], error.response["Error"]["Message"])
        if not found:
            return _refusal(request, "InvalidLaunchTemplateId.NotFound", "there is no such launch template")
        operation = ec2.meta.service_model.operation_model("RunInstances")
        data = found[0]["LaunchTemplateData"]
        known = {key: value for key, value in data.items() if value and key in operation.input_shape.members}
        wire = botocore.serialize.create_serializer("ec2", include_validation=False)
        said = {key: str(value) for key, value in wire.serialize_to_request(known, operation)["body"].items()}
        tags = _tags(said)
        for resource, own in _tags(given).items():
            tags.setdefault(resource, {}).update(own)
        groups = {key.partition(".")[0] for key in given}
        merged = {key: value for key, value in said.items() if key.partition(".")[0] not in groups} | given
        merged = {key: value for key, value in merged.items() if not key.startswith("TagSpecification.")}
        for number, (resource, pairs) in enumerate(tags.items(), 1):
            merged[f"TagSpecification.{number}.ResourceType"] = resource
            for place, (key, value) in enumerate(pairs.items(), 1):
                merged[f"TagSpecification.{number}.Tag.{place}.Key"] = key
                merged[f"TagSpecification.{number}.Tag.{place}.Value"] = value
        return merged

    def _console(self, instance: str) -> str:
        text = base64.b64encode(self.consoles[instance]()[-65536:]).decode()
        moment = _stamp(datetime.now(UTC))
        return f"<instanceId>{instance}</instanceId><timestamp>{moment}</timestamp><output>{text}</output>"

    def _describe(self, request: Request, answer: Answer) -> Answer:
        """DescribeInstances, with why instances ended, and without those that are too new."""
        fresh = {name for name, born in self._launched.items() if time.monotonic() < born + self.lag}
        if named := fresh.intersection(request.values("InstanceId")):
            return _refusal(request, "InvalidInstanceID.NotFound", f"The instance ID '{min(named)}' does not exist")
        if answer.status != 200 or not (fresh or self.reasons):
            return answer
        root = ET.fromstring(answer.body)  # noqa: S314 - moto's own
        space = {"": root.tag.partition("}")[0].lstrip("{")}
        for instances in root.iterfind(".//instancesSet", space):
            for item in list(instances):
                name = item.findtext("instanceId", "", space)
                if name in fresh:
                    instances.remove(item)
                elif name in self.reasons:
                    for place, text in zip(
                        ("stateReason/code", "stateReason/message"), self.reasons[name], strict=True
                    ):
                        if (element := item.find(place, space)) is not None:
                            element.text = text
        body = ET.tostring(root, encoding="utf-8", xml_declaration=True, default_namespace=space[""])
        return Answer(answer.status, body, answer.headers)


# ---------------------------------------------------------------------------------------------- requests and answers


def client(service: str, endpoint: str, region: str) -> Any:
    """A client of moto's server for the tests' own needs, whatever the environment says."""
    import boto3

    with _CLIENTS_LOCK:  # a session is not for several threads; its clients are
        if (service, endpoint, region) not in _CLIENTS:
            session = boto3.Session("simulator", "simulator", region_name=region)
            _CLIENTS[service, endpoint, region] = session.client(service, endpoint_url=endpoint)
        return _CLIENTS[service, endpoint, region]


_CLIENTS: dict[tuple[str, str, str], Any] = {}
_CLIENTS_LOCK = threading.Lock()


def _understand(method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes) -> Request:
    given = {name.lower(): value for name, value in headers}
    parts = urlsplit(target)
    parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
    signed = given.get("authorization", "") or f"Credential={parameters.get('X-Amz-Credential', '')}"
    scope = re.search(r"Credential=([^/,]+)/\d+/([^/]+)/([^/]+)/aws4_request", signed)
    key, region, service = scope.groups() if scope else ("", "us-east-1", "s3")
    action = f"{method} {unquote(parts.path)}"
    if service != "s3" and given.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        parameters = dict(parse_qsl(body.decode(), keep_blank_values=True))
        action = parameters.get("Action", action)
    elif "x-amz-target" in given:
        action = given["x-amz-target"].rpartition(".")[2]
        parameters = {name: str(value) for name, value in json.loads(body or b"{}").items()}
    return Request(service, action, region, parameters, key, time.monotonic())


def _refusal(request: Request, code: str, message: str) -> Answer:
    """An error as the service writes it: each in a form of its own."""
    status, number, says = STATUS.get(code, OTHERS), str(uuid4()), escape(message)
    error = f"<Code>{escape(code)}</Code><Message>{says}</Message>"
    if request.service == "s3":
        text = "" if request.action.startswith("HEAD ") else f"<Error>{error}<RequestId>{number}</RequestId></Error>"
        return Answer(status, text.encode(), [("Content-Type", "application/xml"), ("x-amz-request-id", number)])
    if "Action" not in request.parameters:
        text = json.dumps({"__type": code, "message": message})
        return Answer(status, text.encode(), [("Content-Type", "application/x-amz-json-1.1")])
    if request.service == "ec2":
        text = f"<Response><Errors><Error>{error}</Error></Errors><RequestID>{number}</RequestID></Response>"
    else:
        text = (
            f"<ErrorResponse><Error><Type>Sender</Type>{error}</Error><RequestId>{number}</RequestId></ErrorResponse>"
        )
    return Answer(status, text.encode(), [("Content-Type", "text/xml")])


def _response(request: Request, content: str) -> Answer:
    name = f"{request.action}Response"
    text = f'<{name} xmlns="{EC2}"><requestId>{uuid4()}</requestId>{content}</{name}>'
    return Answer(200, text.encode(), [("Content-Type", "text/xml")])


def _items(name: str, items: Iterable[Mapping[str, str]]) -> str:
    """A list in EC2's XML."""
    rows = ("".join(f"<{key}>{escape(value)}</{key}>" for key, value in item.items()) for item in items)
    return f"<{name}>" + "".join(f"<item>{row}</item>" for row in rows) + f"</{name}>"


def _chosen(value: str, patterns: Sequence[str] | None) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(value, pattern) for pattern in patterns)


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _spot_history(request: Request, prices: Mapping[tuple[str, str], Price], page: int) -> str:
    """Changes between StartTime and EndTime, and before them the one that held at StartTime; newest first."""
    filters, product = request.filters(), "Linux/UNIX"
    zone = request.parameters.get("AvailabilityZone")
    start, end = (
        datetime.fromisoformat(request.parameters[name]) if name in request.parameters else datetime.now(UTC)
        for name in ("StartTime", "EndTime")
    )
    if "StartTime" not in request.parameters:
        start -= timedelta(days=90)
    rows: list[tuple[datetime, dict[str, str]]] = []
    if _chosen(product, request.values("ProductDescription")) and _chosen(product, filters.get("product-description")):
        for (kind, place), price in prices.items():
            types = request.values("InstanceType") + filters.get("instance-type", [])
            if not _chosen(kind, types) or not _chosen(place, [zone] if zone else filters.get("availability-zone")):
                continue
            changes = [(datetime(2025, 1, 1, tzinfo=UTC), price)] if isinstance(price, int | float) else sorted(price)
            before = [change for change in changes if change[0] <= start][-1:]
            for moment, usd in before + [change for change in changes if start < change[0] <= end]:
                row = {"instanceType": kind, "productDescription": product, "spotPrice": f"{usd:.6f}"}
                rows.append((moment, row | {"timestamp": _stamp(moment), "availabilityZone": place}))
    newest = sorted(rows, key=lambda row: row[0], reverse=True)
    first = int(request.parameters.get("NextToken") or 0)
    last = first + int(request.parameters.get("MaxResults", page))
    token = str(last) if last < len(newest) else ""
    return _items("spotPriceHistorySet", (row for _, row in newest[first:last])) + f"<nextToken>{token}</nextToken>"


def _offered(request: Request, offerings: Mapping[str, Sequence[str]]) -> str:
    filters, by = request.filters(), request.parameters.get("LocationType", "region")
    found = []
    for kind, zones in offerings.items():
        for place in zones if by == "availability-zone" else [request.region]:
            if _chosen(kind, filters.get("instance-type")) and _chosen(place, filters.get("location")):
                found.append({"instanceType": kind, "location": place, "locationType": by})
    return _items("instanceTypeOfferingSet", found)


def _tags(parameters: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Tags by kind of resource, of the query protocol's TagSpecification."""
    found: dict[str, dict[str, str]] = {}
    for key, value in parameters.items():
        if name := re.fullmatch(r"(TagSpecification\.\d+\.)Tag\.\d+\.Key", key):
            resource = parameters[f"{name[1]}ResourceType"]
            found.setdefault(resource, {})[value] = parameters.get(f"{key.removesuffix('Key')}Value", "")
    return found


# ---------------------------------------------------------------------------------------------- HTTP


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, gate: Gate) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.gate = gate
        self.open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()
        for connection in list(self.open):  # clients keep connections for later; each has a thread here
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: object) -> None:
        """A client that has gone, such as a machine that lost its power, is no error here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # and with it the answer to `Expect: 100-continue`
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def pass_on(self) -> None:
        body = self._body()
        if body is None:  # cut off on the way: AWS, too, does nothing then
            self.close_connection = True
            return
        try:
            answer = self.server.gate.answer(self.command, self.path, self.headers.items(), body)
        except (OSError, http.client.HTTPException):  # moto has gone
            answer = None
        except Exception:
            self.server.gate.broken.append(traceback.format_exc())
            answer = Answer(500, b"")
        if answer is None:
            self.close_connection = True
            return
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if answer.status not in (204, 304):
            self.send_header("Content-Length", answer.length or str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = do_OPTIONS = pass_on  # noqa: N815

    def _body(self) -> bytes | None:
        """The whole body; None where the client has gone before its end."""
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            return body if len(body) == length else None
        pieces = []
        while True:
            line = self.rfile.readline().partition(b";")[0].strip()
            if not line:
                return None
            size = int(line, 16)
            piece = self.rfile.read(size)
            if len(piece) < size:
                return None
            pieces.append(piece)
            end = self.rfile.readline()
            if size:
                continue
            while end.strip():  # trailers
                end = self.rfile.readline()
            return b"".join(pieces)

    def log_message(self, format: str, *args: object) -> None:
        pass
