"""Does the blob store answer, and may we list the bucket?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matyan_celery.checks.finding import SECONDS, Finding
from tasks.settings.kinds import mask_url

if TYPE_CHECKING:
    from tasks.settings import Settings

_ABSENT = {"NoSuchBucket", "404"}
_REFUSED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403"}


def check_blobs(settings: Settings) -> Finding:
    """List one object of the bucket."""
    if settings.blob_backend_type != "s3":
        return Finding("s3", True, f"blobs are in {settings.blob_backend_type}, which is not asked here")
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    where = f"S3 at {mask_url(settings.s3_endpoint) or 'Amazon'}"
    config = Config(connect_timeout=SECONDS, read_timeout=SECONDS, retries={"total_max_attempts": 1})
    try:
        client: Any = boto3.client(
            "s3",
            endpoint_url=settings.s3_endpoint or None,
            aws_access_key_id=settings.s3_access_key or None,
            aws_secret_access_key=settings.s3_secret_key or None,
            region_name=settings.s3_region,
            config=config,
        )
        client.list_objects_v2(Bucket=settings.s3_bucket, MaxKeys=1)
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _ABSENT:
            return Finding("s3", False, f"{where} has no bucket {settings.s3_bucket!r}", "make it, or set S3_BUCKET")
        if code in _REFUSED:
            remedy = "look at S3_ACCESS_KEY and S3_SECRET_KEY; they must be allowed to list, read and delete"
            return Finding("s3", False, f"{where} does not let us into {settings.s3_bucket!r} ({code})", remedy)
        return Finding("s3", False, f"{where} answers with an error ({error})", "look at the server")
    except (BotoCoreError, ValueError) as error:
        return Finding("s3", False, f"{where} does not answer ({error})", "is it up, and is S3_ENDPOINT right")
    return Finding("s3", True, f"{where} answers, and lists the bucket {settings.s3_bucket!r}")
