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

from airflow_provider_flux.operators.batch import FluxGenerateBatchOperator
from airflow_provider_flux.operators.flux import FluxGenerateOperator

SIZES = [(768, 512), (512, 768), (640, 640), (896, 512)]
FRUIT = ("pear", "fig", "quince", "plum", "medlar", "cherry", "peach", "apple", "grape", "lemon", "olive", "date")

with DAG("fruit", schedule=None):
    FluxGenerateOperator.partial(
        task_id="generate", model="flux-pro-1.1", output_uri="s3://flux/fruit/{{ run_id }}/"
    ).expand_kwargs(
        [
            {
                "prompt": f"A {fruit} on a white table, studio light",
                "width": SIZES[index % 4][0],
                "height": SIZES[index % 4][1],
            }
            for index, fruit in enumerate(FRUIT * 2)
        ]
    )

with DAG("catalogue", schedule=None):
    FluxGenerateBatchOperator(
        task_id="shots",
        model="flux-dev",
        requests=["A red armchair", "nsfw", "A blue sofa", "An oak desk", "A brass lamp"],
        output_uri="s3://flux/catalogue/{{ run_id }}/",
        on_moderated="skip",
    )
    FluxGenerateOperator(
        task_id="cover", model="flux-dev", prompt="nsfw", output_uri="s3://flux/catalogue/{{ run_id }}.png"
    )
"""
LOADED = "return [...document.querySelectorAll('main img')].every((i) => i.complete || i.loading === 'lazy')"


def main() -> int:
    """Run the DAGs and take the screenshots; return the exit code."""
    if MISSING:
        print(MISSING, file=sys.stderr)
        return 1
    exit_on_signals()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    with running_airflow() as airflow, tempfile.TemporaryDirectory() as profile:
        runs = {dag_id: finished_run(airflow, dag_id) for dag_id in ("catalogue", "fruit")}
        with open_browser(Path(profile), 1440, 996) as browser:
            browser.log_in(airflow, "admin")
            take_gallery(browser, airflow.url, runs)
            take_approval(browser, airflow)
    return 0


def finished_run(airflow: AirflowStack, dag_id: str) -> str:
    """Run a DAG to its end; return the path of its run in Airflow's UI."""
    airflow.api.wait_for_dag(dag_id)
    run_id = airflow.api.trigger(dag_id)
    airflow.api.wait_for_run(dag_id, run_id)
    return f"dags/{dag_id}/runs/{quote(run_id, safe='')}"


def take_gallery(browser: Browser, url: str, runs: dict[str, str]) -> None:
    """Take the screenshots of the gallery, in Airflow's frame and alone."""
    fruit_tab, catalogue_tab = (f"{url}/{runs[name]}/plugin/flux_run_images" for name in ("fruit", "catalogue"))
    browser.driver.get(f"{url}/flux/")
    # The first pages read the runs, and make the thumbnails.
    browser.until(lambda: "reading" not in browser.wait_for("#totals").text, "the index")
    for theme in ("light", "dark"):
        browser.set_theme(theme)
        open_page(browser, fruit_tab)
        save_screenshot(browser, f"gallery-tab-{theme}")
        open_page(browser, f"{url}/plugin/flux")
        save_screenshot(browser, f"gallery-{theme}")
    browser.run("document.querySelectorAll('.tile a.image')[2].click()")
    wait_for_full_image(browser)
    save_screenshot(browser, "gallery-lightbox")
    browser.set_theme("light")
    open_page(browser, catalogue_tab)
    save_screenshot(browser, "gallery-failures")
    open_page(browser, f"{url}/plugin/flux")
    for number in (0, 2, 3):
        browser.run(f"document.querySelectorAll('.tile input')[{number}].click()")
    browser.run("document.querySelector('#selection .compare').click()")
    browser.until(lambda: len(browser.all(".comparison img")) == 3, "the comparison")
    wait_for_images(browser)
    save_screenshot(browser, "gallery-compare")
    resize(browser, 390, 844)
    open_page(browser, f"{url}/flux/")
    save_screenshot(browser, "gallery-phone")


def take_approval(browser: Browser, airflow: AirflowStack) -> None:
    """Take the screenshot of a request for approval, which shows the image."""
    resize(browser, 1180, 820)
    airflow.api.wait_for_dag("flux_approval")
    run_id = airflow.api.trigger("flux_approval")
    airflow.api.wait_for_task("flux_approval", run_id, "approve_1", ["awaiting_input", "deferred"])
    task = f"dags/flux_approval/runs/{quote(run_id, safe='')}/tasks/approve_1"
    browser.set_theme("light")
    browser.driver.get(f"{airflow.url}/{task}/required_actions")
    shown = "return [...document.querySelectorAll('img[alt=\"The image\"]')].some((i) => i.naturalWidth)"
    browser.until(lambda: browser.run(shown), "the image to approve")
    save_screenshot(browser, "approval")


def open_page(browser: Browser, address: str) -> None:
    """Open a page of the gallery, in Airflow's frame or alone, and wait for its images and prompts."""
    browser.driver.switch_to.default_content()
    if "/plugin/" in address and browser.driver.execute_script("return innerWidth") != 1440:
        resize(browser, 1440, 857)
    browser.driver.get(address)
    if "/plugin/" in address:
        browser.enter_frame()
    browser.wait_for(".tile")
    wait_for_images(browser)


def wait_for_images(browser: Browser) -> None:
    """Wait until all images in view are there, and the prompts of their tiles."""
    browser.until(lambda: browser.run(LOADED), "the images")
    in_view = "[...document.querySelectorAll('.tile')].filter((t) => t.getBoundingClientRect().top < innerHeight)"
    ready = ".every((t) => t.querySelector('.prompt').textContent && t.querySelector('img')?.naturalWidth !== 0)"
    browser.until(lambda: browser.run(f"return {in_view}{ready}"), "the prompts")


def wait_for_full_image(browser: Browser) -> None:
    """Wait until the lightbox shows the image itself, and not its thumbnail."""
    shown = "return document.querySelector('.lightbox .shown').naturalWidth"
    browser.until(lambda: browser.run(shown) > 320, "the full image")


def resize(browser: Browser, width: int, height: int) -> None:
    """Set the size of the page."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


@contextmanager
def running_airflow() -> Iterator[AirflowStack]:
    """Run an Airflow with an S3 server and a FLUX emulator."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "dags").mkdir()
        (folder / "dags" / "gallery.py").write_text(DAG)
        shutil.copy(Path(__file__).parent.parent / "dags_examples" / "approval.py", folder / "dags")
        with FluxEmulator(duration=(1, 2)) as flux, SeaweedFS(folder / "s3") as s3:
            connections = {"flux_default": flux.connection(), "aws_default": s3.connection()}
            with AirflowStack(folder / "airflow", folder / "dags", connections, users={"admin": "admin"}) as airflow:
                yield airflow


def save_screenshot(browser: Browser, name: str) -> None:
    """Save a screenshot of the window."""
    image = PIL.Image.open(io.BytesIO(browser.driver.get_screenshot_as_png()))
    file = OUTPUT / f"{name}.png"
    image.convert("RGB").save(file, optimize=True)
    for colours in (256, 128, 64, 32):
        if file.stat().st_size <= MAX_BYTES:
            break
        image.convert("RGB").quantize(colours).save(file, optimize=True)
    print(file, file.stat().st_size)


if __name__ == "__main__":
    sys.exit(main())
