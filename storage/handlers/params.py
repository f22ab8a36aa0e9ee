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
_CONTAINERS: Final = (dict, list)
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
    pairs: dict[bytes, bytes] = {}
    _flatten(prefix, value, pairs)
    draft.set_all(pairs)


def _flatten(at: bytes, node: Any, into: dict[bytes, bytes]) -> None:
    """Add the keys of a tree: one a leaf, one an empty container. The parser has bounded how deep it is."""
    children: list[tuple[Any, Any]]
    if type(node) is dict:
        children, empty = list(node.items()), _EMPTY_DICT
    elif type(node) is list:
        children, empty = list(enumerate(node)), _EMPTY_LIST
    else:
        into[at + _LEAF] = pack_value(node)
        return
    if not children:
        into[at + empty] = TRUE
    for element, child in reversed(children):  # of several bad leaves the last is told of
        key = at + pack_element(element)
        if type(child) in _CONTAINERS:
            _flatten(key, child, into)
        else:
            into[key + _LEAF] = pack_value(child)


def _index_hparams(run: Run) -> None:
    """Make the hparam entries mirror the hparams that are stored: one for each scalar at the top."""
    draft, run_id = run.draft, run.keys.packed
    reverse, indexes = run.keys.reverse, run.keys.directories.indexes
    prefix = run.keys.attrs + pack_element(_HPARAMS)
    stored = run.entries("hparam")
    top = _top_scalars(draft.get_range(*span(prefix)), len(prefix))
    wanted = dict.fromkeys(_INDEX + name + value + run_id for name, value in top)
    for forward in stored:
        if forward not in wanted:
            draft.clear(reverse + forward)
            draft.clear(indexes + forward)
    for forward in wanted:
        if forward not in stored:
            draft.set(reverse + forward, EMPTY)
            draft.set(indexes + forward, EMPTY)


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
