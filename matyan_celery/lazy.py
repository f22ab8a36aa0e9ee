"""A group of commands each of which is imported when it is run: a probe must not wait for Kafka's client to load."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from matyan_celery.commands.told import ToldGroup

if TYPE_CHECKING:
    from collections.abc import Mapping

    import click


class LazyGroup(ToldGroup):
    """Commands by name, each as ``module:attribute``.

    Args:
        commands: where each command is.
    """

    def __init__(self, *args: Any, places: Mapping[str, str], **options: Any) -> None:
        super().__init__(*args, **options)
        self._places = dict(places)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order of the help."""
        del ctx
        return sorted(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name, imported now."""
        del ctx
        place = self._places.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command
