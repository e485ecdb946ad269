"""User-data: what EC2 hands to a new machine, which runs it as root. userdata.sh with a few names filled in."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path

from loupe.cloud.mailbox import Mailbox
from loupe.cloud.records import RUN_NAME
from loupe.errors import InputError

SCRIPT = Path(__file__).with_name("userdata.sh")
BOOTSTRAP = Path(__file__).with_name("bootstrap.py")
LIMIT = 16384  # bytes that EC2 takes
LEAVE = 120  # seconds before the deadline when the stage is told to stop, as before a spot machine is taken away
ALLOWED = {  # they come to stand in a shell script
    "BUCKET": re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"),
    "PREFIX": re.compile(r"([A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*)?"),
    "RUN": RUN_NAME,
    "REGION": re.compile(r"[a-z0-9-]+"),
    "ATTEMPT": re.compile(r"[1-9][0-9]*"),
    "MINUTES": re.compile(r"[1-9][0-9]*"),
}


def render(*, bucket: str, prefix: str, run: str, attempt: int, region: str, minutes: int) -> str:
    """The user-data of a machine.

    Args:
        bucket, prefix, run: where its mailbox is.
        attempt: the number of the machine.
        region: of AWS.
        minutes: after which it shuts down, whatever it does.

    Raises:
        InputError: one of them cannot be what it says.
    """
    values = {
        "BUCKET": bucket,
        "PREFIX": prefix,
        "RUN": run,
        "REGION": region,
        "ATTEMPT": str(attempt),
        "MINUTES": str(minutes),
    }
    for name, value in values.items():
        if not ALLOWED[name].fullmatch(value):
            raise InputError(f"user-data: {value!r} is no {name.lower()}")
    values["SECONDS"] = str(minutes * 60 - min(LEAVE, minutes * 6))
    values["SHA256"] = _sha256()
    values["BOOTSTRAP"] = f"{prefix}/bootstrap/{_sha256()}".lstrip("/")
    return re.sub("@([A-Z0-9]+)@", lambda found: values[found[1]], SCRIPT.read_text())


def upload_bootstrap(mailbox: Mailbox) -> str:
    """Put bootstrap.py where user-data fetches it; its sha256."""
    mailbox.upload(mailbox.shared(f"bootstrap/{_sha256()}.py"), io.BytesIO(BOOTSTRAP.read_bytes()))
    return _sha256()


def _sha256() -> str:
    return hashlib.sha256(BOOTSTRAP.read_bytes()).hexdigest()
