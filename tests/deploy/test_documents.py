"""What the pages about deploying and about trouble say: their commands, settings and links exist."""

import re
from pathlib import Path

import click
import pytest

from matyan_celery.__main__ import cli
from tasks.settings import Settings, setting_names
from tests.deploy.tools import CHART, ROOT

PAGES = [ROOT / "docs" / "runbook.md", *sorted((ROOT / "docs" / "how-to").glob("*.md")), CHART / "README.md"]
IDS = [page.name for page in PAGES]
# In capitals, and none of our settings: of Kafka, S3 and the programs beside us.
FOREIGN = {"FLOWER_BASIC_AUTH", "REMAP_SIGTERM"}


def find_command(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words name, and the words after it."""
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group) and words:
        found = command.get_command(context, words[0])
        assert found is not None, f"there is no command {words[0]!r}"
        command, words = found, words[1:]
    return command, words


def check_words(command: click.Command, words: list[str]) -> None:
    """Whether the command takes these options, and these words beside them."""
    parser = command.make_parser(click.Context(command, **command.context_settings))
    _, beside, _ = parser.parse_args([*words])
    takes = any(isinstance(parameter, click.Argument) for parameter in command.params)
    assert takes or not beside, f"{command.name} takes no {beside}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_exist(page: Path) -> None:
    text = re.sub(r"<!-- values: begin.*", "", page.read_text(), flags=re.DOTALL)
    text = re.sub(r'"[^"\n]*"', "TEXT", text)
    found = 0
    for line in re.findall(r"matyan-celery((?: (?:--)?[a-z][\w-]*(?:[= ](?:[A-Z]+\b|[\da-f]+\.\.\.))?)+)", text):
        words = [part for word in line.split() for part in word.split("=")]
        if not words[0].startswith("--"):
            check_words(*find_command(words))
            found += 1
    assert found > 0 or page.name in {"scale.md", "README.md"}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_settings_exist(page: Path) -> None:
    for name in set(re.findall(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)[`=]", page.read_text())) - FOREIGN:
        assert name in setting_names(Settings), f"there is no setting {name}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target
