"""The connection form and its Test button in Chromium, and the command that tests on every version."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import airflow
import pytest
from packaging.version import Version

from tests.e2e.conftest import Stack
from tests.servers.browser import MISSING, Browser, open_browser
from tests.servers.rest import ApiError

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

CONN_ID = "flux_from_the_form"
RIGHT, WRONG, DEAD = "the-key-of-the-account", "a-wrong-key-it-is", "http://127.0.0.1:9"
TOAST = "[data-scope=toast][data-part=root]"
# The button of Airflow 3.1 sends its mask *** instead of the stored key.
IS_BUTTON_USABLE = Version(airflow.__version__) >= Version("3.2")
# Before Airflow 3.3, the button shows a colour but no sentence, and the command ends with 0 whatever happens.
IS_REASON_SHOWN = Version(airflow.__version__) >= Version("3.3")


class ConnectionsPage:
    """Airflow's page Admin, Connections, with one connection of ours."""

    def __init__(self, stack: Stack, browser: Browser) -> None:
        self.browser = browser
        self.url = f"{stack.airflow.url}/connections"

    def add(self, host: str, key: str, port: str) -> None:
        self.browser.driver.get(self.url)
        self.browser.click("Add Connection")
        self.browser.wait_for("input[name=connection_id]").send_keys(CONN_ID)
        self.browser.wait_for("[role=dialog] [role=combobox]").send_keys("FLUX")
        self.browser.click("FLUX", "[role=option]")
        self.browser.wait_for("input[name=host]").send_keys(host)
        self.browser.wait_for("input[name=password]").send_keys(key)
        self._save(port)

    def set_port(self, port: str) -> None:
        self.browser.driver.get(self.url)  # without what the page said last, which hides the button
        self.browser.click("Edit Connection")
        self.browser.wait_for("input[name=port]")
        self._save(port)

    def test(self) -> tuple[str, str]:
        """Press the button; return the colour that its icon gets, and what the page says."""
        self.browser.driver.get(self.url)
        self.browser.click("Test Connection")
        colour = self.browser.until(self._colour, "the outcome of the test")
        return colour, self.browser.until(self._toast, "what the page says") if IS_REASON_SHOWN else ""

    def _save(self, port: str) -> None:
        if port:
            self.browser.wait_for("input[name=port]").send_keys(port)
        self.browser.click("Save")
        self.browser.until(lambda: not self.browser.all("[role=dialog]"), "the form to close")

    def _toast(self) -> str | None:
        """The title and the sentence, once both are there."""
        return next((toast.text for toast in self.browser.all(TOAST) if "\n" in toast.text), None)

    def _colour(self) -> str | None:
        colours = [icon.get_attribute("color") for icon in self.browser.all("button[aria-label='Test Connection'] svg")]
        return next((colour for colour in colours if colour in ("green", "red")), None)


@pytest.fixture
def page(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConnectionsPage]:
    with open_browser(tmp_path_factory.mktemp("chromium")) as browser:
        browser.log_in(stack.airflow, "admin")
        yield ConnectionsPage(stack, browser)
    with contextlib.suppress(ApiError):
        stack.airflow.api.request("DELETE", f"/connections/{CONN_ID}")


@pytest.mark.parametrize(
    ("host", "key", "colour", "says"),
    [
        ("", RIGHT, "green", "The key is valid"),
        ("", WRONG, "red", "responds, but the key is invalid"),
        (DEAD, RIGHT, "red", "is unreachable or fails"),
    ],
    ids=["right key", "wrong key", "dead host"],
)
def test_button_says_what_is_wrong(
    stack: Stack, page: ConnectionsPage, host: str, key: str, colour: str, says: str
) -> None:
    page.add(host or stack.flux.url, key, "0" if IS_REASON_SHOWN else "")
    shown, text = page.test()
    assert shown == (colour if IS_BUTTON_USABLE else "red")
    assert not IS_REASON_SHOWN or says in text
    assert key not in text
    assert stack.flux.stats()["submit_requests"] == 0


def test_connection_without_a_port_is_testable_once_it_has_one(stack: Stack, page: ConnectionsPage) -> None:
    page.add(stack.flux.url, RIGHT, "")
    if not IS_REASON_SHOWN:
        # It needs none.
        assert page.test()[0] == ("green" if IS_BUTTON_USABLE else "red")
        return
    assert page.test() == ("red", "Test Connection Failed\nBad Request")
    page.set_port("0")
    assert page.test()[0] == "green"


@pytest.mark.parametrize(("key", "says"), [(RIGHT, "Connection success!"), (WRONG, "the key is invalid")])
def test_command_tests_a_connection_of_the_form(stack: Stack, page: ConnectionsPage, key: str, says: str) -> None:
    page.add(stack.flux.url, key, "")
    command = [sys.executable, "-m", "airflow", "connections", "test", CONN_ID]
    env = {**stack.airflow.env, "_AIRFLOW_PROCESS_CONTEXT": "server"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == (1 if key == WRONG and IS_REASON_SHOWN else 0)
    assert says in " ".join(done.stdout.split())
    assert key not in done.stdout + done.stderr
