"""The Costs page and the command, in a running Airflow: the sums are the account's, each user sees their own DAGs."""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from airflow.providers_manager import ProvidersManager

from tests.e2e.conftest import Stack
from tests.e2e.gallery import Gallery
from tests.e2e.running import Run, wait_until
from tests.servers.browser import MISSING, open_browser

pytestmark = pytest.mark.e2e

OWN_DAG = "/flux/costs?dag=e2e_costs"


@dataclass
class Spending:
    """Two runs of ``e2e_costs``, and what the account was charged for them."""

    gallery: Gallery
    run: Run
    charged: float

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.gallery.get(path, **options)


@pytest.fixture(scope="module")
def spending(_running: Stack, gallery_of_module: Gallery) -> Spending:
    _running.flux.reset()
    _running.flux.settings(duration=0)
    before = _running.flux.stats()["credits"]
    _running.flux.fault(on="download", match="nobody gets", http=403, times=None)
    for _ in range(2):
        run = Run(_running, "e2e_costs")
        assert run.wait() == "failed"
    charged = before - _running.flux.stats()["credits"]
    _running.flux.clear_faults()
    spending = Spending(gallery_of_module, run, charged)
    wait_until(lambda: sums(spending.get(OWN_DAG)).get("Lost") == "2", "the index")
    return spending


@pytest.fixture(scope="module")
def gallery_of_module(_finished: Gallery) -> Iterator[Gallery]:
    yield _finished


def sums(page: requests.Response) -> dict[str, str]:
    return dict(re.findall(r"<div><dt>([^<]+)</dt><dd>([^<]+)</dd>", page.text))


def test_the_page_has_the_sums_of_the_account(spending: Spending) -> None:
    page = spending.get(OWN_DAG)
    assert spending.charged == 2.5 + 2 * 4
    assert sums(page) == {
        "Credits": f"{spending.charged:g}",
        "USD": "$0.105",
        "Images": "1",
        "Reused": "1",
        "Lost": "2",
    }
    assert "8 credits" in page.text
    bars = re.findall(r'<rect class="(used|lost)".* height="([\d.]+)"', page.text)
    assert (len(bars), bars[-2:]) == (2 * 30, [("used", "23.81"), ("lost", "76.19")])
    assert 'role="img" aria-labelledby="chart-title chart-text"' in page.text
    assert "style=" not in page.text
    assert "unsafe" not in page.headers["Content-Security-Policy"]


def test_filters_and_csv(spending: Spending) -> None:
    assert sums(spending.get(f"{OWN_DAG}&model=flux-dev"))["Credits"] == "2.5"
    assert "Nothing was paid for or reused" in spending.get(f"{OWN_DAG}&until=2020-01-01").text
    assert spending.get(f"{OWN_DAG}&since=soon").status_code == 422
    download = spending.get(OWN_DAG.replace("costs?", "costs.csv?"))
    assert "attachment" in download.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(download.text)))
    assert [(row["dag"], row["model"], row["credits"]) for row in rows] == [
        ("e2e_costs", "flux-dev", "2.5"),
        ("e2e_costs", "flux-pro-1.1", "8"),
    ]


def test_users_see_the_costs_of_the_dags_that_they_may_read(spending: Spending) -> None:
    assert "e2e_costs" in spending.get("/flux/costs").text
    for path in ("/flux/costs", "/flux/costs.csv", OWN_DAG):
        assert spending.get(path, user=None).status_code == 401
        own = spending.get(path, user="gardener")
        assert own.status_code == 200
        assert not re.findall(r"<th scope=\"row\">e2e_costs|,flux-pro-1.1,", own.text)
        assert "e2e_gallery" not in spending.get(path, user="nobody").text
    assert sums(spending.get("/flux/costs", user="gardener"))["Lost"] == "0"


def test_the_page_of_a_run_has_its_totals(spending: Spending) -> None:
    page = spending.get(f"/flux/dags/e2e_costs/runs/{quote(spending.run.id, safe='')}")
    assert "4 cr ($0.04) · 1 reused · 1 without an image (4 cr)" in page.text


@pytest.mark.parametrize("command", ["python", "airflow"])
def test_the_command_reads_airflows_database(spending: Spending, command: str) -> None:
    if command == "airflow" and not hasattr(ProvidersManager, "cli_command_functions"):
        return  # before Airflow 3.3, its command line has no commands of providers
    words = {"python": ["-m", "airflow_provider_flux"], "airflow": ["-m", "airflow", "flux"]}[command]
    arguments = [sys.executable, *words, "costs", "--by", "dag,task,model", "--csv"]
    process = subprocess.run(
        arguments, capture_output=True, text=True, check=True, env=spending.gallery.stack.airflow.env
    )
    rows = list(csv.DictReader(io.StringIO(process.stdout)))
    own = [(row["task"], row["credits"], row["reused"], row["lost"]) for row in rows if row["dag"] == "e2e_costs"]
    assert own[-1] == ("lost", "8", "0", "2")
    assert sum(float(credits) for _, credits, *_ in own) == spending.charged


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_fits_a_phone_and_has_no_errors(spending: Spending, theme: str, tmp_path: Path) -> None:
    airflow = spending.gallery.stack.airflow
    with open_browser(tmp_path) as browser:
        browser.log_in(airflow, "viewer")
        browser.set_theme(theme)
        browser.driver.get(f"{airflow.url}/plugin/flux_costs")
        browser.enter_frame()
        browser.wait_for(".chart svg")
        if folder := os.environ.get("FLUX_SCREENSHOTS"):
            browser.driver.save_screenshot(f"{folder}/costs-tab-{theme}.png")
        size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": False}
        browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.driver.get(f"{airflow.url}/flux/costs")
        browser.wait_for(".chart svg")
        assert browser.run("return document.documentElement.scrollWidth") <= 390
        # Both parts of the bar have a colour of the theme, and are drawn.
        last_bar = "[...document.querySelectorAll('rect.lost')].at(-1)"
        assert browser.run(f"return {last_bar}.getBoundingClientRect().height") > 1
        assert not [error for error in browser.errors() if "/flux/" in error]
        if folder := os.environ.get("FLUX_SCREENSHOTS"):
            browser.driver.save_screenshot(f"{folder}/costs-{theme}.png")
