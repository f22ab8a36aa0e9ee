"""A group of commands that ends in one sentence, not in a traceback, where a person can mend what is wrong."""

from __future__ import annotations

import errno
from typing import Any

import click

from storage.errors import StorageError
from storage.recorded import BadLineError
from tasks.errors import WrongSettingError


class _Told(click.ClickException):
    """An error that a person can mend."""


class _WrongSetting(_Told):
    exit_code = 2


class ToldGroup(click.Group):
    """Our commands, whether ``matyan-celery`` or ``celery`` started them."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; exit code 2 for a wrong setting, 1 for other errors."""
        try:
            return super().invoke(ctx)
        except WrongSettingError as error:
            raise _WrongSetting(str(error)) from error
        except (StorageError, BadLineError) as error:
            raise _Told(str(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader has gone, as in `... | head`: click ends in silence
                raise
            raise _Told(str(error)) from error
