"""The browser that other tests open pages with: it shows, clicks, complains and goes."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from tests.integration.browser import Browser

pytestmark = pytest.mark.integration

PAGE = """<!doctype html><title>a page</title><p id=one>hello</p>
<button onclick="document.getElementById('one').textContent = 'pressed'">press</button>
<script>console.error('something is wrong')</script>"""


def test_it_shows_clicks_and_complains(browser: Browser, tmp_path: Path) -> None:
    browser.open(f"data:text/html,{quote(PAGE)}")
    browser.wait_text("hello")
    assert any("something is wrong" in complaint for complaint in browser.complaints())
    browser.wait_element("button").click()
    browser.wait_text("pressed")
    assert browser.run("return document.title") == "a page"
    browser.picture(tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


def test_what_does_not_come_is_named_with_what_is_there(browser: Browser) -> None:
    browser.open(f"data:text/html,{quote(PAGE)}")
    with pytest.raises(TimeoutError, match=r"(?s)the page shows 'goodbye': not within 0.5 s; it shows:\nhello"):
        browser.wait_text("goodbye", seconds=0.5)
