"""``matyan-celery cleanups``: look at the cleanups of deleted runs' blobs; requeue, hold or forget them."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import click

from matyan_celery.commands.options import open_existing, settings_for, store_option
from matyan_celery.commands.printing import printable, show_time
from matyan_celery.commands.told import ToldGroup
from storage.cleanups import CleanupState
from tasks.app import make_app
from tasks.requeue import Requeuer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from storage.cleanups import Cleanup
    from storage.engine import Transaction
    from storage.store import Store

_STATES = [str(state) for state in CleanupState]
_WAITING = (CleanupState.FAILED, CleanupState.HELD)  # for a person
_UNDONE = (*_WAITING, CleanupState.RUNNING, CleanupState.PENDING)

_COUNTED = 100_001  # of those that are done, which may be millions


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option(
            "--state", "states", type=click.Choice(_STATES), multiple=True, help="Only in this state; repeatable."
        ),
        click.option("--run", "runs", metavar="RUN", multiple=True, help="Only of this run id; repeatable."),
        store_option,
    ):
        command = option(command)
    return command


def _choose(
    store: Store, runs: tuple[str, ...], states: tuple[str, ...], otherwise: tuple[CleanupState, ...] | None
) -> Iterator[Cleanup]:
    """The cleanups that pass the filters; those in the states of ``otherwise`` (None: any) where there are none."""
    wanted = tuple(CleanupState(state) for state in dict.fromkeys(states))
    if runs:
        for run in dict.fromkeys(runs):
            entry = _read(store, run)
            if entry is not None and (not wanted or entry.state in wanted):
                yield entry
        return
    yield from store.cleanups.each(store.engine, states=wanted or otherwise)


def _read(store: Store, run: str) -> Cleanup | None:
    return store.engine.read(lambda transaction: store.cleanups.get(transaction, run))


@click.group(cls=ToldGroup)
def cleanups() -> None:
    """List, show, requeue, hold or forget cleanups.

    A cleanup deletes the blobs of a deleted run. One that fails too often is failed, one that must not go on (its run
    lives, say) is held; both wait here for a person. Failed and held ones cost nothing, and nothing is lost meanwhile.
    """


@cleanups.command(
    name="list",
    epilog="""\b
Examples:
  matyan-celery cleanups list
  matyan-celery cleanups list --state failed --json | jq -r .run""",
)
@_filters
@click.option("--all", "everything", is_flag=True, help="Also those that are done.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line a cleanup.")
def list_cleanups(
    store_url: str | None, runs: tuple[str, ...], states: tuple[str, ...], everything: bool, as_json: bool
) -> None:
    """List cleanups, failed and held ones first; those that are done only with --all or --state done."""
    count: Counter[str] = Counter()
    nothing = "no cleanup passes these filters" if runs or states else "no cleanups"
    with open_existing(settings_for(store_url)) as store:
        otherwise = (*_UNDONE, CleanupState.DONE) if everything else _UNDONE
        for entry in _choose(store, runs, states, otherwise):
            if as_json:
                click.echo(json.dumps(dataclasses.asdict(entry)))
                continue
            if not count:
                click.echo(_as_columns("RUN", "STATE", "ATTEMPTS", "OBJECTS", "CHANGED", "ERROR"))
            count[entry.state] += 1
            click.echo(
                _as_columns(
                    entry.run,
                    entry.state,
                    str(entry.attempts),
                    str(entry.objects),
                    show_time(entry.updated)[:19],
                    entry.error[:100],
                )
            )
        if not (as_json or count or runs or states):
            nothing = _tell_done(store.cleanups.count_some(store.engine, CleanupState.DONE, most=_COUNTED))
    if not as_json:
        parts = ", ".join(f"{number} {state}" for state, number in count.items())
        click.echo(f"{count.total()} cleanups: {parts}" if count else nothing)


@cleanups.command(epilog="Example: matyan-celery cleanups show --run 5f0c...")
@_filters
def show(store_url: str | None, runs: tuple[str, ...], states: tuple[str, ...]) -> None:
    """Show cleanups with all that is known of them, the last error in full; failed and held ones without a filter."""
    found = 0
    with open_existing(settings_for(store_url)) as store:
        for entry in _choose(store, runs, states, _WAITING):
            found += 1
            click.echo(_as_text(entry))
    if not found:
        msg = "no cleanup passes these filters"
        raise click.ClickException(msg)


@cleanups.command(
    epilog="""\b
Examples:
  matyan-celery cleanups requeue --all
  matyan-celery cleanups requeue --run 5f0c...
  matyan-celery cleanups requeue --force 5f0c...     (delete its blobs although the run lives)"""
)
@_filters
@click.option(
    "--all", "everything", is_flag=True, help="All that are failed, or held but not by a person; without a filter."
)
@click.option(
    "--force",
    "forced",
    metavar="RUN",
    multiple=True,
    help="This run's, also if the run lives or the event's keys are outside of its prefix; repeatable.",
)
def requeue(
    store_url: str | None, runs: tuple[str, ...], states: tuple[str, ...], everything: bool, forced: tuple[str, ...]
) -> None:
    """Begin cleanups anew, and send their tasks.

    Safe to run twice. One that a person holds is requeued by --run alone, and left by --all and --state.

    Another held one is looked at again: where its run still lives, it is held again; only --force, which takes the
    run's id, deletes the blobs of a run that lives. For one round: the next event is looked at as ever.
    """
    if forced and (runs or states or everything):
        msg = "--force names its runs itself: give it without other filters"
        raise click.UsageError(msg)
    if not forced:
        _need_choice(runs, states, everything=everything)
    became: Counter[str] = Counter()
    settings = settings_for(store_url)
    with open_existing(settings) as store, make_app(settings) as app:
        requeuer = Requeuer(store, app)
        chosen = (entry.run for entry in _choose(store, runs, states, _WAITING))
        for run in forced or (chosen if states or not runs else runs):
            requeued = requeuer.requeue_cleanup(run, force=bool(forced), named=bool(forced or runs))
            became[requeued.kind] += 1
            click.echo(printable(f"{run}: {requeued.words}"))
    click.echo(", ".join(f"{count} {kind}" for kind, count in sorted(became.items())) or "no cleanup passes these")
    if became["gone"]:
        sys.exit(1)


@cleanups.command(epilog="Example: matyan-celery cleanups hold --run 5f0c... --reason 'legal asked for these files'")
@_filters
@click.option("--reason", required=True, help="Why; shown wherever the cleanup is listed.")
def hold(store_url: str | None, runs: tuple[str, ...], states: tuple[str, ...], reason: str) -> None:
    """Stop cleanups until a person requeues them. A worker that is at one stops before its next page."""
    _need_choice(runs, states, everything=False)

    def work(transaction: Transaction) -> Cleanup | None:
        return store.cleanups.hold(transaction, run, reason=reason, now=time.time())

    count, absent = 0, 0
    with open_existing(settings_for(store_url)) as store:
        for run in [entry.run for entry in _choose(store, runs, states, None)] if states else runs:
            if store.engine.transact(work) is None:
                absent += 1
                click.echo(printable(f"{run}: there is no cleanup of this run"))
            else:
                count += 1
                click.echo(printable(f"{run}: held"))
    click.echo(f"{count} held")
    if absent:
        sys.exit(1)


@cleanups.command(epilog="Example: matyan-celery cleanups purge --state done")
@_filters
@click.option("--all", "everything", is_flag=True, help="All of them, in whatever state; without a filter.")
def purge(store_url: str | None, runs: tuple[str, ...], states: tuple[str, ...], everything: bool) -> None:
    """Forget cleanups: their entries go, blobs that are still there stay. Look with `list` and the filters first."""
    _need_choice(runs, states, everything=everything)
    count = 0
    with open_existing(settings_for(store_url)) as store:
        for entry in _choose(store, runs, states, None):
            count += store.engine.transact(lambda transaction: store.cleanups.purge(transaction, entry.run))  # noqa: B023
    click.echo(f"{count} forgotten")


def _tell_done(done: int) -> str:
    """What to say where nothing is left to do."""
    if not done:
        return "no cleanups"
    number = f"more than {_COUNTED - 1:,}" if done == _COUNTED else f"{done:,}"
    return f"no cleanup is left to do; {number} are done: list them with --all, or --state done"


def _need_choice(runs: tuple[str, ...], states: tuple[str, ...], *, everything: bool) -> None:
    given = bool(runs or states)
    if given == everything:
        msg = "give --all or filters, not both" if given else "give --run or --state, or --all"
        raise click.UsageError(msg)


def _as_columns(run: str, state: str, attempts: str, objects: str, changed: str, error: str) -> str:
    return printable(f"{run:<32}  {state:<7}  {attempts:>8}  {objects:>9}  {changed:<19}  {error}".rstrip())


def _as_text(entry: Cleanup) -> str:
    what = "everything under the run's prefix" if entry.whole else ""
    if entry.named:
        what += (", and " if what else "") + f"{entry.named} keys that an event named"
    by_hand = " by a person" if entry.by_hand else ""
    forced = ", forced" if entry.forced else ""
    due = {CleanupState.DONE: "never: it is done"} | dict.fromkeys(_WAITING, "when a person requeues it")
    return "\n".join(
        (
            printable(entry.run),
            f"  state     {entry.state}{by_hand} (round {entry.round}{forced}, {entry.attempts} attempts in it)",
            f"  asked by  {entry.source}",
            f"  deletes   {what or 'nothing more'}",
            f"  deleted   {entry.objects} objects, {entry.bytes} bytes",
            f"  asked     {show_time(entry.created)}",
            f"  changed   {show_time(entry.updated)}",
            f"  due       {due.get(entry.state) or show_time(entry.due)}",
            f"  task      {entry.task_id or '-'}",
            "  error     " + (printable(entry.error, lines=True).replace("\n", "\n            ") or "-"),
        )
    )
