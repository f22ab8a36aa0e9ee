"""No password is shown, however it is written; the rest of the text stays."""

from __future__ import annotations

import subprocess
import sys

import pytest

from storage.engine import open_engine
from storage.errors import BadStoreURL
from storage.masking import mask_url

SECRET = "pa:ss/w?rd#&@x"  # as people write it who do not escape it


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        (f"redis://:{SECRET}@localhost:6379/0", "redis://:***@localhost:6379/0"),
        (f"rediss://user:{SECRET}@h:1/0?ssl_cert_reqs=required", "rediss://user:***@h:1/0?ssl_cert_reqs=required"),
        ("redis://token@h", "redis://***@h"),
        ("redis://h:1/0?password=geheim&db=2", "redis://h:1/0?password=***&db=2"),
        (
            f"sentinel://:{SECRET}@a:1;sentinel://:{SECRET}@b:2,sentinel://c:3",
            "sentinel://:***@a:1;sentinel://:***@b:2,sentinel://c:3",
        ),
        (
            f"cannot connect to 'amqp://me:{SECRET}@h//': ask admin@example.org",
            "cannot connect to 'amqp://me:***@h//': ask admin@example.org",
        ),
        ("mail a@b about sqlite:///path.db and c@d", "mail a@b about sqlite:///path.db and c@d"),
        ("", ""),
    ],
)
def test_passwords_are_hidden(text: str, shown: str) -> None:
    assert mask_url(text) == shown


def test_a_wrong_store_url_is_shown_without_its_password() -> None:
    for url in (f"redis://:{SECRET}@h/0", f"sqlite:/{SECRET}", f"postgres://me:{SECRET}@h/store"):
        with pytest.raises(BadStoreURL) as caught:
            open_engine(url)
        assert "://" not in url or SECRET not in str(caught.value)


SCRIPT = """
import logging, structlog
from tasks.logs import configure_logs
configure_logs("INFO")
url = "redis://:geheim@localhost:6379/0"
structlog.get_logger("ours").info("said", url=url, several=[url, {"of": url}])
logging.getLogger("theirs").warning("cannot connect to %s", url)
try:
    raise ValueError(url)
except ValueError:
    structlog.get_logger("ours").exception("broke")
"""


def test_log_lines_are_without_passwords() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stderr.count("redis://:***@localhost:6379/0") == 5
    assert "geheim" not in done.stderr.replace('url = "redis', "")
