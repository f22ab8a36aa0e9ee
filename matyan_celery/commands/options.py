"""Options that several commands have, and opening the store that they choose."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from storage.errors import BadStoreURL
from tasks.opened import open_settings_store
from tasks.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage.store import Store

store_option: Callable[[Callable[..., None]], Callable[..., None]] = click.option(
    "--store",
    "store_url",
    metavar="URL",
    help="sqlite:///path.db or fdb:///path/to/fdb.cluster; the setting STORAGE_URL if not given.",
)


def settings_for(store_url: str | None) -> Settings:
    """The settings, with another store if one is given."""
    return load_settings(storage_url=store_url) if store_url is not None else load_settings()


def open_chosen(store_url: str | None) -> Store:
    """Open the store that is given, else the one of the settings; made if it is absent."""
    settings = settings_for(store_url)
    return open_settings_store(settings)


def open_existing(settings: Settings) -> Store:
    """Open the store of the settings for a command that looks at what is there.

    Raises:
        BadStoreURL: there is no such file; a misspelt path must not become an empty store.
    """
    path = settings.storage_url.removeprefix("sqlite:///")
    if path != settings.storage_url and not Path(path).is_file():
        msg = f"there is no store at {settings.storage_url} (yet): name another with --store or STORAGE_URL"
        raise BadStoreURL(msg)
    return open_settings_store(settings)
