"""The gallery in Chromium, embedded in Airflow's own pages."""

from __future__ import annotations

import io
import json
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
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
    browser.wait_for(".tile img")


def resize(browser: Browser, width: int, height: int = 857) -> None:
    """Set the size of the page itself: a window of Chromium is never as narrow as a phone."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def widths(browser: Browser) -> list[int]:
    """Natural widths of all images, loaded without scrolling."""
    browser.run("document.querySelectorAll('.tile img').forEach((image) => { image.loading = 'eager'; })")
    script = "return [...document.querySelectorAll('.tile img')].map((i) => i.complete ? i.naturalWidth : 0)"
    browser.until(lambda: all(browser.run(script)), "all images")
    found: list[int] = browser.run(script)
    return found


def press(browser: Browser, *keys: str) -> None:
    for key in keys:
        browser.driver.switch_to.active_element.send_keys(key)


def position(browser: Browser) -> str:
    text: str = browser.run("return document.querySelector('dialog.lightbox[open] .position')?.textContent ?? ''")
    return text


@contextmanager
def unfinished(gallery: Gallery, task_id: str) -> Iterator[None]:
    """Let Airflow's database say that a task of the finished run is still running."""

    def write(state: str) -> None:
        with closing(sqlite3.connect(gallery.stack.airflow.folder / "airflow.db", timeout=30)) as db, db:
            statement = "update task_instance set state = ? where run_id = ? and task_id = ?"
            db.execute(statement, [state, gallery.run_id, task_id])

    write("running")
    try:
        yield
    finally:
        write("success")


# Contrast of each text with what is behind it, as WCAG defines it. White on a state's colour is Airflow's own choice.
CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const rgba = (colour) => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
  .map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, index) => sum + c * [0.2126, 0.7152, 0.0722][index], 0);
const behind = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const colour = rgba(getComputedStyle(e).backgroundColor);
    if (colour[3] === 255) return colour;
  }
  return rgba(getComputedStyle(window.parent.document.documentElement).backgroundColor);
};
const low = [];
for (const element of document.querySelectorAll("main *")) {
  const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!text || !element.checkVisibility() || element.closest(".state, :disabled")) continue;
  const [one, other] = [rgba(getComputedStyle(element).color), behind(element)].map(light);
  const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  if (contrast < 4.5) low.push(`${element.className || element.tagName} ${contrast.toFixed(2)}`);
}
return low;
"""


def test_run_tab_pages_through_images_and_requests_no_other_host(gallery: Gallery, browser: Browser) -> None:
    browser.errors(), browser.hosts()
    open_tab(browser, gallery)
    assert len(widths(browser)) == 48
    assert max(widths(browser)) == 320
    browser.until(lambda: PROMPTS[0] in [p.text for p in browser.all(".prompt")], "the prompt")
    assert PROMPTS[0] in [image.get_attribute("alt") for image in browser.all(".tile img")]
    browser.run("document.querySelector('a[rel=next]').click()")
    browser.until(lambda: len(browser.all(".tile")) == 5, "the second page")
    assert len(widths(browser)) == 5
    assert browser.run("return document.title") != "broken"
    assert browser.errors() == []
    assert browser.hosts() == {urlsplit(gallery.stack.airflow.url).netloc}


def test_twelve_images_are_in_view_at_once(gallery: Gallery, browser: Browser) -> None:
    resize(browser, 1440)
    open_tab(browser, gallery, "/tasks/many", "flux_task_images")
    visible = """return [...document.querySelectorAll(".tile")].filter(
        (tile) => tile.getBoundingClientRect().bottom <= innerHeight).length"""
    assert browser.run(visible) >= 12
    summary = "flux-dev · 256 × 256 · 2.5 cr ($0.025)"  # noqa: RUF001 - the sign itself
    assert summary in [" ".join(line.text.split()) for line in browser.all(".tile .summary")]
    # Airflow's page shows the run and the task above the frame.
    assert browser.run("return document.querySelector('h1').getBoundingClientRect().width") <= 1


def test_lightbox_is_used_with_the_keyboard(gallery: Gallery, browser: Browser) -> None:
    from selenium.webdriver import Keys

    open_tab(browser, gallery, "/tasks/generate/mapped/0", "flux_task_images")
    browser.driver.get(gallery.stack.airflow.url + gallery.path)
    browser.wait_for(".tile img")
    browser.run("document.querySelectorAll('.tile a.image')[1].focus()")
    press(browser, Keys.ENTER)
    browser.until(lambda: position(browser) == "2 of 53", "the second image")
    shown = "return document.querySelector('.lightbox .shown').naturalWidth"
    browser.until(lambda: browser.run(shown) == 512, "the full image")
    browser.until(lambda: PROMPTS[1] in browser.wait_for(".lightbox aside").text, "its prompt")
    assert str(SEED) in browser.wait_for(".lightbox aside").text
    walk = ((Keys.ARROW_RIGHT, "3"), (Keys.ARROW_LEFT, "2"), (Keys.ARROW_LEFT, "1"), (Keys.END, "48"), (Keys.HOME, "1"))
    for key, number in walk:
        press(browser, key)
        assert position(browser) == f"{number} of 53"
    focused = "return document.activeElement.closest('dialog') !== null"
    for _ in range(12):
        press(browser, Keys.TAB)
        assert browser.run(focused) or browser.run("return document.activeElement === document.body")
    browser.run("document.querySelector('.lightbox .close').focus()")
    press(browser, Keys.END)
    # The walk continues on the next page.
    press(browser, Keys.ARROW_RIGHT)
    browser.until(lambda: position(browser) == "49 of 53", "the first image of the next page")
    press(browser, Keys.ESCAPE)
    browser.until(lambda: not browser.all("dialog[open]"), "the lightbox to close")
    assert browser.run("return document.activeElement.matches('.tile:first-child a.image')")


def test_copy_recipe_copies_prompt_and_exact_seed(gallery: Gallery, browser: Browser) -> None:
    open_tab(browser, gallery, "/tasks/generate/mapped/0", "flux_task_images")
    assert browser.run("return document.querySelector('.tile img').src.includes('/thumbnail')") is False
    browser.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    browser.wait_for(".tile a.image").click()
    browser.wait_for(".lightbox .copy").click()
    browser.until(lambda: browser.run("return window.copied"), "the copied recipe")
    copied = json.loads(browser.run("return window.copied"))
    assert (copied["prompt"], copied["seed"]) == (PROMPTS[0], SEED)


def test_ctrl_click_opens_a_tab_instead_of_the_lightbox(gallery: Gallery, browser: Browser) -> None:
    from selenium.webdriver import ActionChains, Keys

    open_tab(browser, gallery, "/tasks/generate/mapped/0", "flux_task_images")
    link = browser.wait_for(".tile a.image")
    ActionChains(browser.driver).key_down(Keys.CONTROL).click(link).key_up(Keys.CONTROL).perform()
    browser.until(lambda: len(browser.driver.window_handles) == 2, "a new tab")
    assert not browser.all("dialog[open]")


def test_lightbox_leaves_the_frame_for_a_new_tab(gallery: Gallery, browser: Browser) -> None:
    open_tab(browser, gallery, "/tasks/generate/mapped/0", "flux_task_images")
    browser.wait_for(".tile a.image").click()
    browser.wait_for(".lightbox .open").click()
    browser.until(lambda: len(browser.driver.window_handles) == 2, "a new tab")


def test_unreadable_image_is_explained_and_leaves_its_facts(gallery: Gallery, browser: Browser) -> None:
    gallery.set_result([{**gallery.result(), "sha256": "0" * 64}, gallery.result(1)])
    browser.driver.get(f"{gallery.ui}/tasks/unrelated/plugin/flux_task_images")
    browser.enter_frame()
    assert "could not be read" in browser.wait_for(".failed .placeholder").text
    browser.until(lambda: PROMPTS[0] in [p.text for p in browser.all(".prompt")], "the prompt")
    browser.wait_for(".failed .placeholder").click()
    assert not browser.all("dialog[open]")


def test_page_refreshes_in_place_while_a_task_is_unfinished(gallery: Gallery, browser: Browser) -> None:
    stored = gallery.result()
    gallery.set_result([stored, gallery.result(1)])
    with unfinished(gallery, "unrelated"):
        browser.driver.get(f"{gallery.ui}/tasks/unrelated/plugin/flux_task_images")
        browser.enter_frame()
        browser.until(lambda: len(browser.all(".tile")) == 2, "two images")
        browser.run("window.isSamePage = true; document.querySelectorAll('.tile a.image')[1].click()")
        assert position(browser) == "2 of 2"
        gallery.set_result([stored, gallery.result(1), gallery.result(2)])
        browser.until(lambda: position(browser) == "2 of 3", "the third image")
        assert "3 images" in browser.run("return document.querySelector('#counts').textContent")
    browser.until(lambda: gallery.get("/tasks/unrelated/-1").text.count("refresh-seconds") == 0, "a finished page")
    assert browser.run("return window.isSamePage")
    # Airflow's page of a task asks another plugin for something that is not there.
    assert [error for error in browser.errors() if "/flux/" in error] == []


def test_images_to_come_have_a_skeleton(gallery: Gallery, browser: Browser) -> None:
    assert "skeleton" not in gallery.get("").text
    with unfinished(gallery, "moderated"):
        second = gallery.get("?page=2")
        assert second.text.count('class="tile skeleton"') == 1
        assert 'name="refresh-seconds" content="3"' in second.text


def test_quickstart_images_are_shown_with_their_prompts(gallery: Gallery, browser: Browser) -> None:
    gallery.stack.flux.reset()
    run = Run(gallery.stack, "flux_quickstart")
    assert run.wait() == "success"
    prompts = [job["prompt"] for job in gallery.stack.flux.stats()["jobs"]]
    browser.driver.get(f"{gallery.stack.airflow.url}/dags/{run.dag_id}/runs/{quote(run.id)}/plugin/flux_run_images")
    browser.enter_frame()
    browser.wait_for(".tile img")
    assert len(widths(browser)) == len(prompts)
    assert min(widths(browser)) > 0
    browser.until(lambda: all(p.text for p in browser.all(".prompt")), "the prompts")
    assert sorted(p.text for p in browser.all(".prompt")) == sorted(prompts)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages_have_the_colours_of_airflow_and_fit_a_phone(gallery: Gallery, browser: Browser, theme: str) -> None:
    browser.set_theme(theme)
    for width in (1440, 390):
        resize(browser, width)
        for path in (gallery.path, "/flux/", f"/flux/compare?{selected(gallery, 0, 1)}"):
            browser.driver.get(gallery.stack.airflow.url + path)
            browser.wait_for("main img")
            assert browser.run("return document.documentElement.scrollWidth - innerWidth") <= 0, (path, width)
            assert browser.run(CONTRAST) == [], (path, width)
    resize(browser, 1440)
    open_tab(browser, gallery)
    airflow = "getComputedStyle(window.parent.document.documentElement).getPropertyValue('--chakra-colors-fg-info')"
    own = "getComputedStyle(document.documentElement).getPropertyValue('--fg-info')"
    assert browser.run(f"return {own}.trim() === {airflow}.trim() && {airflow} !== ''")
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgba(0, 0, 0, 0)"
    assert browser.run(CONTRAST) == []


def test_times_are_in_the_time_zone_chosen_in_airflow(gallery: Gallery, browser: Browser) -> None:
    open_tab(browser, gallery, "/tasks/generate/mapped/0", "flux_task_images")
    shown = set()
    for zone in ("Asia/Tokyo", "America/New_York"):
        browser.run(f"localStorage.setItem('timezone', JSON.stringify('{zone}'))")
        open_tab(browser, gallery, "/tasks/generate/mapped/0", "flux_task_images")
        shown.add(browser.wait_for("time").text)
        assert zone in browser.wait_for("time").get_attribute("title")
    browser.run("localStorage.removeItem('timezone')")
    assert len(shown) == 2


def selected(gallery: Gallery, *map_indexes: int) -> str:
    run = quote(gallery.run_id, safe="")
    keys = (quote(f"e2e_gallery/{run}/generate/{index}/0", safe="") for index in map_indexes)
    return "&".join(f"image={key}" for key in keys)


def test_navigation_page_searches_and_its_address_can_be_shared(gallery: Gallery, browser: Browser) -> None:
    browser.driver.get(f"{gallery.stack.airflow.url}/plugin/flux")
    browser.enter_frame()
    browser.wait_for(f"a[href='{gallery.path}']")
    browser.wait_for("input[name=q]").send_keys("QUINCE white", "\n")
    browser.until(lambda: [p.text for p in browser.all(".prompt")] == [PROMPTS[2]], "the one image")
    assert browser.run("return location.search") == "?q=QUINCE+white"
    browser.driver.get(browser.run("return location.href"))
    browser.until(lambda: [p.text for p in browser.all(".prompt")] == [PROMPTS[2]], "the same image")
    assert "1 image" in browser.wait_for("#totals").text
    browser.wait_for("input[name=q]").clear()
    browser.wait_for("input[name=q]").send_keys("no such word", "\n")
    browser.until(lambda: "No image matches this search." in browser.wait_for("main").text, "no image")
    assert browser.errors() == []


def test_selected_images_are_compared(gallery: Gallery, browser: Browser) -> None:
    browser.driver.get(gallery.stack.airflow.url + gallery.path)
    browser.wait_for(".tile img")
    assert browser.run("return document.querySelector('#selection').checkVisibility()") is False
    for number in (0, 1):
        browser.run(f"document.querySelectorAll('.tile input')[{number}].click()")
    browser.wait_for("#selection .compare").click()
    browser.until(lambda: len(browser.all(".comparison img")) == 2, "two images")
    table = browser.wait_for(".comparison").text
    assert PROMPTS[0] in table
    assert PROMPTS[1] in table
    assert browser.errors() == []


def test_zip_has_each_image_once_and_says_what_is_missing(gallery: Gallery) -> None:
    unreadable = {**gallery.result(), "id": "unreadable", "sha256": "0" * 64}
    gallery.set_result([gallery.result(), unreadable, {**gallery.result(1), "id": "another"}])
    archive = zipfile.ZipFile(io.BytesIO(gallery.get("/tasks/unrelated/-1/images.zip").content))
    assert archive.testzip() is None
    images = [name for name in archive.namelist() if name.endswith(".jpeg")]
    assert len(images) == 2
    assert not [name for name in images if "/" in name or name.startswith(".")]
    assert "could not read" in archive.read("missing.txt").decode()
    assert PROMPTS[0][:8] in archive.read("images.csv").decode("utf-8-sig")


def test_downloads_and_comparisons_need_access_to_each_dag(gallery: Gallery) -> None:
    query = selected(gallery, 0, 1)
    for path in ("/flux/images.zip", "/flux/images.csv", "/flux/compare"):
        assert gallery.get(f"{path}?{query}").status_code == 200
        assert gallery.get(f"{path}?{query}", user="nobody").status_code == 403
        assert gallery.get(f"{path}?{query}", user=None).status_code == 401
        assert gallery.get(f"{path}?image=s3://flux/secret.png").status_code == 422
    assert len(gallery.get("/flux/images.csv", user="nobody").text.splitlines()) == 1


def test_ten_thousand_images_are_paged(gallery: Gallery, browser: Browser) -> None:
    line = {**gallery.result(), "state": "stored", "prompt": "=1+1 a seed"}
    folder = line["uri"].rpartition("/")[0].removeprefix("s3://flux/")
    lines = [{**line, "index": index, "id": f"job-{index}"} for index in range(10_000)]
    gallery.set_manifest(f"{folder}/large.jsonl", *lines)
    browser.driver.get(f"{gallery.stack.airflow.url}{gallery.path}/tasks/unrelated/-1?page=209")
    browser.until(lambda: len(browser.all(".tile")) == 16, "the last page")
    assert "Images 9985 to 10000 of 10000" in browser.wait_for("#counts").text
    browser.wait_for(".tile a.image").click()
    assert position(browser) == "9985 of 10000"
    assert len(gallery.get("/tasks/unrelated/-1").content) < 200_000
    table = gallery.get("/tasks/unrelated/-1/images.csv").content.decode("utf-8-sig").splitlines()
    assert len(table) == 10_001
    # A spreadsheet must not take a prompt for a formula.
    assert ",'=1+1 a seed," in table[-1]
