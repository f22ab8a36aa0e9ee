"""Errors that end a program before it has begun."""

from __future__ import annotations


class WrongSettingError(Exception):
    """A setting is wrong or contradicts another; the message names it and says what to do."""
