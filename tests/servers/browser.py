"""Headless Chromium, driven as a person would: real pages, their console, every request they make."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.servers.airflow import AirflowStack

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
MISSING = "" if CHROMIUM and DRIVER else "needs Chromium: apt-get install chromium chromium-driver"

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
)


class Browser:
    """One window; ``driver`` is Selenium's."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def log_in(self, airflow: AirflowStack, user: str) -> None:
        """Through the form of Airflow's SimpleAuthManager."""
        self.driver.get(f"{airflow.url}/auth/login")
        self.wait_for("input[name=username]").send_keys(user)
        self.wait_for("input[name=password]").send_keys(airflow.passwords[user], "\n")
        self.until(lambda: "/auth/login" not in self.driver.current_url, "login")

    def enter_frame(self) -> None:
        """Into the page that Airflow's page embeds."""
        self.driver.switch_to.default_content()
        self.driver.switch_to.frame(self.wait_for("iframe"))

    def wait_for(self, css: str) -> Any:
        """The first element that matches, as soon as it can be seen."""

        def visible() -> Any:
            return next((item for item in self.all(css) if item.is_displayed()), None)

        return self.until(visible, css)

    def click(self, text: str, css: str = "button") -> None:
        """Click what has this text or label, as soon as it is there."""

        def named() -> Any:
            return next((item for item in self.all(css) if text in (item.text, item.get_attribute("aria-label"))), None)

        self.until(named, f"{css} {text!r}").click()

    def all(self, css: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", css)
        return found

    def until(self, condition: Any, what: str, timeout: float = 60) -> Any:
        """Wait until ``condition()`` is true, and return what it gives."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        wait = WebDriverWait(self.driver, timeout, 0.1, [StaleElementReferenceException])
        return wait.until(lambda _: condition(), f"timed out waiting for {what} at {self.driver.current_url}")

    def run(self, script: str) -> Any:
        """Run JavaScript; returns its value."""
        return self.driver.execute_script(script)

    def set_theme(self, theme: str) -> None:
        """Light or dark, in Airflow's own setting, for the pages opened from now on."""
        self.driver.switch_to.default_content()
        self.run(f"localStorage.setItem('theme', '{theme}')")

    def errors(self) -> list[str]:
        """The console's errors since it was last asked. Airflow's own pages earn warnings enough."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def hosts(self) -> set[str]:
        """The hosts of all requests since it was last asked."""
        found = set()
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = urlsplit(message["params"]["request"]["url"])
                if url.scheme in ("http", "https", "ws", "wss"):
                    found.add(url.netloc)
        return found


@contextmanager
def open_browser(folder: Path, width: int = 1280, height: int = 900) -> Iterator[Browser]:
    """Start Chromium with an empty profile in ``folder``."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in (*FLAGS, f"--user-data-dir={folder}", f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # Both paths are given, so that Selenium looks for none on the network.
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
