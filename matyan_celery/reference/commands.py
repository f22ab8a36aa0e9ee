"""The page of commands: the help that each gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from matyan_celery.reference.tables import NOTE

if TYPE_CHECKING:
    from collections.abc import Iterator

_WIDTH: Final = 100
_INTRODUCTION: Final = """\
What `matyan-celery` and each of its commands say with `--help`. The workers and beat are Celery's own commands:
`celery -A tasks worker` and `celery -A tasks beat`.
"""


def write_commands() -> str:
    """The page."""
    from matyan_celery.__main__ import cli

    lines = [NOTE, "# Commands", "", _INTRODUCTION]
    for names, help_text in _walk(cli, ["matyan-celery"], None):
        title = "#" * min(len(names) + 1, 4)
        lines += [f"{title} {' '.join(names)}", "", "```text", help_text.rstrip(), "```", ""]
    return "\n".join(lines)


def _walk(command: click.Command, names: list[str], parent: click.Context | None) -> Iterator[tuple[list[str], str]]:
    """Each command below one, itself first, with its help."""
    settings: dict[str, Any] = {**command.context_settings, "terminal_width": _WIDTH, "max_content_width": _WIDTH}
    with click.Context(command, parent=parent, info_name=names[-1], **settings) as context:
        yield names, "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                below = command.get_command(context, name)
                if below is not None:
                    yield from _walk(below, [*names, name], context)
