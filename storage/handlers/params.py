"""log_hparams and blob_ref: trees below a run's ``attrs``, and the index of hparams (CONTRACT 3.1, 6.4, 6.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from storage.encoding import EMPTY, TRUE, first_element, pack_element, pack_key, pack_value, span, unpack_value

if TYPE_CHECKING:
    from storage.envelope import Envelope
    from storage.handlers.run import Run

_LEAF: Final = pack_key("__leaf__")
_EMPTY_DICT: Final = pack_key("__empty_dict__")
_EMPTY_LIST: Final = pack_key("__empty_list__")
_MARKERS: Final = (_LEAF, _EMPTY_DICT, _EMPTY_LIST)
_INDEX: Final = pack_key("hparam")
_HPARAMS: Final = "hparams"


def log_hparams(run: Run, envelope: Envelope) -> None:
    """Write a tree at the path that its one-key objects lead to, and bring the index of hparams up to date."""
    value = envelope.payload.get("value")
    if not isinstance(value, dict) or not value:
        return
    path: list[str] = []
    while isinstance(value, dict) and len(value) == 1:
        (element, value) = next(iter(value.items()))
        path.append(element)
    _write_tree(run, path, value)
    run.touch()
    if not path or path[0] == _HPARAMS:
        _index_hparams(run)


def blob_ref(run: Run, envelope: Envelope) -> None:
    """Note where an artifact lies."""
    payload = envelope.payload
    place = {
        "s3_key": payload.get("s3_key", ""),
        "content_type": payload.get("content_type", "application/octet-stream"),
    }
    _write_tree(run, ["__blobs__", payload.get("artifact_path", "unknown")], place)
    run.touch()


def _write_tree(run: Run, path: list[Any], value: Any) -> None:
    """Replace the tree at a path below ``attrs``.

    What the path runs through is an object from now on: its own leaf or empty marker goes, or the tree could not be
    read back (docs/compatibility.md, e).
    """
    draft = run.draft
    prefix = run.keys.attrs
    for element in path:
        for marker in _MARKERS:
            draft.clear(prefix + marker)
        prefix += pack_element(element)
    draft.clear_range(*span(prefix))
    for key, packed in _flatten(prefix, value):
        draft.set(key, packed)


def _flatten(prefix: bytes, value: Any) -> list[tuple[bytes, bytes]]:
    """The keys of a tree: one a leaf, one an empty container."""
    pairs: list[tuple[bytes, bytes]] = []
    waiting = [(prefix, value)]
    while waiting:
        at, node = waiting.pop()
        if isinstance(node, dict):
            if not node:
                pairs.append((at + _EMPTY_DICT, TRUE))
            waiting.extend((at + pack_element(element), child) for element, child in node.items())
        elif isinstance(node, list):
            if not node:
                pairs.append((at + _EMPTY_LIST, TRUE))
            waiting.extend((at + pack_element(index), child) for index, child in enumerate(node))
        else:
            pairs.append((at + _LEAF, pack_value(node)))
    return pairs


def _index_hparams(run: Run) -> None:
    """Make the hparam entries mirror the hparams that are stored: one for each scalar at the top."""
    keys, draft = run.keys, run.draft
    prefix = keys.attrs + pack_element(_HPARAMS)
    entries = run.entries("hparam")
    wanted: dict[bytes, bytes] = {}
    for name, value in _top_scalars(draft.get_range(*span(prefix)), len(prefix)):
        forward = _INDEX + name + value + keys.packed
        wanted[keys.reverse + forward] = keys.directories.indexes + forward
    for reverse, forward in entries.items():
        if reverse not in wanted:
            draft.clear(reverse)
            draft.clear(forward)
    for reverse, forward in wanted.items():
        if reverse not in entries:
            draft.set(reverse, EMPTY)
            draft.set(forward, EMPTY)


def _top_scalars(pairs: list[tuple[bytes, bytes]], skip: int) -> list[tuple[bytes, bytes]]:
    """Names and values, packed, of the scalars right below a tree's top, if the top is an object."""
    found = []
    all_numbers = True
    for key, value in pairs:
        below = key[skip:]
        if below in _MARKERS:
            continue  # the top's own: a scalar or an empty container
        name = first_element(below)
        all_numbers = all_numbers and 0x0B <= name[0] <= 0x1D
        if below[len(name) :] == _LEAF:
            leaf = unpack_value(value)
            if isinstance(leaf, (bool, int, float, str)):
                found.append((name, pack_element(leaf)))
    return [] if all_numbers else found
