"""Does the blob store answer, may we list and delete in it, and what time has it?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from matyan_celery.checks.clocks import compare_clocks
from matyan_celery.checks.finding import Finding
from storage.errors import BlobsAway, BlobsRefused, EngineMissing
from storage.masking import mask_url
from tasks.blob_stores import make_blobs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from storage.blobs import ProbedBlobStore
    from tasks.settings import Settings

_PROBES: Final = "matyan-celery-probe/"  # no run's prefix: run ids have no such form


def check_blobs(settings: Settings) -> Finding:
    """List one name. Writes nothing."""
    (finding,) = _open(settings, lambda _: iter(()))
    return finding


def look_at_blobs(settings: Settings) -> Iterator[Finding]:
    """List one name, then write an empty object and delete it.

    Workers need not be allowed to write: where that is refused, whether they may delete cannot be tried.
    """
    yield from _open(settings, lambda blobs: _try_probe(settings, blobs))


def _open(settings: Settings, look: Callable[[ProbedBlobStore], Iterator[Finding]]) -> Iterator[Finding]:
    """What listing a name shows; where all is well, what else is looked at."""
    kind, where = settings.blob_backend_type, _describe(settings)
    try:
        blobs = make_blobs(settings)
    except EngineMissing as error:
        yield Finding(kind, False, f"{where} cannot be used (its library is not installed)", str(error))
        return
    except (BlobsAway, BlobsRefused, ValueError) as error:  # boto3's for an endpoint that is no URL
        yield Finding(kind, False, f"{where} cannot be used ({error})", f"look at the settings of {kind}")
        return
    try:
        blobs.names(limit=1)
        found = list(look(blobs))
    except BlobsAway as error:
        yield Finding(kind, False, f"{where} does not answer ({error})", "is it up, and is its address right")
    except BlobsRefused as error:
        remedy = "look at bucket and credentials; they must allow to list and delete"
        yield Finding(kind, False, f"{where} refuses us ({error})", remedy)
    else:
        yield from found or [Finding(kind, True, f"{where} answers, and lets us list")]
    finally:
        blobs.close()


def _try_probe(settings: Settings, blobs: ProbedBlobStore) -> Iterator[Finding]:
    kind, where = settings.blob_backend_type, _describe(settings)
    key = f"{_PROBES}{uuid4().hex}"
    try:
        probe = blobs.write_probe(key)
    except BlobsRefused as error:
        sentence = f"{where} answers, and lets us list; it takes no probe ({error}), so deleting is not tried"
        yield Finding(kind, True, sentence)
        return
    try:
        written = [blob.modified for blob in blobs.page(key).blobs if blob.key == key]
        now = time.time()
    finally:
        refusals = blobs.delete([probe])
    if refusals:
        remedy = f"the credentials must allow to delete, or no cleanup is ever done; then delete {key}"
        yield Finding(kind, False, f"{where} took a probe, and does not let us delete it ({refusals[0]})", remedy)
    else:
        yield Finding(kind, True, f"{where} answers, lets us list, and took and gave back a probe")
    if any(written):
        yield compare_clocks(f"{where}'s", max(written) - now)


def _describe(settings: Settings) -> str:
    match settings.blob_backend_type:
        case "gcs":
            return f"Google's bucket {settings.gcs_bucket!r}"
        case "azure":
            return f"Azure's container {settings.azure_container!r}"
    return f"S3 at {mask_url(settings.s3_endpoint) or 'Amazon'}"
