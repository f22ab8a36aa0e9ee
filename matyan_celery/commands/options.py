"""Options that several commands have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from storage.store import Store, open_store
from tasks.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

store_option: Callable[[Callable[..., None]], Callable[..., None]] = click.option(
    "--store",
    "store_url",
    metavar="URL",
    help="sqlite:///path.db or fdb:///path/to/fdb.cluster; STORAGE_URL if not given.",
)


def settings_for(store_url: str | None) -> Settings:
    """The settings, with another store if one is given."""
    return load_settings(storage_url=store_url) if store_url else load_settings()


def open_chosen(store_url: str | None) -> Store:
    """Open the store that is given, else the one of the settings."""
    settings = settings_for(store_url)
    return open_store(settings.storage_url, timeout=settings.storage_timeout_seconds)
