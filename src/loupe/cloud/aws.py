"""The way to AWS: clients that are patient where that helps, and errors that say what to do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from loupe.errors import InputError
from loupe.s3 import error_code

SECONDS = 30.0  # without an answer, until a request counts as lost
TRIES = 8  # of a request that was throttled, or lost, with longer and longer pauses
EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired")
UNKNOWN = ("AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId")
DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403")
BUSY = ("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException")


class CredentialsError(InputError):
    """AWS does not know, or no longer accepts, who is asking."""


class UnreachableError(InputError):
    """AWS did not answer, or had too much to do, all tries long: later it may."""


def client(service: str) -> Any:
    """A client of an AWS service with the credentials, region and endpoint (AWS_ENDPOINT_URL) of the AWS CLI.

    Throttled and lost requests are tried again with growing pauses, AWS_MAX_ATTEMPTS times (8). Threads may share it.

    Raises:
        InputError: boto3 is missing, or no region is set.
    """
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise InputError("training on EC2 needs the extra `s3`: pip install 'loupe[pipeline,s3]'") from None
    retries = {"mode": "standard", "total_max_attempts": int(os.environ.get("AWS_MAX_ATTEMPTS", TRIES))}
    patient = Config(connect_timeout=10, read_timeout=SECONDS, retries=retries)
    try:
        return boto3.client(service, config=patient)
    except (BotoCoreError, ValueError) as error:
        raise InputError(f"AWS: {error}; set AWS_DEFAULT_REGION, and see `aws configure list`") from None


@contextmanager
def told(what: str) -> Iterator[None]:
    """Within the block errors of AWS become sentences.

    Args:
        what: was tried, such as "launching a machine".

    Raises:
        CredentialsError: the credentials are missing, unknown or have expired.
        UnreachableError: AWS did not answer, or is too busy.
        InputError: AWS refused.
    """
    from boto3.exceptions import Boto3Error
    from boto3.s3.transfer import S3TransferRetriesExceededError
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        CredentialRetrievalError,
        NoCredentialsError,
        PartialCredentialsError,
        SSOError,
        TokenRetrievalError,
    )

    try:
        yield
    except NoCredentialsError:
        raise CredentialsError(f"{what}: there are no AWS credentials; run `aws configure`, or log in") from None
    except (SSOError, TokenRetrievalError, CredentialRetrievalError, PartialCredentialsError) as error:
        raise CredentialsError(f"{what}: {error}; log in again, then repeat") from None
    except ClientError as error:
        code, words = error_code(error), error.response.get("Error", {}).get("Message", "")
        if code in EXPIRED:
            raise CredentialsError(f"{what}: the AWS credentials have expired; log in again, then repeat") from None
        if code in UNKNOWN:
            raise CredentialsError(f"{what}: AWS does not know these credentials ({code}); log in again") from None
        if code in DENIED:
            raise InputError(f"{what}: AWS refused ({words or code}); is this role the launcher's?") from None
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        kind = UnreachableError if status >= 500 or code in BUSY else InputError
        raise kind(f"{what}: {code}: {words}") from None
    except (BotoCoreError, Boto3Error, S3TransferRetriesExceededError) as error:
        raise UnreachableError(f"{what}: AWS does not answer: {error}") from None
