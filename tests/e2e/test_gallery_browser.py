"""The gallery in Chromium, embedded in Airflow's own pages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import pytest

from tests.e2e.dags.gallery import PROMPTS, SEED
from tests.e2e.gallery import Gallery
from tests.e2e.running import Run
from tests.servers.browser import MISSING, Browser, open_browser

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(MISSING), reason=MISSING)]


@pytest.fixture
def browser(gallery: Gallery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A window with a logged-in viewer."""
    with open_browser(tmp_path_factory.mktemp("chromium")) as browser:
        browser.log_in(gallery.stack.airflow, "viewer")
        yield browser


def open_tab(browser: Browser, gallery: Gallery, under: str = "", route: str = "flux_run_images") -> None:
    browser.driver.get(f"{gallery.ui}{under}/plugin/{route}")
    browser.enter_frame()
    browser.wait_for(".card img")


def widths(browser: Browser) -> list[int]:
    """Natural widths of all images, loaded without scrolling."""
    browser.run("document.querySelectorAll('.card img').forEach((image) => { image.loading = 'eager'; })")
    script = "return [...document.querySelectorAll('.card img')].map((i) => i.complete ? i.naturalWidth : 0)"
    browser.until(lambda: all(browser.run(script)), "all images")
    found: list[int] = browser.run(script)
    return found


def test_run_tab_pages_through_images_and_requests_no_other_host(gallery: Gallery, browser: Browser) -> None:
    browser.errors(), browser.hosts()
    open_tab(browser, gallery)
    assert len(widths(browser)) == 48
    assert max(widths(browser)) == 320
    browser.until(lambda: PROMPTS[0] in [p.text for p in browser.all(".prompt")], "the prompt")
    assert PROMPTS[0] in [image.get_attribute("alt") for image in browser.all(".card img")]
    browser.wait_for("a[rel=next]").click()
    browser.until(lambda: len(browser.all(".card")) == 5, "the second page")
    assert len(widths(browser)) == 5
    assert browser.run("return document.title") != "broken"
    assert browser.errors() == []
    assert browser.hosts() == {urlsplit(gallery.stack.airflow.url).netloc}


def test_enter_opens_the_full_image_and_escape_closes_it(gallery: Gallery, browser: Browser) -> None:
    open_tab(browser, gallery, "/tasks/generate/mapped/0", "flux_task_images")
    assert len(browser.all(".card")) == 1
    before = browser.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert not [name for name in before if "/images/0?" in name]
    browser.run("document.querySelector('.image').focus()")
    browser.driver.switch_to.active_element.send_keys("\n")
    shown = "const i = document.querySelector('dialog[open] img'); return i && i.naturalWidth"
    browser.until(lambda: browser.run(shown) == 512, "the full image")
    browser.driver.switch_to.active_element.send_keys("\ue00c")  # Escape
    browser.until(lambda: not browser.all("dialog[open]"), "the dialog to close")
    assert browser.run("return document.activeElement.className") == "image"


def test_copy_recipe_copies_prompt_and_exact_seed(gallery: Gallery, browser: Browser) -> None:
    open_tab(browser, gallery, "/tasks/generate/mapped/0", "flux_task_images")
    browser.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    browser.wait_for("button.copy").click()
    browser.until(lambda: browser.run("return window.copied"), "the copied recipe")
    copied = json.loads(browser.run("return window.copied"))
    assert (copied["prompt"], copied["seed"]) == (PROMPTS[0], SEED)
    assert str(SEED) in [fact.text for fact in browser.all(".card dd")]


def test_ctrl_click_opens_a_tab_instead_of_the_dialog(gallery: Gallery, browser: Browser) -> None:
    from selenium.webdriver import ActionChains, Keys

    open_tab(browser, gallery, "/tasks/generate/mapped/0", "flux_task_images")
    for link in (browser.wait_for(".image"), browser.wait_for(".actions a")):
        ActionChains(browser.driver).key_down(Keys.CONTROL).click(link).key_up(Keys.CONTROL).perform()
    browser.until(lambda: len(browser.driver.window_handles) == 3, "two new tabs")
    assert not browser.all("dialog[open]")


def test_unreadable_image_leaves_its_recipe(gallery: Gallery, browser: Browser) -> None:
    gallery.set_result({**gallery.result(), "sha256": "0" * 64})
    browser.driver.get(f"{gallery.ui}/tasks/unrelated/plugin/flux_task_images")
    browser.enter_frame()
    assert "could not be read" in browser.wait_for(".failed .placeholder").text
    browser.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    browser.wait_for("button.copy").click()
    browser.until(lambda: browser.run("return window.copied"), "the copied recipe")
    assert browser.wait_for(".prompt").text == PROMPTS[0]
    assert not [link for link in browser.all(".card a") if link.is_displayed()]
    browser.wait_for(".failed .placeholder").click()
    assert not browser.all("dialog[open]")


def test_quickstart_images_are_shown_with_their_prompts(gallery: Gallery, browser: Browser) -> None:
    gallery.stack.flux.reset()
    run = Run(gallery.stack, "flux_quickstart")
    assert run.wait() == "success"
    prompts = [job["prompt"] for job in gallery.stack.flux.stats()["jobs"]]
    browser.driver.get(f"{gallery.stack.airflow.url}/dags/{run.dag_id}/runs/{quote(run.id)}/plugin/flux_run_images")
    browser.enter_frame()
    browser.wait_for(".card img")
    assert len(widths(browser)) == len(prompts)
    assert min(widths(browser)) > 0
    browser.until(lambda: all(p.text for p in browser.all(".prompt")), "the prompts")
    assert sorted(p.text for p in browser.all(".prompt")) == sorted(prompts)


def test_page_follows_the_theme_of_airflow_and_fits_a_phone(gallery: Gallery, browser: Browser) -> None:
    colours = set()
    for theme in ("light", "dark"):
        browser.set_theme(theme)
        open_tab(browser, gallery)
        colours.add(browser.run("return getComputedStyle(document.body).backgroundColor"))
    assert colours == {"rgb(255, 255, 255)", "rgb(15, 17, 21)"}
    browser.driver.set_window_size(500, 800)
    browser.driver.get(gallery.stack.airflow.url + gallery.path)
    browser.run("document.body.style.width = '320px'")
    assert browser.run("return document.body.scrollWidth") <= 320


def test_navigation_page_links_to_the_run(gallery: Gallery, browser: Browser) -> None:
    browser.driver.get(f"{gallery.stack.airflow.url}/plugin/flux")
    browser.enter_frame()
    browser.wait_for(f"a[href='{gallery.path}']").click()
    browser.wait_for(".card img")
    assert browser.errors() == []
