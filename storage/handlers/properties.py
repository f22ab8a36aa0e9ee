"""set_run_property, with the experiment that it may name (CONTRACT 6.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from storage.encoding import TRUE, pack_key, unpack_value
from storage.handlers.run import Run, count_links, entity_fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage.envelope import Envelope


def set_run_property(run: Run, envelope: Envelope, new_uuid: Callable[[], str]) -> None:
    """Change what is present of name, description, archived and experiment; create the run if it has no meta."""
    payload = envelope.payload
    run.ensure()
    changed = False
    for field in ("name", "description"):
        if field in payload:
            run.put(field, payload[field])
            changed = True
    if "archived" in payload:
        archived = payload["archived"]
        run.move_entry("archived", run.get("is_archived"), archived)
        run.put("is_archived", archived)
        changed = True
    if "experiment" in payload:
        uuid = _link_experiment(run, payload["experiment"], new_uuid)
        run.put("experiment_id", uuid)
        changed = True
    if changed:
        run.touch()


def _link_experiment(run: Run, name: Any, new_uuid: Callable[[], str]) -> str:
    """Link the run to the experiment of this name, which is made if there is none; its uuid."""
    keys, draft = run.keys, run.draft
    system = keys.directories.system
    by_name = system + pack_key("experiments_by_name", name)
    uuid = unpack_value(draft.get(by_name))
    if uuid is None:
        uuid = new_uuid()
        fields = {
            "name": name,
            "description": "",
            "is_archived": False,
            "run_count": 0,
            "created_at": run.time,
            "updated_at": run.time,
        }
        entity_fields(draft, system + pack_key("experiments", uuid), fields)
        draft.set_value(by_name, uuid)
    old = unpack_value(draft.get(keys.experiment_link))
    if old is not None:
        _unlink(run, old)
    link = system + pack_key("experiment_runs", uuid) + keys.packed
    if draft.get(link) is None:
        count_links(draft, system + pack_key("experiments", uuid), 1)
    draft.set_value(keys.experiment_link, uuid)
    draft.set(link, TRUE)
    run.add_entry("experiment", name)
    return str(uuid)


def _unlink(run: Run, uuid: str) -> None:
    """Drop the run's link to an experiment, with the index entry under the experiment's present name."""
    system = run.keys.directories.system
    link = system + pack_key("experiment_runs", uuid) + run.keys.packed
    entity = system + pack_key("experiments", uuid)
    name = unpack_value(run.draft.get(entity + pack_key("name")))
    if name is not None:
        run.remove_entry("experiment", name)
    if run.draft.get(link) is not None:
        count_links(run.draft, entity, -1)
    run.draft.clear(link)
