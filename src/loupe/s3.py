"""The way to S3: the client that all use who read and write single objects, and what addresses say. Needs boto3."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from loupe.errors import InputError

SCHEME = "s3://"
TRIES = 5  # of a request that fails as a whole, such as with 503
SECONDS = 60.0


class Connection(NamedTuple):
    """An S3 client; what it raises when a connection is lost, and what for an answer that is an error."""

    client: Any
    lost: type[Exception]
    answer: type[Exception]


def connect(address: str, extra: str, seconds: float = SECONDS) -> Connection:
    """A client with the credentials, region and endpoint (AWS_ENDPOINT_URL) of the AWS CLI; threads may share it.

    Args:
        address: named in errors.
        extra: of loupe, which brings boto3 to those who call this.
        seconds: without a byte, until a connection counts as lost.

    Raises:
        InputError: boto3 is missing, or its settings are wrong.
    """
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise InputError(f"{address}: S3 needs the extra `{extra}`: pip install 'loupe[{extra}]'") from None
    retries = {"mode": "standard", "total_max_attempts": int(os.environ.get("AWS_MAX_ATTEMPTS", TRIES))}
    # s3v4: else addresses are presigned as buckets made since 2020 refuse it
    patient = Config(connect_timeout=10, read_timeout=seconds, retries=retries, signature_version="s3v4")
    try:
        return Connection(boto3.client("s3", config=patient), BotoCoreError, ClientError)
    except (BotoCoreError, ValueError) as error:  # such as a profile that is not there, or a damaged AWS_ENDPOINT_URL
        raise InputError(f"{address}: {error}; check the settings of AWS") from None


def error_code(error: Exception) -> str:
    """The code of an answer that is an error, such as NoSuchKey; "" where there was no answer."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


def split(address: str) -> tuple[str, str]:
    """Bucket and key of `s3://BUCKET/KEY`; the key ends with no slash and may be empty.

    Raises:
        InputError: no bucket is named.
    """
    bucket, _, key = address.removeprefix(SCHEME).partition("/")
    if not bucket:
        raise InputError(f"{address}: names no bucket; give s3://BUCKET/PREFIX")
    return bucket, key.rstrip("/")
