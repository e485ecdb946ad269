"""What stands for AWS's computers in tests: machines that EC2 "runs" are run here, as processes in a folder.

        launcher  ──────────────►  Gate  ──────────────►  moto's server: EC2, S3, SSM, STS, IAM
        (production code)      (tests.system.gate:            │     ▲
             ▲                  faults, strictness)           │     │ terminated, stopped
             │ S3                    ▲                         ▼     │
             └───────────────────────┤            Hypervisor: asks what is pending or running, and for each
                                     │              boots a Machine:
                                     │                init.py ── user-data ── bootstrap ── agent ── training
                                     └───────────────── aws CLI, boto3, dvc         (production code)
                                                           │ credentials, tags, spot notice
                                                           ▼
                                                      Metadata: 169.254.169.254, at an address of its own

Real: user-data as EC2 hands it out, everything that it starts, the AWS CLI and SDKs with credentials from the
instance's role, HTTP, S3's conditional writes, signals, the end of all processes, time.

Not real: the hypervisor and the network. All machines share the kernel, the user and the processors of this computer,
and loopback; rights are not checked (moto asks for none), and neither are security groups and routes. An image brings
the packages that the tests run with. Not simulated: a reboot, a start after a stop, hibernation. At EC2 user-data may
find no HOME; here it has one, in its folder, so that nothing reaches the developer's.

    with Gate(s3_endpoint) as gate, Hypervisor(gate, account.project, tmp_path, speed=60) as hypervisor:
        ...                                         # launch
        machine = hypervisor.wait(1)[0]             # booted; machine.console() is what it said
        hypervisor.notice(machine.id)               # the spot notice; two minutes later, at 60 times the speed, the end
        assert hypervisor.left() == {}

How machines end, and what EC2 tells then (`Machine.ended`, and StateReason of DescribeInstances):

    shutdown    `shutdown -h now` on the machine          SIGTERM, SIGKILL; then terminated, or stopped if its launch
    deadline    `shutdown -h +N`, and the time came       template did not ask for `terminate`
    terminated  TerminateInstances, StopInstances         SIGTERM, SIGKILL
    spot        the time of a spot notice came            SIGTERM, SIGKILL
    power       `kill`: power loss, without a warning     SIGKILL
"""

import base64
import contextlib
import json
import os
import secrets
import select
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.system.gate import Gate, client

from loupe.cloud.settings import Stack

REGION = "us-east-1"
IMAGE = "ami-12c6146b"  # moto has it
GRACE_SECONDS = 2.0  # from SIGTERM to SIGKILL when a machine shuts down
END_SECONDS = 20.0  # for the end of all its processes
NOTICE_SECONDS = 120.0  # between a spot notice and the end
POLL_SECONDS = 0.2
REASONS = {
    "shutdown": ("Client.InstanceInitiatedShutdown", "Client.InstanceInitiatedShutdown: Instance initiated shutdown"),
    "spot": ("Server.SpotInstanceTermination", "Server.SpotInstanceTermination: Spot instance termination"),
    "power": ("Server.InternalError", "Server.InternalError: Internal error"),
}
REASONS["deadline"] = REASONS["shutdown"]
# What `shutdown` leaves for the hypervisor is a line in a file: it needs no environment, and works while all else fails
SHUTDOWN = """#!/bin/bash
case "$1 ${{2-}}" in
    "-h now"|"-P now"|"-h +"[0-9]*|"-P +"[0-9]*|"-c ") printf '%s\\n' "$1 ${{2-}}" >> '{file}' ;;
    *) echo "shutdown: the simulator knows -h now, -h +MINUTES and -c, not: $*" >&2; exit 1 ;;
esac
"""
GPUS = """#!/bin/bash
for ((gpu = 0; gpu < {count}; gpu++)); do
    echo "GPU $gpu: Simulated GPU (UUID: GPU-00000000-0000-0000-0000-00000000000$gpu)"
done
"""


class Machine(threading.Thread):
    """An instance, from its boot to its end.

    id, type, zone, market ("spot" or "on-demand"), tags: as EC2 describes it. folder: all that it has: `home`, `loupe`
    (LOUPE_HOME), `tmp`, `console.txt`. key: the access key's id of its role; requests of this machine carry it, see
    Request.key. booted: its user-data was started. ended: how, see above; empty while it runs.
    """

    def __init__(self, hypervisor: "Hypervisor", described: Mapping[str, Any]) -> None:
        super().__init__(name=described["InstanceId"], daemon=True)
        self.id: str = described["InstanceId"]
        self.type: str = described["InstanceType"]
        self.zone: str = described["Placement"]["AvailabilityZone"]
        self.market = described.get("InstanceLifecycle", "on-demand")
        self.tags = {tag["Key"]: tag["Value"] for tag in described.get("Tags", [])}
        self.folder: Path = hypervisor.folder / self.id
        self.key = f"ASIA{sha256(self.id.encode()).hexdigest()[:16].upper()}"
        self.booted = threading.Event()
        self.ended = ""
        self._hypervisor = hypervisor
        self._described = described
        self._over = threading.Event()
        self._cause = ""
        self._signal = threading.Event()  # that there is a cause
        self._power = self.folder / "power"
        self._read = 0  # bytes of it
        self._deadline = float("inf")
        self._taken = float("inf")  # when EC2 takes a spot machine back
        self._told = threading.Lock()

    @property
    def home(self) -> Path:
        """LOUPE_HOME."""
        return self.folder / "loupe"

    def console(self) -> str:
        """What it has said so far."""
        return self._console().decode(errors="replace")

    def _console(self) -> bytes:
        path = self.folder / "console.txt"
        return path.read_bytes() if path.exists() else b""

    def wait_over(self, seconds: float) -> bool:
        """Whether it has come to its end within so many seconds: no process is left, and EC2 says so."""
        return self._over.wait(seconds)

    def end(self, cause: str) -> None:
        """Has it end, for one of the reasons above. The first one counts."""
        with self._told:
            self._cause = self._cause or cause
        self._signal.set()

    def notice(self, seconds: float) -> None:
        """The spot notice: the machine has so many seconds left."""
        moment = datetime.now(UTC) + timedelta(seconds=seconds)
        text = json.dumps({"action": "terminate", "time": moment.strftime("%Y-%m-%dT%H:%M:%SZ")})
        self._metadata.documents["meta-data/spot/instance-action"] = text
        self._taken = time.monotonic() + seconds

    def freeze(self) -> None:
        """Stops all its processes where they are: it hangs, and EC2 sees nothing of it."""
        self._tell(b"s")

    # ------------------------------------------------------------------------------------------ its life

    def run(self) -> None:
        try:
            self._boot()
            self._end(self._live())
        except Exception as error:  # such as moto that has gone; the test is to hear of it
            self._hypervisor.broken.append(error)
        finally:
            self._over.set()

    def _boot(self) -> None:
        hypervisor, folder = self._hypervisor, self.folder
        for name in ("home", "loupe", "tmp", "shims"):
            (folder / name).mkdir(parents=True)
        self._shim("shutdown", SHUTDOWN.format(file=self._power))
        if count := hypervisor.gpus.get(self.type, 0):
            self._shim("nvidia-smi", GPUS.format(count=count))
        if hypervisor.image:
            hypervisor.image(self.home)
        self._metadata = Metadata(self._described, self._role(), self.key)
        hypervisor.gate.consoles[self.id] = self._console
        attribute = hypervisor.ec2.describe_instance_attribute(InstanceId=self.id, Attribute="userData")
        program = folder / "user-data"
        program.write_bytes(base64.b64decode(attribute["UserData"].get("Value", "")))
        program.chmod(0o700)  # cloud-init, too, has the kernel read its first line
        env = {
            "HOME": str(folder / "home"),
            "PATH": os.pathsep.join([str(folder / "shims"), str(Path(sys.executable).parent), "/usr/bin", "/bin"]),
            "LANG": "C.UTF-8",
            "TMPDIR": str(folder / "tmp"),
            "LOUPE_HOME": str(self.home),
            "LOUPE_PER_BOOT": str(self.folder / "per-boot"),
            "AWS_ENDPOINT_URL": hypervisor.gate.url,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self._metadata.url,
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            # A computer of its own has settings and caches of its own; and nobody is told that a test ran
            "DVC_GLOBAL_CONFIG_DIR": str(folder / "home" / "dvc"),
            "DVC_SYSTEM_CONFIG_DIR": str(folder / "home" / "dvc-system"),
            "DVC_SITE_CACHE_DIR": str(folder / "home" / "dvc-site"),
            "DVC_NO_ANALYTICS": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "DO_NOT_TRACK": "1",
        }
        with (folder / "console.txt").open("ab") as console:
            self._init = subprocess.Popen(
                [sys.executable, "-I", Path(__file__).with_name("init.py"), program, folder / "console.txt"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=console,
                cwd=folder / "home",
                env=env | dict(hypervisor.variables),
                start_new_session=True,
                bufsize=0,
            )
        self.booted.set()

    def _shim(self, name: str, text: str) -> None:
        path = self.folder / "shims" / name
        path.write_text(text)
        path.chmod(0o755)

    def _role(self) -> str:
        """The role of its instance profile; "" without one."""
        arn = self._described.get("IamInstanceProfile", {}).get("Arn", "")
        if not arn:
            return ""
        profile = self._hypervisor.iam.get_instance_profile(InstanceProfileName=arn.rpartition("/")[2])
        return str(profile["InstanceProfile"]["Roles"][0]["RoleName"])

    def _live(self) -> str:
        """Waits for what ends the machine, and says what it was."""
        while not self._signal.wait(0.02):
            self._read_power()
            now = time.monotonic()
            if now >= self._deadline:
                self.end("deadline" if self._deadline else "shutdown")
            elif now >= self._taken:
                self.end("spot")
        return self._cause

    def _read_power(self) -> None:
        if not self._power.exists():
            return
        lines = self._power.read_bytes()[self._read :]
        whole = lines[: lines.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.decode().splitlines():  # the last one counts, as of `shutdown`
            option, _, when = line.strip().partition(" ")
            if option == "-c":
                self._deadline = float("inf")
            elif when == "now":
                self._deadline = 0.0
            else:
                self._deadline = time.monotonic() + 60 * int(when) / self._hypervisor.speed

    def _end(self, cause: str) -> None:
        ec2, gate = self._hypervisor.ec2, self._hypervisor.gate
        if cause in REASONS:
            gate.reasons[self.id] = REASONS[cause]
        if cause == "spot":  # EC2 says it before the machine feels it
            ec2.terminate_instances(InstanceIds=[self.id])
        if cause != "power" and self._tell(b"t"):
            self._heard(b"t", GRACE_SECONDS)
        self._kill()
        self._metadata.close()
        if cause == "power":
            ec2.terminate_instances(InstanceIds=[self.id])
        elif cause in ("shutdown", "deadline"):
            behaviour = ec2.describe_instance_attribute(
                InstanceId=self.id, Attribute="instanceInitiatedShutdownBehavior"
            )["InstanceInitiatedShutdownBehavior"]["Value"]
            (ec2.terminate_instances if behaviour == "terminate" else ec2.stop_instances)(InstanceIds=[self.id])
        self.ended = cause

    def _kill(self) -> None:
        """Ends all its processes, at once."""
        self._tell(b"k")
        try:
            self._init.wait(END_SECONDS)
        finally:
            for pipe in (self._init.stdin, self._init.stdout):
                if pipe:
                    pipe.close()

    def _tell(self, command: bytes) -> bool:
        stdin = self._init.stdin
        try:
            return bool(stdin and not stdin.closed and stdin.write(command))
        except BrokenPipeError:
            return False

    def _heard(self, answer: bytes, seconds: float) -> bool:
        """Whether init answers in time."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and self._init.stdout:
            ready, _, _ = select.select([self._init.stdout], [], [], left)
            if ready and self._init.stdout.read(1) in (answer, b""):
                return True
        return False


class Hypervisor:
    """Boots what EC2 says is pending or running, until it is closed. A context manager: nothing is left behind it."""

    def __init__(
        self,
        gate: Gate,
        project: str,
        folder: Path,
        *,
        speed: float = 1.0,
        gpus: Mapping[str, int] | None = None,
        image: Callable[[Path], object] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Starts to watch.

        Args:
            gate: the machines' way to AWS.
            project: instances whose tag loupe:project says so are booted.
            folder: where each machine gets a folder, named by its id.
            speed: how much faster the minutes of `shutdown -h +N` and the seconds of a spot notice go by.
            gpus: how many `nvidia-smi -L` lists, by type; without any there is no such command.
            image: prepares LOUPE_HOME of a new machine, such as `lambda home: bake(home, lock)`.
            variables: added to the environment of user-data.
        """
        self.gate, self.project, self.folder, self.speed = gate, project, folder, speed
        self.gpus, self.image, self.variables = dict(gpus or {}), image, dict(variables or {})
        self.ec2, self.iam = (client(service, gate.upstream, REGION) for service in ("ec2", "iam"))
        self.paused = False  # as long as it is true no new machine boots: EC2 says "running", and nothing happens
        self.broken: list[Exception] = []
        self._machines: dict[str, Machine] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hypervisor", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Hypervisor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def machines(self) -> list[Machine]:
        """All machines so far, those that have ended among them, in the order of their boot."""
        return list(self._machines.values())

    def machine(self, instance: str) -> Machine:
        """A machine by its id.

        Raises:
            KeyError: it has not been booted.
        """
        return self._machines[instance]

    def wait(self, count: int, seconds: float = 20.0) -> list[Machine]:
        """The machines, when at least so many have booted.

        Raises:
            AssertionError: it took too long, or the hypervisor failed.
        """
        deadline = time.monotonic() + seconds
        while sum(machine.booted.is_set() for machine in self.machines()) < count:
            assert not self.broken, self.broken
            assert time.monotonic() < deadline, f"{count} machines have not booted in {seconds} s: {self.describe()}"
            time.sleep(0.02)
        return self.machines()

    def notice(self, instance: str, seconds: float = NOTICE_SECONDS) -> None:
        """EC2 takes a spot machine back: its metadata say so, and after so many seconds, at `speed`, it ends."""
        machine = self.machine(instance)
        assert machine.market == "spot", f"{instance} is not a spot machine: EC2 takes no other back"
        assert machine.booted.wait(END_SECONDS), self.describe()
        machine.notice(seconds / self.speed)

    def kill(self, instance: str) -> None:
        """Power loss: all processes are gone at once, without a word, and EC2 says terminated. Returns afterwards."""
        machine = self.machine(instance)
        machine.end("power")
        assert machine.wait_over(END_SECONDS), f"{instance} does not end: {self.describe()}"

    def freeze(self, instance: str) -> None:
        """A machine that hangs: nothing on it goes on, while EC2 says running."""
        assert self.machine(instance).booted.wait(END_SECONDS), self.describe()
        self.machine(instance).freeze()

    def left(self) -> dict[str, str]:
        """What EC2 says of the project's instances that are not terminated: state by id. A stopped one is paid for."""
        return {
            instance["InstanceId"]: instance["State"]["Name"]
            for instance in self._describe()
            if instance["State"]["Name"] not in ("shutting-down", "terminated")
        }

    def running(self) -> list[str]:
        """The ids of the project's instances that are pending or running, as EC2 says."""
        return [instance for instance, state in self.left().items() if state in ("pending", "running")]

    def describe(self) -> str:
        """All machines and what they said: belongs in the message of a failing test."""
        lines = [f"{len(self._machines)} machines in {self.folder}"]
        for machine in self.machines():
            lines.append(
                f"--- {machine.id} ({machine.type}, {machine.market}), {machine.ended or 'not ended'}; console:"
            )
            lines += machine.console().splitlines()[-40:]
        return "\n".join(lines)

    def close(self) -> None:
        """Ends all machines as a power loss would, at EC2, too.

        Raises:
            AssertionError: the hypervisor itself failed.
        """
        self._closing.set()
        self._thread.join()
        for machine in self.machines():
            machine.end("power")
        for machine in self.machines():
            machine.join(END_SECONDS)
        with contextlib.suppress(Exception):  # else what follows is not said
            if left := list(self.left()):
                self.ec2.terminate_instances(InstanceIds=left)
        alive = [machine.id for machine in self.machines() if machine.is_alive()]
        assert not (alive or self.broken), f"not ended: {alive}; failed: {self.broken}"

    def _watch(self) -> None:
        while not self._closing.wait(POLL_SECONDS):
            try:
                with self.gate.launching:
                    found = self._describe()
                for described in found:
                    self._see(described)
            except Exception as error:  # once; the test that waits for a machine hears of it
                self.broken.append(error)
                return

    def _see(self, described: Mapping[str, Any]) -> None:
        instance, state = described["InstanceId"], described["State"]["Name"]
        if instance in self._machines:
            if state not in ("pending", "running"):
                self._machines[instance].end("terminated")
        elif state in ("pending", "running") and not self.paused:
            self._machines[instance] = Machine(self, described)
            self._machines[instance].start()

    def _describe(self) -> list[dict[str, Any]]:
        pages = self.ec2.get_paginator("describe_instances").paginate(
            Filters=[{"Name": "tag:loupe:project", "Values": [self.project]}]
        )
        return [instance for page in pages for group in page["Reservations"] for instance in group["Instances"]]


# ---------------------------------------------------------------------------------------------- metadata


class Metadata:
    """The instance metadata service of one machine, at an address of its own; IMDSv1 where its options allow it."""

    def __init__(self, described: Mapping[str, Any], role: str, key: str) -> None:
        """Starts to listen.

        Args:
            described: the instance, as EC2 describes it.
            role: whose credentials there are; "" for none.
            key: the id of its access key.
        """
        options = described.get("MetadataOptions", {})
        zone = described["Placement"]["AvailabilityZone"]
        identity = {
            "instanceId": described["InstanceId"],
            "instanceType": described["InstanceType"],
            "imageId": described["ImageId"],
            "availabilityZone": zone,
            "region": zone[:-1],
            "accountId": "123456789012",
        }
        self.tokens_required = options.get("HttpTokens") == "required"
        self.tokens: set[str] = set()
        self.documents: dict[str, str] = {
            "meta-data/ami-id": described["ImageId"],
            "meta-data/instance-id": described["InstanceId"],
            "meta-data/instance-life-cycle": described.get("InstanceLifecycle", "on-demand"),
            "meta-data/instance-type": described["InstanceType"],
            "meta-data/placement/availability-zone": zone,
            "meta-data/placement/region": zone[:-1],
            "dynamic/instance-identity/document": json.dumps(identity, indent=2),
        }
        if options.get("InstanceMetadataTags") == "enabled":
            for tag in described.get("Tags", []):
                self.documents[f"meta-data/tags/instance/{tag['Key']}"] = tag["Value"]
        if role:
            credentials = {
                "Code": "Success",
                "LastUpdated": (datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "Type": "AWS-HMAC",
                "AccessKeyId": key,
                "SecretAccessKey": secrets.token_hex(20),
                "Token": secrets.token_hex(32),
                "Expiration": (datetime.now(UTC) + timedelta(hours=6)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
            self.documents[f"meta-data/iam/security-credentials/{role}"] = json.dumps(credentials)
        self._server = _Listener(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def read(self, path: str) -> str | None:
        """A document, or the names below a folder, each of which a line; None where there is nothing."""
        path = path.rstrip("/")
        if path in self.documents:
            return self.documents[path]
        below = [name.removeprefix(f"{path}/") for name in self.documents if name.startswith(f"{path}/")]
        names = {name.partition("/")[0] + ("/" if "/" in name else "") for name in below}
        return "\n".join(sorted(names)) or None

    def close(self) -> None:
        """Ends the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, metadata: Metadata) -> None:
        super().__init__(("127.0.0.1", 0), _Reader)
        self.metadata = metadata

    def handle_error(self, *_: object) -> None:
        """A client that was killed is no error here."""


class _Reader(BaseHTTPRequestHandler):  # HTTP/1.0: a connection for each request
    server: _Listener

    def do_PUT(self) -> None:
        ttl = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if self.path != "/latest/api/token" or "X-Forwarded-For" in self.headers:
            self.reply(403, "")
        elif not (ttl.isdecimal() and 1 <= int(ttl) <= 21600):
            self.reply(400, "")
        else:
            token = secrets.token_urlsafe(40)
            self.server.metadata.tokens.add(token)
            self.reply(200, token)

    def do_GET(self) -> None:
        metadata, token = self.server.metadata, self.headers.get("X-aws-ec2-metadata-token")
        if token not in metadata.tokens and (token is not None or metadata.tokens_required):
            self.reply(401, "")
            return
        text = metadata.read(self.path.removeprefix("/latest/"))
        self.reply(404, "") if text is None else self.reply(200, text)

    def reply(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


# ---------------------------------------------------------------------------------------------- image and account


def bake(home: Path, lock: Path) -> Path:
    """An image with the packages of a lock file in it: an environment whose packages are those of the tests.

    It is an environment of its own that sees theirs, so that a machine which installs something harms nobody.

    Args:
        home: LOUPE_HOME of the machine.
        lock: the project's requirements.lock.

    Returns:
        The environment's folder, $LOUPE_HOME/venv-HASH.
    """
    folder = home / f"venv-{sha256(lock.read_bytes()).hexdigest()[:12]}"
    venv.create(folder, symlinks=True, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    seen = [path for path in sys.path if Path(path).name == "site-packages"]
    (packages / "image.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in seen))
    return folder


@dataclass(frozen=True)
class Account(Stack):
    """An AWS account in which the stack is deployed; names of the test's own, since all tests share moto's server.

    parameter: the SSM parameter that describes it to loupe. image: the SSM parameter of the machines' image. role: the
    machines'.
    """

    parameter: str
    image: str
    role: str

    def environment(self, endpoint: str, key: str = "AKIALAUNCHER") -> dict[str, str]:
        """The variables with which the launcher works there.

        Args:
            endpoint: the gate's address.
            key: the id of its access key; Request.key tells by it who asked.
        """
        return {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": self.region,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }


def account(endpoint: str, project: str, template: Mapping[str, Any] | None = None) -> Account:
    """Deploys the stack. By hand comes the image's parameter: AWS has it, moto has not.

    Args:
        endpoint: of moto's server.
        project: names everything.
        template: replaces parts of the launch template's data, to make a wrong one; a None leaves the part out.
    """
    from tests.cloud.deployment import deploy  # it needs boto3, without which tests are skipped

    deployment = deploy(lambda service: client(service, endpoint, REGION), ProjectName=project)
    if template:
        deployment.change_template(**template)
    image = f"/{project}/image"
    client("ssm", endpoint, REGION).put_parameter(Name=image, Value=IMAGE, Type="String")
    return Account(**vars(deployment.stack), parameter=deployment.parameter, image=image, role=deployment.role)
