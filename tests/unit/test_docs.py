"""What the pages say is there is there: files that they link to, commands with their options, settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from matyan_celery.__main__ import cli
from tasks.settings import Settings, setting_names

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "helm" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)")
CODE = re.compile(r"`[^`]+`|^ {4}.*$", re.MULTILINE)
COMMAND = re.compile(r"(?<![\w/.-])matyan-celery +([a-z][a-z-]*)(?: +([a-z][a-z-]*))?([^`|#\n]*)")
OPTION = re.compile(r"(?<!\S)(--[a-z][a-z_-]*)")
NAME = r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+"
NAMED = re.compile(rf"`({NAME})(?:=[^`]*)?`")
ASSIGNED = re.compile(rf"(?<![\w$])({NAME})=(?!=)")

CONTEXT = click.Context(cli)
HELP = {"--help", "--version"}

# Variables that others define: Celery, Flower, the Prometheus client, the tests, the image, Matyan's client.
FOREIGN = {
    "REMAP_SIGTERM",
    "PROMETHEUS_MULTIPROC_DIR",
    "FLOWER_BASIC_AUTH",
    "MATYAN_REDIS_MASTER",
    "MATYAN_REDIS_URL",
    "MATYAN_BACKEND_URL",
    "MATYAN_FRONTIER_URL",
    "MATYAN_TEST_STOCK_PYTHON",
    "MATYAN_CONFORMANCE",
    "MATYAN_TEST_S3_ENDPOINT",
    "MATYAN_TEST_S3_ACCESS_KEY",
    "MATYAN_TEST_S3_SECRET_KEY",
    "MATYAN_TEST_S3_REGION",
    "AWS_CA_BUNDLE",
    "AWS_EC2_METADATA_DISABLED",
    "REQUESTS_CA_BUNDLE",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "FDB_HOME",
    "FDB_VERSION",
}


def code(page: Path) -> str:
    """Inline code and indented blocks of a page; backslashes at the ends of lines join them."""
    text = re.sub(r"\\\n\s+", "", page.read_text())
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return "\n".join([*CODE.findall(text), *fenced])


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_to_files(page: Path) -> None:
    targets = [target for target in LINK.findall(page.read_text()) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_are_commands(page: Path) -> None:
    assert list(wrong_commands(code(page))) == []


def wrong_commands(text: str) -> Iterator[str]:
    for first, second, rest in COMMAND.findall(text):
        name, command = first, cli.get_command(CONTEXT, first)
        if isinstance(command, click.Group) and second:
            name, command = f"{first} {second}", command.get_command(CONTEXT, second)
        if command is None:
            yield f"matyan-celery {name}"
            continue
        if command.context_settings.get("ignore_unknown_options"):
            continue  # they are another program's, as Flower's are
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        yield from (f"matyan-celery {name} {option}" for option in OPTION.findall(rest) if option not in known | HELP)


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_settings_are_settings(page: Path) -> None:
    tables = "\n".join(line for line in page.read_text().splitlines() if line.lstrip().startswith("|"))
    named = {*NAMED.findall(tables), *ASSIGNED.findall(code(page))}
    assert named - setting_names(Settings) - FOREIGN == set()


def test_what_is_wrong_is_found() -> None:
    assert list(wrong_commands("`matyan-celery statsu`")) == ["matyan-celery statsu"]
    assert list(wrong_commands("matyan-celery dead-letters lsit")) == ["matyan-celery dead-letters lsit"]
    assert list(wrong_commands("matyan-celery replay --strict --fast -")) == ["matyan-celery replay --fast"]
    assert list(wrong_commands("matyan-celery dead-letters list --reason x")) == []
    assert LINK.findall("[a](b/c.md#d) ![e](f.png)") == ["b/c.md", "f.png"]
    assert NAMED.findall("| `INGEST_LANES` | `X_Y=3` |") == ["INGEST_LANES", "X_Y"]
    assert ASSIGNED.findall("INGEST_LANE=3 matyan-celery bridge $A_B=1") == ["INGEST_LANE"]
