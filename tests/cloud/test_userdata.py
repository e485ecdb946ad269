"""After a wanted change write the golden file anew: LOUPE_GOLDEN=write python -m pytest tests/cloud/test_userdata.py"""

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import S3

from loupe.cloud.mailbox import Mailbox
from loupe.cloud.userdata import BOOTSTRAP, LIMIT, render, upload_bootstrap
from loupe.errors import InputError

GOLDEN = Path(__file__).with_name("golden") / "userdata.sh"
PLACE: dict[str, Any] = {
    "bucket": "loupe-123456789012-eu-central-1",
    "prefix": "ec2",
    "run": "retrain-2026-01-31",
    "attempt": 2,
    "region": "eu-central-1",
    "minutes": 360,
}


def test_it_is_what_was_reviewed() -> None:
    # bootstrap.py changes more often than what it is fetched by
    text = render(**PLACE).replace(hashlib.sha256(BOOTSTRAP.read_bytes()).hexdigest(), "SHA256-OF-BOOTSTRAP")
    if os.environ.get("LOUPE_GOLDEN") == "write":
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text(), f"{GOLDEN} differs; how to write it anew is said above"


def test_the_first_line_ends_the_machine_whatever_happens() -> None:
    assert render(**PLACE).splitlines()[:2] == ["#!/bin/bash", "shutdown -h +360 || shutdown -h now"]


def test_it_fits_and_can_be_parsed_with_the_longest_names() -> None:
    text = render(**PLACE | {"bucket": "b" * 63, "prefix": "p" * 300, "run": "r" * 100, "minutes": 99999})
    assert len(text.encode()) < LIMIT
    assert "@" not in text.replace('"$@"', "")
    subprocess.run(["bash", "-n"], input=text.encode(), check=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bucket", "b'; reboot; '"),
        ("bucket", "B"),
        ("prefix", "ec2'"),
        ("prefix", "ec2/"),
        ("run", "$(reboot)"),
        ("run", "a\nb"),
        ("region", "eu central"),
        ("attempt", 0),
        ("minutes", 0),
    ],
)
def test_nothing_else_than_names_comes_into_the_script(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"is no {name}"):
        render(**PLACE | {name: value})


def test_it_finds_the_bootstrap_script(mailbox: Mailbox, s3: S3) -> None:
    sha256 = upload_bootstrap(mailbox)
    stored = s3.client.get_object(Bucket=s3.bucket, Key=f"ec2/bootstrap/{sha256}.py")["Body"].read()
    assert stored == BOOTSTRAP.read_bytes()
    text = render(**PLACE)
    assert f"s3://{PLACE['bucket']}/ec2/bootstrap/{sha256}.py" in text
    assert f"{sha256}  " in text
