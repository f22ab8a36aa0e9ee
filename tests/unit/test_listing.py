"""A listing ends where the store says so; one that leads back, or never says so, is an error."""

from __future__ import annotations

import pytest

from storage import listing
from storage.blobs import NamePage
from storage.errors import BlobsRefused
from storage.listing import Headway, each_page


def test_empty_pages_are_passed_over() -> None:
    pages = [NamePage([], "1", more=True), NamePage(["a"], "2", more=True), NamePage([], "3", more=True)]
    answers = iter([*pages, NamePage(["b"], "4", more=False)])
    asked: list[str] = []

    def ask(after: str) -> NamePage:
        asked.append(after)
        return next(answers)

    assert [page.names for page in each_page(ask, "it")] == [[], ["a"], [], ["b"]]
    assert asked == ["", "1", "2", "3"]


@pytest.mark.parametrize("before", [0, 1, 5, 100])
@pytest.mark.parametrize("length", [1, 2, 3, 17])
def test_a_circle_is_found_wherever_it_begins_and_however_long_it_is(before: int, length: int) -> None:
    asked = 0

    def ask(after: str) -> NamePage:
        nonlocal asked
        asked += 1
        number = int(after or 0) + 1
        return NamePage(["a"], str(number if number < before + length else before), more=True)

    with pytest.raises(BlobsRefused, match="the listing of it does not move on"):
        list(each_page(ask, "it"))
    assert asked <= 4 * (before + length + 1)


def test_a_page_that_begins_where_it_ends_is_said_at_once() -> None:
    headway = Headway("it", "r/9")
    with pytest.raises(BlobsRefused, match="'r/9'"):
        headway.step("r/9", found=True)


def test_a_long_listing_is_none() -> None:
    headway = Headway("it")
    for number in range(10_000):
        headway.step(str(number), found=number % 50 == 0)
    assert headway.empty == 49


def test_one_that_is_empty_for_ever_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "EMPTY_PAGES", 100)
    headway = Headway("it", empty=90)
    for number in range(9):
        headway.step(str(number), found=False)
    with pytest.raises(BlobsRefused, match="the listing of it does not end: 100 pages in a row"):
        headway.step("9", found=False)
