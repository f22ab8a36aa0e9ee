"""Chromium without a screen, driven by Selenium, for the pages that people see. Skips where it is not installed."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.common.by import By

from demo.servers.process import Process, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from selenium.webdriver.remote.webelement import WebElement

_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
_DRIVER: Final = "chromedriver"
_WIDTH, _HEIGHT = 1400, 900
_FLAGS: Final = (
    "--headless=new",
    "--no-sandbox",  # containers' root has none
    "--disable-gpu",
    "--disable-dev-shm-usage",  # containers' /dev/shm is small
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # pages may ask for fonts and scripts of other hosts
    f"--window-size={_WIDTH},{_HEIGHT}",
)


def missing_for_browser() -> str | None:
    """Why no page can be opened here; None if it can."""
    absent = []
    if _find_browser() is None:
        absent.append(_BROWSERS[0])
    if shutil.which(_DRIVER) is None:
        absent.append(_DRIVER)
    return f"{' and '.join(absent)} not found (Debian: chromium, chromium-driver)" if absent else None


def _find_browser() -> str | None:
    return next((found for name in _BROWSERS if (found := shutil.which(name))), None)


class ChromeDriver(Process):
    """``chromedriver``, which starts and ends the browser; both are in its process group.

    Args:
        folder: for its log.
    """

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        command = [_DRIVER, f"--port={self.port}", "--allowed-ips=127.0.0.1"]
        super().__init__("chromedriver", command, folder / "chromedriver.log", ready_seconds=60)

    @property
    def url(self) -> str:
        """What Selenium connects to."""
        return f"http://127.0.0.1:{self.port}"

    def is_ready(self) -> bool:
        """Whether it says that it was started."""
        return "started successfully" in self.output()


class Browser:
    """One window. What is not here is done with `driver`, Selenium's own object.

    Args:
        driver: an open session.
    """

    def __init__(self, driver: webdriver.Remote) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        """Load a page."""
        self.driver.get(url)

    def find(self, css: str) -> list[WebElement]:
        """The elements that a CSS selector matches now."""
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def text(self) -> str:
        """What can be read on the page now."""
        try:
            return self.driver.find_element(By.TAG_NAME, "body").text
        except StaleElementReferenceException:  # it was loaded anew while we looked
            return ""

    def wait_text(self, text: str, *, seconds: float = 60.0) -> None:
        """Wait until it can be read on the page.

        Raises:
            TimeoutError: it cannot within ``seconds``; holds what can be read instead, and what the page complained of.
        """
        try:
            wait_until(lambda: text in self.text(), f"the page shows {text!r}", seconds=seconds, pause=0.2)
        except TimeoutError as error:
            msg = f"{error}; it shows:\n{self.text()[:2_000]}\nand complains: {self.complaints()[-10:]}"
            raise TimeoutError(msg) from error

    def wait_element(self, css: str, *, seconds: float = 60.0) -> WebElement:
        """Wait until an element matches; the first one that does.

        Raises:
            TimeoutError: none does within ``seconds``.
        """
        wait_until(lambda: bool(self.find(css)), f"the page has {css}", seconds=seconds, pause=0.2)
        return self.find(css)[0]

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page; what it returns."""
        return self.driver.execute_script(script, *arguments)

    def complaints(self) -> list[str]:
        """What the page wrote to the console since the last call, errors and warnings only."""
        entries = self.driver.execute("getLog", {"type": "browser"})["value"]
        return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]

    def picture(self, path: Path) -> None:
        """Write a PNG of the window."""
        path.parent.mkdir(parents=True, exist_ok=True)
        assert self.driver.save_screenshot(str(path)), f"{path} could not be written"


@contextmanager
def open_browser(folder: Path) -> Iterator[Browser]:
    """A browser with a fresh profile under ``folder``, for as long as the block lasts."""
    options = Options()
    for flag in (*_FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.binary_location = _find_browser() or _BROWSERS[0]
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with ChromeDriver(folder) as server:
        driver = webdriver.Remote(server.url, options=options)
        try:
            yield Browser(driver)
        finally:
            driver.quit()
