"""The way to an S3 (boto3): one client with timeouts, each request made once, and errors read for what to do next."""

from __future__ import annotations

import base64
import hashlib
import ssl
from typing import TYPE_CHECKING, Any, Final, Literal

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    ProxyConnectionError,
    SSLError,
)

from storage.errors import BlobsAway, BlobsRefused

if TYPE_CHECKING:
    from collections.abc import Callable

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 20.0

Addressing = Literal["auto", "path", "virtual"]

PASSING: Final = frozenset(
    {
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "TooManyRequests",
        "ServiceUnavailable",
        "InternalError",
        "RequestTimeout",
        "OperationAborted",
        "429",
        "500",
        "502",
        "503",
        "504",
    }
)
_PASSING_STATUS: Final = frozenset({429, 500, 502, 503, 504})


class S3Client:
    """A client of one bucket.

    Args:
        bucket: its name.
        endpoint: the server's address; empty: Amazon's own.
        key: access key; empty, with an empty secret: the cloud's own identity (an IAM role, say).
        secret: secret key.
        region: the region that requests are signed for.
        ca_file: certificates of the authorities that vouch for the server; empty: those of the system's own.
        addressing: whether the bucket stands in the path, or in the name of the host; auto: in the path, but at Amazon.
        proxy: address of a proxy; empty: what the environment says.
        metadata: ask the machine's metadata service for the cloud's own identity.
        connections: kept, at most.

    Raises:
        BlobsRefused: the certificates cannot be read.
        ValueError: the endpoint is no URL.
    """

    def __init__(
        self,
        bucket: str,
        *,
        endpoint: str,
        key: str,
        secret: str,
        region: str,
        ca_file: str = "",
        addressing: Addressing = "auto",
        proxy: str = "",
        metadata: bool = True,
        connections: int = 10,
    ) -> None:
        self.bucket = bucket
        if ca_file:
            _check_certificates(ca_file)
        base = botocore.session.get_session()
        if not metadata:
            base.get_component("credential_provider").remove("iam-role")
        self.boto: Any = boto3.session.Session(botocore_session=base).client(
            "s3",
            endpoint_url=endpoint or None,
            aws_access_key_id=key or None,  # None: botocore looks for the cloud's own identity
            aws_secret_access_key=secret or None,
            region_name=region,
            verify=ca_file or None,
            config=Config(
                signature_version="s3v4",
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                retries={"total_max_attempts": 1, "mode": "standard"},
                max_pool_connections=connections,
                proxies={"http": proxy, "https": proxy} if proxy else None,
                s3={"addressing_style": addressing},
            ),
        )
        # Servers older than S3's newer checksums want this one for bulk deletes; the others take both.
        self.boto.meta.events.register("before-sign.s3.DeleteObjects", _add_md5)

    def ask(self, method: Callable[..., Any], **arguments: Any) -> Any:
        """Make a request.

        Raises:
            BlobsAway: it may be otherwise in a moment.
            BlobsRefused: it will not.
        """
        try:
            return self.ask_plainly(method, **arguments)
        except ClientError as error:
            raise self.explain(error) from error

    def ask_plainly(self, method: Callable[..., Any], **arguments: Any) -> Any:
        """Make a request whose refusal is read by who asks.

        Raises:
            ClientError: the store said no.
            BlobsAway: it did not answer.
            BlobsRefused: nothing could be asked.
        """
        try:
            return method(Bucket=self.bucket, **arguments)
        except BotoCoreError as error:
            raise _explain_away(error) from error

    def list(self, method: Callable[..., Any], **arguments: Any) -> Any:
        """Make a request for a listing. One that says nothing at all is none, and never the end of one.

        Raises: as `ask`.
        """
        answer = self.ask(method, **arguments)
        if "IsTruncated" not in answer and "Name" not in answer:
            msg = (
                "what answers at S3_ENDPOINT is no S3, or something before it answers in its place: a listing came back"
            )
            msg += " without anything that a listing has"
            raise BlobsRefused(msg)
        return answer

    def explain(self, error: ClientError) -> BlobsAway | BlobsRefused:
        """What the store said, by whether it may be otherwise in a moment."""
        code, message, passing = read_error(error)
        if code == "NoSuchBucket":
            return BlobsRefused(f"NoSuchBucket: there is no bucket {self.bucket!r}: make it, or look at S3_BUCKET")
        words = f"{code}: {message} ({error.operation_name} on bucket {self.bucket!r})"
        return BlobsAway(words) if passing else BlobsRefused(words)

    def close(self) -> None:
        """Close the connections. Closing twice is fine."""
        self.boto.close()


def read_error(error: ClientError) -> tuple[str, str, bool]:
    """Code, message, and whether it may be otherwise in a moment."""
    what, status = error.response.get("Error", {}), read_status(error)
    code = str(what.get("Code") or status)  # not all that answers in a store's place answers in its form
    return code, str(what.get("Message") or "no reason given"), code in PASSING or status in _PASSING_STATUS


def read_status(error: ClientError) -> int:
    """The status of the answer; 0 where not known."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def _explain_away(error: BotoCoreError) -> BlobsAway | BlobsRefused:
    if isinstance(error, NoCredentialsError | ParamValidationError):
        return BlobsRefused(f"{error}")
    remedy = ""
    if isinstance(error, SSLError):
        remedy = "; where its certificate comes from an authority of your own, name that one's in S3_CA_FILE"
    if isinstance(error, ProxyConnectionError):
        remedy = "; look at S3_PROXY, or HTTPS_PROXY and HTTP_PROXY where that is empty"
    return BlobsAway(f"{type(error).__name__}: {error}{remedy}")


def _check_certificates(path: str) -> None:
    """Refuse a file that botocore would trip over at the first request."""
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:  # also an ssl.SSLError
        reason = "holds no certificate" if isinstance(error, ssl.SSLError) else f"cannot be read ({error.strerror})"
        msg = f"S3_CA_FILE={path!r} {reason}: name a file of certificates in PEM form"
        raise BlobsRefused(msg) from error


def _add_md5(request: Any, **_: Any) -> None:
    body = request.body if request.body is not None else b""
    if isinstance(body, bytes | bytearray) and "Content-MD5" not in request.headers:
        request.headers["Content-MD5"] = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
