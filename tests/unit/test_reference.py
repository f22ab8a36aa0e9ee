"""The reference pages are as the code is."""

from __future__ import annotations

from pathlib import Path

from matyan_celery.reference.pages import PAGES, find_outdated, write_pages
from tasks.settings import Settings

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


def test_the_pages_are_as_the_code_is() -> None:
    assert find_outdated(FOLDER) == [], "run `make docs`"


def test_a_page_that_differs_is_found(tmp_path: Path) -> None:
    assert find_outdated(tmp_path) == list(PAGES)
    write_pages(tmp_path)
    assert find_outdated(tmp_path) == []
    page = tmp_path / "settings.md"
    page.write_text(page.read_text().replace("`matyan-artifacts`", "`another`"))
    assert find_outdated(tmp_path) == ["settings.md"]


def test_every_setting_has_a_meaning() -> None:
    page = (FOLDER / "settings.md").read_text()
    for name in Settings.model_fields:
        assert f"| `{name.upper()}`" in page
