"""Which blob store the settings make, and what is said where its library is missing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from matyan_celery.checks.blobs import check_blobs
from storage.errors import BlobsRefused, EngineMissing
from tasks.blob_stores import check_library, make_blobs
from tasks.settings import load_settings

LIBRARIES = [("gcs", "google.cloud.storage"), ("azure", "azure.storage.blob"), ("azure", "azure.identity")]


@pytest.mark.parametrize(("kind", "module"), LIBRARIES)
def test_a_missing_library_says_what_to_install(kind: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(None, blob_backend_type=kind)
    check_library(settings)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EngineMissing, match=rf"needs {module}: pip install 'matyan-celery\[{kind}\]'"):
        make_blobs(settings)
    finding = check_blobs(settings)
    assert not finding.well
    assert f"pip install 'matyan-celery[{kind}]'" in finding.remedy


def test_s3_needs_no_other_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for _, module in LIBRARIES:
        monkeypatch.setitem(sys.modules, module, None)
    check_library(load_settings(None, blob_backend_type="s3"))


@pytest.mark.parametrize(("kind", "module"), LIBRARIES[:2])
def test_no_worker_starts_without_the_library(kind: str, module: str) -> None:
    program = (
        f"import sys; sys.modules[{module!r}] = None; sys.argv[:] = ['celery', '-A', 'tasks', 'worker']; "
        "from celery.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "BLOB_BACKEND_TYPE": kind, "METRICS_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert f"pip install 'matyan-celery[{kind}]'" in done.stderr


def test_nothing_of_google_or_azure_is_imported_for_s3() -> None:
    program = (
        "import sys, tasks.celery; from tasks.blob_stores import make_blobs; make_blobs(tasks.celery.settings); "
        "print(*(name for name in sys.modules if name.startswith(('google.cloud', 'azure'))))"
    )
    environment = {**os.environ, "BLOB_BACKEND_TYPE": "s3"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_azure_without_an_account_names_the_settings() -> None:
    with pytest.raises(BlobsRefused, match="AZURE_CONN_STR and AZURE_ACCOUNT_URL are both empty"):
        make_blobs(load_settings(None, blob_backend_type="azure"))
