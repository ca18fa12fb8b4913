"""A real headless Chromium, for the pages that people see."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from app.config import ROOT

AXE = ROOT / ".run" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
MISSING = "Chromium, its driver or axe is not installed; make test installs them when root"
WAIT_S = 60
DESKTOP = (1100, 900)
# What WCAG 2.2 asks for at level AA, and what axe holds good besides.
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")


def at_hand() -> bool:
    """Return whether all that a browser test needs is here."""
    return bool(shutil.which("chromium") and shutil.which("chromedriver")) and AXE.is_file()


@dataclass(frozen=True)
class Browser:
    """One Chromium with one tab."""

    driver: Chrome

    @classmethod
    @contextmanager
    def started(cls, heard: Path) -> Iterator[Browser]:
        """Start it and end it after the block.

        Args:
            heard: a WAV file that its microphone hears, over and over.
        """
        options = ChromeOptions()
        for argument in (
            "--headless=new", "--disable-dev-shm-usage", "--mute-audio",
            "--autoplay-policy=no-user-gesture-required",
            "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
            f"--use-file-for-fake-audio-capture={heard}",
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
        ):  # fmt: skip
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = Chrome(options, Service(shutil.which("chromedriver")))
        try:
            yield cls(driver)
        finally:
            driver.quit()

    def open(self, url: str, size: tuple[int, int] = DESKTOP, dark: bool = False) -> None:
        """Load a page in a window of this size, with what was logged before forgotten."""
        self.resize(*size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(url)

    def resize(self, width: int, height: int) -> None:
        """Give the window another size; a narrow one is a phone's."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip

    @contextmanager
    def network(self, offline: bool = False, upload_bytes_per_s: int = -1) -> Iterator[None]:
        """Have a worse network until the end of the block."""
        good = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        worse = {"offline": offline, "uploadThroughput": upload_bytes_per_s}
        self.command("Network.enable")
        self.command("Network.emulateNetworkConditions", **good | worse)
        try:
            yield
        finally:
            self.command("Network.emulateNetworkConditions", **good)

    def command(self, name: str, **arguments: object) -> Any:
        """One of Chromium's own commands."""
        return self.driver.execute_cdp_cmd(name, arguments)

    def run(self, script: str, *arguments: object) -> Any:
        """Return what a piece of JavaScript returns."""
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> WebElement:
        """The first element of a CSS selector."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """Return the text that is visible in it."""
        return str(self.find(selector).text)

    def until(self, script: str, seconds: float = WAIT_S) -> Any:
        """Wait until a JavaScript expression is true; returns its value."""
        return WebDriverWait(self.driver, seconds, 0.1).until(
            lambda _: self.run(f"return {script}"), f"{script}\n{self.driver.page_source[-3000:]}"
        )

    def complaints(self, *expected: str) -> list[str]:
        """What the console holds of errors and warnings, but those in which one of these words
        stands. A request that fails on purpose is logged too."""
        return [
            line["message"]
            for line in self.driver.get_log("browser")
            if line["level"] in ("SEVERE", "WARNING")
            and not any(word in line["message"] for word in expected)
        ]

    def requested(self) -> list[str]:
        """The addresses that the page has asked for."""
        events = [
            json.loads(line["message"])["message"] for line in self.driver.get_log("performance")
        ]
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def hosts(self) -> set[str]:
        """The hosts and ports among them."""
        return {urlsplit(url).netloc for url in self.requested() if url.startswith(("http", "ws"))}

    def violations(self) -> list[str]:
        """Return what axe finds wrong with the page as it is now."""
        # Through the debugger, since the page's own policy lets no script in.
        self.command("Runtime.evaluate", expression=AXE.read_text())
        found = self.command(
            "Runtime.evaluate",
            expression=f"axe.run({{runOnly: {json.dumps(RULES)}}}).then((r) => r.violations)",
            awaitPromise=True,
            returnByValue=True,
        )
        return [
            f"{one['id']}: {node['target']} {node.get('failureSummary', '')}"
            for one in found["result"]["value"]
            for node in one["nodes"]
        ]

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        return int(
            self.run("const d = document.documentElement; return d.scrollWidth - d.clientWidth")
        )
