"""An S3 that somebody runs, for the contract: its address, keys and a bucket by variables of the environment."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Final

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINT_VARIABLE: Final = "MATYAN_TEST_S3_ENDPOINT"
KEY_VARIABLE: Final = "MATYAN_TEST_S3_ACCESS_KEY"
SECRET_VARIABLE: Final = "MATYAN_TEST_S3_SECRET_KEY"
REGION_VARIABLE: Final = "MATYAN_TEST_S3_REGION"


class GivenS3:
    """It. Buckets named ``test-`` and twelve digits are made in it, and emptied and deleted again.

    Args:
        endpoint: its address.
        key: access key.
        secret: secret key.
        region: that requests are signed for.
    """

    name: Final = "given"

    def __init__(self, endpoint: str, key: str, secret: str, region: str) -> None:
        self.endpoint, self.key, self.secret, self.region = endpoint, key, secret, region
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            region_name=region,
            config=Config(connect_timeout=5, read_timeout=60, retries={"total_max_attempts": 1}),
        )

    def settings(self, bucket: str) -> dict[str, str]:
        """Our settings for it, by their names in the environment."""
        return {
            "S3_ENDPOINT": self.endpoint,
            "S3_ACCESS_KEY": self.key,
            "S3_SECRET_KEY": self.secret,
            "S3_REGION": self.region,
            "S3_BUCKET": bucket,
        }

    def make_bucket(self, bucket: str, *, versions: bool = False) -> None:
        """Make a bucket; with ``versions``, one that keeps every version."""
        self.client.create_bucket(Bucket=bucket)
        if not versions:
            return
        try:
            self.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        except ClientError as error:
            self.client.delete_bucket(Bucket=bucket)
            if error.response["Error"]["Code"] != "NotImplemented":
                raise
            pytest.skip(f"the S3 at {self.endpoint} keeps no versions: {error}")

    def put(self, keys: Iterable[str], body: bytes, bucket: str) -> None:
        """Write an object a key."""
        for key in keys:
            self.client.put_object(Bucket=bucket, Key=key, Body=body)

    def drop_bucket(self, bucket: str) -> None:
        """Delete a bucket with all that is in it, one by one, as far as the server goes along."""
        try:
            for page in self.client.get_paginator("list_object_versions").paginate(Bucket=bucket):
                for item in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                    self.client.delete_object(Bucket=bucket, Key=item["Key"], VersionId=item["VersionId"])
        except ClientError:  # no versions here
            pass
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for item in page.get("Contents", ()):
                self.client.delete_object(Bucket=bucket, Key=item["Key"])
        self.client.delete_bucket(Bucket=bucket)


def find_given() -> GivenS3 | None:
    """The one that the environment names, if it names one.

    Raises:
        KeyError: it names an address without keys.
    """
    endpoint = os.environ.get(ENDPOINT_VARIABLE)
    if not endpoint:
        return None
    region = os.environ.get(REGION_VARIABLE) or "us-east-1"
    return GivenS3(endpoint, os.environ[KEY_VARIABLE], os.environ[SECRET_VARIABLE], region)
