"""Does the gate hand everything on, fail as AWS does, and stay as strict as EC2 where moto is not?"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener
from uuid import uuid4

import pytest
from tests.system.gate import CUT, LOST, Gate
from tests.system.hypervisor import IMAGE, REGION, Account, account

boto3 = pytest.importorskip("boto3")
pytestmark = pytest.mark.timeout(120)
CAPACITY = "InsufficientInstanceCapacity"
Clients = Callable[..., Any]


@pytest.fixture(scope="module")
def one_gate(s3_endpoint: str) -> Iterator[Gate]:
    with Gate(s3_endpoint) as gate:
        yield gate


@pytest.fixture
def gate(one_gate: Gate) -> Iterator[Gate]:
    yield one_gate
    one_gate.heal()
    one_gate.requests.clear()
    one_gate.spot_prices(None)
    one_gate.offerings(None)


@pytest.fixture
def place(s3_endpoint: str) -> Account:
    return account(s3_endpoint, f"loupe-{uuid4().hex[:12]}")


@pytest.fixture(scope="module")
def clients(one_gate: Gate) -> Iterator[Clients]:
    """Clients whose way leads through the gate, and that try so many times."""
    from botocore.config import Config

    @cache
    def make(service: str, tries: int = 1, key: str = "AKIATEST") -> Any:
        config = Config(retries={"mode": "standard", "total_max_attempts": tries})
        return boto3.Session(key, "test", region_name=REGION).client(service, endpoint_url=one_gate.url, config=config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield make


def launch(ec2: Any, place: Account, **more: Any) -> str:
    """One machine by the launch template; its id."""
    given = {"MinCount": 1, "MaxCount": 1, "InstanceType": "g5.xlarge", "ImageId": IMAGE} | more
    template = {"LaunchTemplateId": place.launch_template, "Version": "$Latest"}
    given |= {"LaunchTemplate": template, "SubnetId": place.subnets[0]}
    return str(ec2.run_instances(**given)["Instances"][0]["InstanceId"])


def refused(call: Callable[[], object]) -> str:
    """The code with which AWS refuses."""
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError) as caught:
        call()
    return str(caught.value.response["Error"]["Code"])


# ---------------------------------------------------------------------------------------------- handing on


def test_objects_pass_unchanged(gate: Gate, clients: Clients, place: Account) -> None:
    s3 = clients("s3")
    data = bytes(range(256)) * 40000
    where = {"Bucket": place.bucket, "Key": "a folder/ünï.bin"}
    made = s3.put_object(**where, Body=data, Metadata={"note": "kept"}, IfNoneMatch="*")
    head = s3.head_object(**where)
    assert (head["ContentLength"], head["ETag"], head["Metadata"]) == (len(data), made["ETag"], {"note": "kept"})
    assert s3.get_object(**where)["Body"].read() == data
    assert s3.get_object(**where, Range="bytes=10-19")["Body"].read() == data[10:20]
    assert refused(lambda: s3.put_object(**where, Body=b"", IfNoneMatch="*")) == "PreconditionFailed"
    assert refused(lambda: s3.get_object(**where, IfNoneMatch=made["ETag"])) == "304"
    assert refused(lambda: s3.head_object(Bucket=place.bucket, Key="no such key")) == "404"
    address = s3.generate_presigned_url("get_object", Params=where)
    assert build_opener(ProxyHandler({})).open(address, timeout=10).read() == data
    assert [found["Key"] for found in s3.list_objects_v2(Bucket=place.bucket)["Contents"]] == [where["Key"]]
    s3.delete_object(**where)
    assert "Contents" not in s3.list_objects_v2(Bucket=place.bucket)
    assert {request.status for request in gate.asked(f"PUT /{place.bucket}/*")} == {200, 412}


def test_a_large_upload_in_parts_by_another_client(gate: Gate, place: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    s3fs = pytest.importorskip("s3fs")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    keys = {"key": "test", "secret": "test"}
    files = s3fs.S3FileSystem(**keys, endpoint_url=gate.url, skip_instance_cache=True)
    data = bytes(range(256)) * 50000
    with files.open(f"{place.bucket}/parts", "wb", block_size=5 << 20) as file:
        for start in range(0, len(data), 5 << 20):
            file.write(data[start : start + (5 << 20)])
    assert files.cat(f"{place.bucket}/parts") == data
    assert len(gate.asked(f"PUT /{place.bucket}/parts")) == 3


def test_bodies_in_chunks_after_a_question(gate: Gate, clients: Clients, place: Account) -> None:
    """`Expect: 100-continue` and chunked transfer, twice on one connection."""
    url = clients("s3").generate_presigned_url("put_object", Params={"Bucket": place.bucket, "Key": "chunked"})
    parts = urlsplit(url)
    head = f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nExpect: 100-continue\r\n"
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10) as connection:
        for _ in range(2):
            connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
            connection.sendall(b"5\r\nhello\r\n7;a=b\r\n, world\r\n0\r\nTrailer: x\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert clients("s3").get_object(Bucket=place.bucket, Key="chunked")["Body"].read() == b"hello, world"


def test_an_upload_that_breaks_off_leaves_nothing(gate: Gate, clients: Clients, place: Account) -> None:
    url = urlsplit(clients("s3").generate_presigned_url("put_object", Params={"Bucket": place.bucket, "Key": "half"}))
    with socket.create_connection((url.hostname or "", url.port or 0), timeout=10) as connection:
        head = f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: 10\r\n\r\n"
        connection.sendall(head.encode() + b"half")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""
    assert refused(lambda: clients("s3").head_object(Bucket=place.bucket, Key="half")) == "404"


def test_many_at_once(clients: Clients, place: Account) -> None:
    s3 = clients("s3")

    def both_ways(number: int) -> bool:
        where = {"Bucket": place.bucket, "Key": f"{number}"}
        s3.put_object(**where, Body=bytes([number]) * number * 1000)
        return bool(s3.get_object(**where)["Body"].read() == bytes([number]) * number * 1000)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(both_ways, range(64)))


def test_requests_are_kept(gate: Gate, clients: Clients, place: Account) -> None:
    clients("ssm", key="AKIAONE").get_parameter(Name=place.parameter)
    clients("sts").get_caller_identity()
    launch(clients("ec2"), place, InstanceMarketOptions={"MarketType": "spot"})
    (parameter,) = gate.asked("ssm")
    assert (parameter.action, parameter.parameters["Name"]) == ("GetParameter", place.parameter)
    assert (parameter.region, parameter.key, parameter.status) == (REGION, "AKIAONE", 200)
    (launched,) = gate.asked("Run*")
    assert (launched.service, launched.action) == ("ec2", "RunInstances")
    assert launched.parameters["InstanceMarketOptions.MarketType"] == "spot"
    assert [request.action for request in gate.asked("sts", key="AKIATEST")] == ["GetCallerIdentity"]
    assert gate.asked("sts", key="AKIAONE") == []


# ---------------------------------------------------------------------------------------------- failing


def test_no_capacity_for_the_first_calls(gate: Gate, clients: Clients, place: Account) -> None:
    gate.fail("RunInstances", CAPACITY, times=3)
    ec2 = clients("ec2")
    for _ in range(3):
        assert refused(lambda: launch(ec2, place)) == CAPACITY
    assert launch(ec2, place).startswith("i-")
    assert [request.status for request in gate.asked("RunInstances")] == [500, 500, 500, 200]


def test_no_capacity_of_a_market_or_a_type(gate: Gate, clients: Clients, place: Account) -> None:
    ec2 = clients("ec2")
    spot = {"InstanceMarketOptions": {"MarketType": "spot"}}
    market = gate.fail(
        "RunInstances", CAPACITY, when=lambda asked: asked.parameters.get("InstanceMarketOptions.MarketType") == "spot"
    )
    gate.fail("RunInstances", CAPACITY, when=lambda asked: asked.parameters["InstanceType"] == "p3.2xlarge")
    assert refused(lambda: launch(ec2, place, **spot)) == CAPACITY
    assert refused(lambda: launch(ec2, place, InstanceType="p3.2xlarge")) == CAPACITY
    launch(ec2, place)
    market.stop()
    launch(ec2, place, **spot)
    gate.heal()
    launch(ec2, place, InstanceType="p3.2xlarge")


@pytest.mark.parametrize("code", ["RequestLimitExceeded", "ExpiredToken", "UnauthorizedOperation", "RequestExpired"])
def test_errors_have_the_form_of_their_service(gate: Gate, clients: Clients, place: Account, code: str) -> None:
    for service in ("ec2", "ssm", "sts", "iam", "s3"):
        gate.fail(service, code)
    for call in (
        clients("ec2").describe_instances,
        lambda: clients("ssm").get_parameter(Name=place.parameter),
        clients("sts").get_caller_identity,
        clients("iam").list_roles,
        lambda: clients("s3").get_object(Bucket=place.bucket, Key="key"),
    ):
        assert refused(call) == code


def test_a_throttled_client_tries_again(gate: Gate, clients: Clients, place: Account) -> None:
    gate.fail("DescribeInstances", "RequestLimitExceeded", times=1)
    gate.fail("s3", "SlowDown", times=1)
    gate.fail("ssm", "ThrottlingException", times=1)
    clients("ec2", tries=2).describe_instances()
    clients("s3", tries=2).put_object(Bucket=place.bucket, Key="key", Body=b"data")
    clients("ssm", tries=2).get_parameter(Name=place.parameter)
    assert [request.fault for request in gate.asked("s3")] == ["SlowDown", ""]


def test_a_fault_passes_with_time(gate: Gate, clients: Clients, place: Account) -> None:
    s3 = clients("s3")
    gate.fail("s3", "SlowDown", seconds=0.5)
    assert refused(lambda: s3.head_bucket(Bucket=place.bucket)) == "503"
    time.sleep(0.6)
    s3.head_bucket(Bucket=place.bucket)


def test_a_connection_that_is_cut(gate: Gate, clients: Clients, place: Account) -> None:
    from botocore.exceptions import ConnectionClosedError

    gate.fail("s3", CUT)
    with pytest.raises(ConnectionClosedError):
        clients("s3").put_object(Bucket=place.bucket, Key="key", Body=b"data")
    gate.heal()
    assert "Contents" not in clients("s3").list_objects_v2(Bucket=place.bucket)
    assert [(request.fault, request.status) for request in gate.asked("PUT *")] == [(CUT, 0)]


# ---------------------------------------------------------------------------------------------- as strict as EC2


def test_a_launch_whose_answer_was_lost_is_not_repeated(gate: Gate, clients: Clients, place: Account) -> None:
    fault = gate.fail("RunInstances", LOST, times=1)
    tags = {"TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "who", "Value": place.project}]}]}
    instance = launch(clients("ec2", tries=2), place, ClientToken=f"{place.project}-1", **tags)
    assert fault.wait(0)
    assert len(gate.asked("RunInstances")) == 2

    def found() -> list[str]:
        filters = [{"Name": "tag:who", "Values": [place.project]}]
        groups = clients("ec2").describe_instances(Filters=filters)["Reservations"]
        return [one["InstanceId"] for group in groups for one in group["Instances"]]

    assert found() == [instance]
    with ThreadPoolExecutor(4) as pool:
        token = {"ClientToken": f"{place.project}-2"}
        assert len(set(pool.map(lambda _: launch(clients("ec2"), place, **token, **tags), range(4)))) == 1
    assert len(found()) == 2
    assert refused(lambda: launch(clients("ec2"), place, **token)) == "IdempotentParameterMismatch"


def test_the_launch_template_holds(clients: Clients, place: Account, s3_endpoint: str) -> None:
    ec2 = clients("ec2")
    tags = [{"ResourceType": kind, "Tags": [{"Key": "run", "Value": "7"}]} for kind in ("instance", "volume")]
    instance = launch(ec2, place, TagSpecifications=tags, InstanceMarketOptions={"MarketType": "spot"})
    (described,) = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"]
    assert described["MetadataOptions"]["HttpTokens"] == "required"
    profile = described["IamInstanceProfile"]["Arn"].rpartition("/")[2]
    (role,) = clients("iam").get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]["Roles"]
    assert role["RoleName"] == place.role
    assert described["InstanceLifecycle"] == "spot"
    assert {"Key": "run", "Value": "7"} in described["Tags"]
    volumes = ec2.describe_volumes(VolumeIds=[disk["Ebs"]["VolumeId"] for disk in described["BlockDeviceMappings"]])
    (volume,) = volumes["Volumes"]
    assert (volume["VolumeType"], volume["Encrypted"], volume["Size"]) == ("gp3", True, 150)
    own, given = ({"Key": "loupe:project", "Value": place.project}, {"Key": "run", "Value": "7"})
    assert sorted(volume["Tags"], key=lambda tag: str(tag["Key"])) == [own, given]
    ends = ec2.describe_instance_attribute(InstanceId=instance, Attribute="instanceInitiatedShutdownBehavior")
    assert ends["InstanceInitiatedShutdownBehavior"] == {"Value": "terminate"}

    wrong = {"MetadataOptions": None, "InstanceInitiatedShutdownBehavior": None, "IamInstanceProfile": None}
    instance = launch(ec2, account(s3_endpoint, f"{place.project}-wrong", wrong))
    (described,) = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"]
    assert described["MetadataOptions"]["HttpTokens"] == "optional"
    assert "IamInstanceProfile" not in described
    ends = ec2.describe_instance_attribute(InstanceId=instance, Attribute="instanceInitiatedShutdownBehavior")
    assert ends["InstanceInitiatedShutdownBehavior"] == {"Value": "stop"}


def test_what_the_request_says_comes_before_the_template(clients: Clients, place: Account) -> None:
    ec2 = clients("ec2")
    instance = launch(ec2, place, MetadataOptions={"HttpTokens": "optional"})
    (described,) = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"]
    assert described["MetadataOptions"]["HttpTokens"] == "optional"


def test_a_launch_template_that_is_not_there(clients: Clients, place: Account) -> None:
    gone = place.launch_template[:-1] + ("0" if place.launch_template[-1] != "0" else "1")
    missing = Account(**{**vars(place), "launch_template": gone})
    assert refused(lambda: launch(clients("ec2"), missing)).startswith("InvalidLaunchTemplateId")


def test_user_data_is_short(clients: Clients, place: Account) -> None:
    launch(clients("ec2"), place, UserData="x" * 16384)
    assert refused(lambda: launch(clients("ec2"), place, UserData="x" * 16385)) == "InvalidParameterValue"


def test_a_new_instance_is_not_seen_at_once(
    gate: Gate, clients: Clients, place: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "lag", 0.5)
    ec2 = clients("ec2")
    instance = launch(ec2, place)

    def seen() -> list[str]:
        filters = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
        groups = ec2.describe_instances(Filters=filters)["Reservations"]
        return [one["InstanceId"] for group in groups for one in group["Instances"]]

    assert instance not in seen()
    assert refused(lambda: ec2.describe_instances(InstanceIds=[instance])) == "InvalidInstanceID.NotFound"
    time.sleep(0.6)
    assert instance in seen()


def test_lists_come_in_pages(gate: Gate, clients: Clients, place: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "page", 2)
    ec2 = clients("ec2")
    launched = {launch(ec2, place) for _ in range(3)}
    here = [{"Name": "subnet-id", "Values": [place.subnets[0]]}]
    pages = list(ec2.get_paginator("describe_instances").paginate(Filters=here))
    assert [len(page["Reservations"]) for page in pages] == [2, 1]
    assert {one["InstanceId"] for page in pages for group in page["Reservations"] for one in group["Instances"]} == (
        launched
    )
    assert len(ec2.describe_instances(InstanceIds=list(launched))["Reservations"]) == 3
    gate.spot_prices({("g5.xlarge", f"us-east-1{zone}"): 0.4 for zone in "abcde"})
    pages = list(ec2.get_paginator("describe_spot_price_history").paginate())
    assert [len(page["SpotPriceHistory"]) for page in pages] == [2, 2, 1]
    assert len({row["AvailabilityZone"] for page in pages for row in page["SpotPriceHistory"]}) == 5


def test_prices_of_spot_machines(gate: Gate, clients: Clients) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    hours = [now - timedelta(hours=hour) for hour in (5, 3, 1)]
    gate.spot_prices(
        {
            ("g5.xlarge", "us-east-1a"): 0.41,
            ("g5.xlarge", "us-east-1b"): [(hours[0], 0.5), (hours[1], 0.6), (hours[2], 0.7)],
            ("p3.2xlarge", "us-east-1a"): 1.25,
        }
    )

    def prices(**asked: Any) -> list[tuple[str, str, float]]:
        pages = clients("ec2").get_paginator("describe_spot_price_history").paginate(**asked)
        rows = [row for page in pages for row in page["SpotPriceHistory"]]
        return [(row["InstanceType"], row["AvailabilityZone"], float(row["SpotPrice"])) for row in rows]

    assert sorted(prices(StartTime=now, ProductDescriptions=["Linux/UNIX"])) == [
        ("g5.xlarge", "us-east-1a", 0.41),
        ("g5.xlarge", "us-east-1b", 0.7),
        ("p3.2xlarge", "us-east-1a", 1.25),
    ]
    asked = {"InstanceTypes": ["g5.xlarge"], "AvailabilityZone": "us-east-1b"}
    changes = prices(StartTime=now - timedelta(hours=2), **asked)
    assert [price for _, _, price in changes] == [0.7, 0.6]
    changes = prices(StartTime=now - timedelta(hours=4), EndTime=now - timedelta(hours=2), **asked)
    assert [price for _, _, price in changes] == [0.6, 0.5]
    filters = [{"Name": "availability-zone", "Values": ["us-east-1a"]}, {"Name": "instance-type", "Values": ["g5.*"]}]
    assert prices(Filters=filters) == [("g5.xlarge", "us-east-1a", 0.41)]
    assert prices(ProductDescriptions=["Windows"]) == []
    gate.spot_prices(None)
    assert {price for _, _, price in prices(InstanceTypes=["g5.xlarge"])} == {0.00001}  # moto's


def test_where_types_are_offered(gate: Gate, clients: Clients) -> None:
    gate.offerings({"g5.xlarge": ["us-east-1a", "us-east-1b"], "p3.2xlarge": ["us-east-1c"]})

    def offered(**asked: Any) -> list[tuple[str, str]]:
        found = clients("ec2").describe_instance_type_offerings(**asked)["InstanceTypeOfferings"]
        return [(offer["InstanceType"], offer["Location"]) for offer in found]

    filters = [{"Name": "instance-type", "Values": ["g5.xlarge", "g6.xlarge"]}]
    expected = [("g5.xlarge", "us-east-1a"), ("g5.xlarge", "us-east-1b")]
    assert offered(LocationType="availability-zone", Filters=filters) == expected
    assert offered(Filters=filters) == [("g5.xlarge", REGION)]


def test_the_console(gate: Gate, clients: Clients, place: Account) -> None:
    instance = launch(clients("ec2"), place)
    gate.consoles[instance] = lambda: b"<hello>\n"
    output = clients("ec2").get_console_output(InstanceId=instance)["Output"]
    assert output == "<hello>\n"  # botocore decodes it


def test_nothing_is_left_of_a_gate(s3_endpoint: str) -> None:
    before = threading.active_count()
    with Gate(s3_endpoint) as gate:
        session = boto3.Session("test", "test", region_name=REGION)
        session.client("sts", endpoint_url=gate.url).get_caller_identity()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() <= before
