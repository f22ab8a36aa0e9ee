"""``matyan-celery cascades``: what was deleted while runs may still point to it."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from matyan_celery.commands.options import open_existing, settings_for, store_option
from matyan_celery.commands.printing import printable, show_time
from storage.cascades import CascadeKind, CascadeState
from storage.masking import mask_url
from tasks.redis_answers import explain

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage.cascades import Cascade
    from storage.store import Store

_KINDS = click.Choice([str(kind) for kind in CascadeKind])
_STATES = click.Choice([str(state) for state in CascadeState])


def _named(command: Callable[..., None]) -> Callable[..., None]:
    for decorate in (click.argument("uuid"), click.argument("kind", type=_KINDS), store_option):
        command = decorate(command)
    return command


@click.group()
def cascades() -> None:
    """List, show, requeue or purge what was deleted.

    When an experiment or tag is deleted, what still points to it is cleared step by step; a deleted project is held
    for a person.
    """


@cascades.command(name="list", epilog="Example: matyan-celery cascades list --state failed --state held")
@store_option
@click.option("--state", "states", type=_STATES, multiple=True, help="Only in this state; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line each.")
def list_cascades(store_url: str | None, states: tuple[str, ...], as_json: bool) -> None:
    """List cascades, by state."""
    count: Counter[str] = Counter()
    chosen = [CascadeState(state) for state in states] or list(CascadeState)
    with open_existing(settings_for(store_url)) as store:
        for entry in store.cascades.each(store.engine, states=chosen):
            if as_json:
                click.echo(json.dumps(_as_fields(entry)))
                continue
            if not count:
                click.echo(f"{'STATE':<9} {'KIND':<11} {'ID':<36}  {'RUNS':>6}  {'MOVED':<28}  ERROR")
            count[entry.state] += 1
            place = f"{entry.state:<9} {entry.kind:<11} {entry.uuid:<36}  {entry.changed:>6}"
            last_line = entry.error.strip().splitlines()[-1:] or [""]
            click.echo(printable(f"{place}  {show_time(entry.updated):<28}  {last_line[0][:100]}"))
    if not as_json:
        parts = ", ".join(f"{number} {state}" for state, number in count.items())
        click.echo(f"{count.total()} cascades: {parts}" if count else "no cascades")


@cascades.command(epilog="Example: matyan-celery cascades show experiment 3fa85f64-5717-4562-b3fc-2c963f66afa6")
@_named
def show(store_url: str | None, kind: str, uuid: str) -> None:
    """Show one cascade with its whole error."""
    with open_existing(settings_for(store_url)) as store:
        entry = _find(store, kind, uuid)
    for name, value in _as_fields(entry).items():
        shown = show_time(value) if name in {"created", "updated", "due"} else value
        click.echo(f"{name:<9} " + printable(str(shown), lines=True).replace("\n", "\n          "))


@cascades.command(epilog="Example: matyan-celery cascades requeue tag 3fa85f64-5717-4562-b3fc-2c963f66afa6")
@_named
def requeue(store_url: str | None, kind: str, uuid: str) -> None:
    """Begin one anew, whatever its state."""
    from tasks.app import make_app
    from tasks.queues import CASCADE_TASK

    settings = settings_for(store_url)
    with open_existing(settings) as store:
        _find(store, kind, uuid)
        entry = store.engine.transact(
            lambda transaction: store.cascades.requeue(transaction, CascadeKind(kind), uuid, now=time.time())
        )
    if entry is None or not entry.is_open:
        msg = "it stays held: " + ("it is gone" if entry is None else entry.error)
        raise click.ClickException(msg)
    try:
        with make_app(settings) as app:
            app.send_task(CASCADE_TASK, (kind, uuid), retry=False)
    except (OperationalError, RedisError) as error:
        click.echo(f"pending, and beat sends its task (jobs run stalled-cleanups): {mask_url(explain(error))}")
        return
    click.echo("pending, and sent to the workers")


@cascades.command(epilog="Example: matyan-celery cascades purge project 0123abcd")
@_named
def purge(store_url: str | None, kind: str, uuid: str) -> None:
    """Forget one. What still points to the deleted entity stays as it is."""
    with open_existing(settings_for(store_url)) as store:
        _find(store, kind, uuid)
        store.engine.transact(lambda transaction: store.cascades.purge(transaction, CascadeKind(kind), uuid))
    click.echo("purged")


def _find(store: Store, kind: str, uuid: str) -> Cascade:
    entry = store.engine.read(lambda transaction: store.cascades.get(transaction, CascadeKind(kind), uuid))
    if entry is None:
        msg = f"there is no cascade of the {kind} {printable(uuid)}: look with `matyan-celery cascades list`"
        raise click.ClickException(msg)
    return entry


def _as_fields(entry: Cascade) -> dict[str, Any]:
    return {name: value for name, value in asdict(entry).items() if name not in {"walk", "after"}}
