// While a task is unfinished, fetches the page again and again and shows what has changed, in place.
import { say } from "./toast.js";

const served = new WeakMap(); // Element -> its HTML as the server sent it.
const MAX_SECONDS = 60;

/** Start, if the page asks for it; `show` is called after each change. */
export function keepFresh(show) {
  const seconds = refreshSeconds(document);
  if (!seconds) return;
  remember(document.body);
  let delay = seconds;
  let timer = setTimeout(refresh, 1000 * delay);

  async function refresh() {
    clearTimeout(timer);
    if (document.hidden) return;
    const fresh = await fetchPage();
    if (fresh) apply(fresh, show);
    if (!fresh) say("This page could not be refreshed. It tries again.");
    delay = fresh ? refreshSeconds(fresh) : Math.min(2 * delay, MAX_SECONDS);
    if (delay) timer = setTimeout(refresh, 1000 * delay);
  }
  document.addEventListener("visibilitychange", () => { if (delay && !document.hidden) refresh(); });
}

function refreshSeconds(page) {
  return Number(page.querySelector("meta[name=refresh-seconds]")?.content) || 0;
}

async function fetchPage() {
  try {
    const response = await fetch(location.href, { headers: { Accept: "text/html" } });
    return response.ok ? new DOMParser().parseFromString(await response.text(), "text/html") : null;
  } catch {
    return null;
  }
}

function remember(root) {
  for (const element of root.querySelectorAll("[data-live], [data-live] [id]")) served.set(element, element.innerHTML);
}

function apply(fresh, show) {
  const focused = document.activeElement?.closest("[id]")?.id;
  const checked = new Set([...document.querySelectorAll("input[name=image]:checked")].map((input) => input.value));
  for (const region of document.querySelectorAll("[data-live]")) {
    const other = fresh.getElementById(region.id);
    if (other) update(region, other);
  }
  for (const input of document.querySelectorAll("input[name=image]")) input.checked = checked.has(input.value);
  if (focused && document.activeElement === document.body) {
    document.getElementById(focused)?.querySelector("a, button, input")?.focus({ preventScroll: true });
  }
  show();
  document.dispatchEvent(new Event("gallery:refreshed"));
}

/** Make the content of `old` that of `fresh`; elements with the same id stay, and with them scroll and focus. */
function update(old, fresh) {
  for (const { name, value } of fresh.attributes) if (name.startsWith("data-")) old.setAttribute(name, value);
  const html = fresh.innerHTML;
  if (served.get(old) === html) return;
  const [list, freshList] = [old, fresh].map((element) => element.querySelector(":scope > .wall, :scope > .runs"));
  if (list && freshList && list.className === freshList.className) {
    updateList(list, freshList);
  } else {
    remember(fresh);
    old.replaceChildren(...fresh.childNodes);
  }
  served.set(old, html);
}

function updateList(list, freshList) {
  const wanted = [...freshList.children].map((fresh) => {
    const old = document.getElementById(fresh.id);
    if (old && list.contains(old)) {
      update(old, fresh);
      return old;
    }
    served.set(fresh, fresh.innerHTML);
    remember(fresh);
    return fresh;
  });
  for (const old of [...list.children]) if (!wanted.includes(old)) old.remove();
  wanted.forEach((element, index) => {
    // Moving an element takes its focus away, so only those that are elsewhere are moved.
    if (list.children[index] !== element) list.insertBefore(element, list.children[index] ?? null);
  });
}

