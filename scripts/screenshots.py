"""Take the documentation's screenshots of the gallery and write them to ``docs/images/``.

Run ``python -m scripts.screenshots`` in the repository's root, in the virtual environment that ``make demo`` creates.
It starts its own Airflow, S3 server and FLUX emulator, and needs Chromium with its driver
(``apt-get install chromium chromium-driver``); it takes one to two minutes.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import PIL.Image

from airflow_provider_flux.emulator import FluxEmulator
from tests.servers.airflow import AirflowStack
from tests.servers.browser import MISSING, Browser, open_browser
from tests.servers.process import exit_on_signals
from tests.servers.seaweed import SeaweedFS

OUTPUT = Path(__file__).parent.parent / "docs" / "images"
MAX_BYTES = 195_000
DAG = """
from airflow.sdk import DAG

from airflow_provider_flux.operators.flux import FluxGenerateOperator

with DAG("fruit", schedule=None):
    FluxGenerateOperator.partial(
        task_id="generate", model="flux-pro-1.1", width=768, height=512, output_uri="s3://flux/fruit/"
    ).expand(
        prompt=[
            f"A {fruit} on a white table, studio light"
            for fruit in ("pear", "fig", "quince", "plum", "medlar", "cherry", "peach", "apple")
        ]
    )
"""


def main() -> int:
    """Run the DAGs and take the screenshots; return the exit code."""
    if MISSING:
        print(MISSING, file=sys.stderr)
        return 1
    exit_on_signals()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    with running_airflow() as airflow, tempfile.TemporaryDirectory() as profile:
        airflow.api.wait_for_dag("fruit")
        run_id = airflow.api.trigger("fruit")
        airflow.api.wait_for_run("fruit", run_id)
        run = f"dags/fruit/runs/{quote(run_id, safe='')}"
        with open_browser(Path(profile), 1180, 820) as browser:
            browser.log_in(airflow, "admin")
            for theme in ("light", "dark"):
                browser.set_theme(theme)
                browser.driver.get(f"{airflow.url}/{run}/plugin/flux_run_images")
                browser.enter_frame()
                save_gallery(browser, f"gallery-tab-{theme}")
            # Outside Airflow's frame, the gallery follows the system's theme, which Chromium emulates.
            for theme in ("light", "dark"):
                features = [{"name": "prefers-color-scheme", "value": theme}]
                browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
                browser.driver.get(f"{airflow.url}/flux/{run}")
                save_gallery(browser, f"gallery-{theme}")
            airflow.api.wait_for_dag("flux_approval")
            run_id = airflow.api.trigger("flux_approval")
            airflow.api.wait_for_task("flux_approval", run_id, "approve_1", ["awaiting_input", "deferred"])
            task = f"dags/flux_approval/runs/{quote(run_id, safe='')}/tasks/approve_1"
            browser.set_theme("light")
            browser.driver.get(f"{airflow.url}/{task}/required_actions")
            shown = "return [...document.querySelectorAll('img[alt=\"The image\"]')].some((i) => i.naturalWidth)"
            browser.until(lambda: browser.run(shown), "the image to approve")
            save_screenshot(browser, "approval")
    return 0


@contextmanager
def running_airflow() -> Iterator[AirflowStack]:
    """Run an Airflow with an S3 server and a FLUX emulator."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "dags").mkdir()
        (folder / "dags" / "fruit.py").write_text(DAG)
        shutil.copy(Path(__file__).parent.parent / "dags_examples" / "approval.py", folder / "dags")
        with FluxEmulator(duration=(1, 2)) as flux, SeaweedFS(folder / "s3") as s3:
            connections = {"flux_default": flux.connection(), "aws_default": s3.connection()}
            with AirflowStack(folder / "airflow", folder / "dags", connections, users={"admin": "admin"}) as airflow:
                yield airflow


def save_gallery(browser: Browser, name: str) -> None:
    """Save a screenshot once all images and prompts are shown."""
    shown = "return [...document.querySelectorAll('.card img')].filter((i) => i.naturalWidth).length"
    browser.until(lambda: browser.run(shown) == 8, "the images")
    browser.until(lambda: all("white table" in prompt.text for prompt in browser.all(".prompt")), "the prompts")
    save_screenshot(browser, name)


def save_screenshot(browser: Browser, name: str) -> None:
    """Save a screenshot of the window."""
    image = PIL.Image.open(io.BytesIO(browser.driver.get_screenshot_as_png()))
    file = OUTPUT / f"{name}.png"
    image.convert("RGB").save(file, optimize=True)
    if file.stat().st_size > MAX_BYTES:
        image.convert("RGB").quantize(256).save(file, optimize=True)
    print(file, file.stat().st_size)


if __name__ == "__main__":
    sys.exit(main())
