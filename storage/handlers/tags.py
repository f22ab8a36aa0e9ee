"""add_tag and remove_tag (CONTRACT 6.8, 6.9). A tag's run count counts the runs that have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.encoding import TRUE, pack_key, unpack_value
from storage.handlers.run import Run, count_links, entity_fields
from storage.sequences import require

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage.envelope import Envelope


def add_tag(run: Run, envelope: Envelope, new_uuid: Callable[[], str]) -> None:
    """Tag the run, making what is missing: the run, the tag."""
    name = require(envelope.payload, "tag_name")
    keys, draft = run.keys, run.draft
    system = keys.directories.system
    run.ensure()
    by_name = system + pack_key("tags_by_name", name)
    uuid = unpack_value(draft.get(by_name))
    if uuid is None:
        uuid = new_uuid()
        fields = {
            "name": name,
            "color": "",
            "description": "",
            "is_archived": False,
            "run_count": 0,
            "created_at": run.time,
            "updated_at": run.time,
        }
        entity_fields(draft, system + pack_key("tags", uuid), fields)
        draft.set_value(by_name, uuid)
    link = keys.tag_links + pack_key(uuid)
    if draft.get(link) is None:
        count_links(draft, system + pack_key("tags", uuid), 1)
    draft.set(link, TRUE)
    draft.set(system + pack_key("tag_runs", uuid) + keys.packed, TRUE)
    draft.set(keys.data + pack_key("tags", uuid), TRUE)
    if name:  # the peer indexes no empty tag name (conformance s39)
        run.add_entry("tag", name)


def remove_tag(run: Run, envelope: Envelope) -> None:
    """Take a tag off the run; nothing where there is no such tag."""
    name = require(envelope.payload, "tag_name")
    keys, draft = run.keys, run.draft
    system = keys.directories.system
    uuid = unpack_value(draft.get(system + pack_key("tags_by_name", name)))
    if uuid is None:
        return
    link = keys.tag_links + pack_key(uuid)
    if draft.get(link) is not None:
        count_links(draft, system + pack_key("tags", uuid), -1)
    run.remove_entry("tag", name)
    draft.clear(link)
    draft.clear(system + pack_key("tag_runs", uuid) + keys.packed)
    draft.clear(keys.data + pack_key("tags", uuid))
