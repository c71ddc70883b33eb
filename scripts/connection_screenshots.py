"""Take the documentation's screenshots of the connection form and write them to ``docs/images/``.

Run ``python -m scripts.connection_screenshots`` in the repository's root, in the virtual environment that ``make demo``
creates. It starts its own Airflow, and needs Chromium with its driver.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from scripts.screenshots import OUTPUT, save_screenshot
from tests.servers.airflow import AirflowStack
from tests.servers.browser import MISSING, Browser, open_browser
from tests.servers.process import exit_on_signals

FORMS = {"connection-cometapi": {}, "connection-bfl": {"host": "https://api.bfl.ai"}}
"""The screenshot's name -> what is entered besides the id, the type and the key."""


def main() -> int:
    """Fill in the form once for each API; return the exit code."""
    if MISSING:
        print(MISSING, file=sys.stderr)
        return 1
    exit_on_signals()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "dags").mkdir()
        with (
            AirflowStack(folder / "airflow", folder / "dags", users={"admin": "admin"}) as airflow,
            open_browser(folder / "profile", 1180, 1000) as browser,
        ):
            browser.log_in(airflow, "admin")
            browser.set_theme("light")
            for screenshot, fields in FORMS.items():
                browser.driver.get(f"{airflow.url}/connections")
                fill_in(browser, fields)
                save_screenshot(browser, screenshot)
    return 0


def fill_in(browser: Browser, fields: dict[str, str]) -> None:
    """Open the form for a new connection and fill it in, as a user would."""
    add = "return [...document.querySelectorAll('button')].find((b) => b.innerText.includes('Add Connection'))"
    browser.until(lambda: browser.run(add), "the button").click()
    browser.wait_for("input[name=connection_id]").send_keys("flux_default")
    kind = browser.wait_for("[role=dialog] [role=combobox]")
    kind.click()
    browser.driver.switch_to.active_element.send_keys("flux", "\n")
    for field, value in {**fields, "password": "YOUR-KEY"}.items():
        browser.wait_for(f"input[name={field}]").send_keys(value)


if __name__ == "__main__":
    sys.exit(main())
