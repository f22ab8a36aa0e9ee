"""Sweeps where one key has more versions than a page holds: all go, and one that stays keeps no others; and sweeps of a
prefix that is empty for pages on end."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from storage import listing
from storage.blobs import PAGE, Blob, BlobPage, NamePage, Refusal
from storage.errors import BlobsRefused
from storage.sweep import End, Sweep, Tally


class VersionedBlobs:
    """Versions in memory. Behind a version that is gone it finds nothing of that key any more, as moto does."""

    def __init__(self, versions: dict[str, int], kept: Sequence[tuple[str, str]] = ()) -> None:
        self.blobs = [Blob(key, 1, f"{number:06}") for key, count in versions.items() for number in range(count)]
        self.kept = set(kept)
        self.deletes: list[int] = []

    def page(self, prefix: str, after: str = "", *, limit: int = PAGE) -> BlobPage:
        key, _, version = after.partition("\0")
        here = [blob for blob in self.blobs if blob.key.startswith(prefix) and blob.key >= key]
        if version and Blob(key, 1, version) in here:
            here = here[here.index(Blob(key, 1, version)) + 1 :]
        else:
            here = [blob for blob in here if blob.key > key]
        some = here[:limit]
        if len(here) <= limit:
            return BlobPage(some, some[-1].key if some else key, more=False)
        whole = [blob for blob in some if blob.key != some[-1].key]
        if whole:
            return BlobPage(whole, whole[-1].key, more=True)
        return BlobPage(some, f"{some[-1].key}\0{some[-1].version}", more=True, cut=True)

    def names(self, after: str = "", *, limit: int = PAGE) -> NamePage:
        raise NotImplementedError

    def find(self, keys: Sequence[str]) -> list[Blob]:
        raise NotImplementedError

    def delete(self, blobs: Sequence[Blob]) -> list[Refusal]:
        self.deletes.append(len(blobs))
        refused = [blob for blob in blobs if (blob.key, blob.version) in self.kept]
        gone = set(blobs) - set(refused)
        self.blobs = [blob for blob in self.blobs if blob not in gone]
        return [Refusal(blob, "AccessDenied", "no", passing=False) for blob in refused]

    def close(self) -> None:
        """Nothing is held."""


def sweep(blobs: VersionedBlobs, requests: int) -> tuple[End, Tally]:
    tally = Tally()
    with Sweep(blobs, requests=requests, check=lambda: None, note=lambda _: None, tally=tally) as running:
        return running.delete_prefix("r/", deadline=float("inf")), tally


@pytest.mark.parametrize("requests", [1, 4])
def test_a_key_with_more_versions_than_a_page(requests: int) -> None:
    blobs = VersionedBlobs({"r/a": 3, "r/b": 7_500, "r/c": 2, "s/a": 1})
    end, tally = sweep(blobs, requests)
    assert (end, tally.objects, tally.passes) == (End.GONE, 7_505, 1)
    assert [blob.key for blob in blobs.blobs] == ["s/a"]


@pytest.mark.parametrize("requests", [1, 4])
def test_a_version_that_stays_keeps_no_others(requests: int) -> None:
    kept = [("r/b", "000500"), ("r/b", "001999")]
    blobs = VersionedBlobs({"r/a": 3, "r/b": 2_500, "r/c": 2}, kept)
    end, _ = sweep(blobs, requests)
    assert end is End.REFUSED
    assert {blob.key for blob in blobs.blobs} == {"r/b"}
    for _ in range(4):  # the next tries; each gets further
        end, tally = sweep(blobs, requests)
    assert (end, tally.refused) == (End.REFUSED, 2)
    assert [(blob.key, blob.version) for blob in blobs.blobs] == kept


def test_versions_that_are_said_to_go_and_stay_end_a_sweep() -> None:
    blobs = VersionedBlobs({"r/b": 2_500})
    blobs.delete = lambda blobs: []  # type: ignore[method-assign]
    assert sweep(blobs, 1)[0] is End.COMES_BACK


class SparseBlobs:
    """So many empty pages before each key, and behind the last."""

    def __init__(self, empty: int, *keys: str) -> None:
        self.empty = empty
        self.keys = list(keys)
        self.pages = 0

    def page(self, prefix: str, after: str = "", *, limit: int = PAGE) -> BlobPage:
        self.pages += 1
        key, _, mark = after.partition("\0")
        left = [other for other in self.keys if other > key]
        if int(mark or 0) < self.empty:
            return BlobPage([], f"{key}\0{int(mark or 0) + 1}", more=True)
        return BlobPage([Blob(left[0], 1)], left[0], more=True) if left else BlobPage([], key, more=False)

    def names(self, after: str = "", *, limit: int = PAGE) -> NamePage:
        raise NotImplementedError

    def find(self, keys: Sequence[str]) -> list[Blob]:
        raise NotImplementedError

    def delete(self, blobs: Sequence[Blob]) -> list[Refusal]:
        self.keys = [key for key in self.keys if key not in {blob.key for blob in blobs}]
        return []

    def close(self) -> None:
        """Nothing is held."""


class _Over(Exception):
    """The execution is over."""


def sweep_in_slices(blobs: SparseBlobs, pages: int, requests: int) -> tuple[End, Tally, int]:
    """Executions of so many pages each, which know of each other only what is noted."""
    tally, executions = Tally(), 0
    while True:
        executions += 1
        before = tally.pages

        def note(noted: Tally, before: int = before) -> None:
            if noted.pages - before >= pages:
                raise _Over

        kept = Tally(tally.objects, tally.bytes, tally.position, passes=tally.passes)
        try:
            with Sweep(blobs, requests=requests, check=lambda: None, note=note, tally=kept) as running:
                return running.delete_prefix("r/", deadline=float("inf")), kept, executions
        except _Over:
            tally = Tally(kept.objects, kept.bytes, kept.position, passes=kept.passes)
        assert executions < 200


@pytest.mark.parametrize("requests", [1, 4])
@pytest.mark.parametrize("pages", [1, 3, 1_000])
def test_a_sweep_goes_on_within_empty_pages_and_is_done_behind_them(pages: int, requests: int) -> None:
    blobs = SparseBlobs(10, "r/a", "r/b", "r/c")
    end, tally, executions = sweep_in_slices(blobs, pages, requests)
    assert (end, tally.objects, blobs.keys) == (End.GONE, 3, [])
    assert blobs.pages < 200
    assert (executions > 1) == (pages < 1_000)


def test_a_prefix_that_is_empty_for_ever_is_not_done_in_any_number_of_executions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listing, "EMPTY_PAGES", 50)
    with pytest.raises(BlobsRefused, match="does not end: 50 pages in a row"):
        sweep_in_slices(SparseBlobs(10**9), 7, 1)
