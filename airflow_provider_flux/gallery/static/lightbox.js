// The lightbox: one image after the other, in full, with its facts. The wall's links work without it.
import { isModified } from "./airflow.js";
import { makeAnother } from "./again.js";
import { copyText } from "./clipboard.js";
import { recipeOf } from "./prompts.js";
import { say } from "./toast.js";

const dialog = document.querySelector("dialog.lightbox");
const part = (selector) => dialog.querySelector(selector);
const SWIPE_PIXELS = 50;
let current = null; // The id of the tile that is shown.

const tiles = () => [...document.querySelectorAll(".tile[data-position]")];
const tileOf = (element) => element.closest?.(".tile[data-position]");

export function showLightbox() {
  document.addEventListener("error", showFailure, true);
  document.querySelectorAll(".tile img.broken").forEach(fail);
  if (!dialog) return;
  document.addEventListener("click", openClicked);
  document.addEventListener("gallery:refreshed", () => { if (dialog.open) showPosition(); });
  dialog.addEventListener("close", closed);
  dialog.addEventListener("keydown", useKey);
  part(".previous").addEventListener("click", () => step(-1));
  part(".next").addEventListener("click", () => step(1));
  part(".close").addEventListener("click", () => dialog.close());
  part(".toggle-facts").addEventListener("click", toggleFacts);
  part(".copy").addEventListener("click", copyRecipe);
  part(".again").addEventListener("click", (event) => { event.preventDefault(); makeAnother(document.getElementById(current)); });
  part(".full-screen").hidden = !document.fullscreenEnabled;
  part(".full-screen").addEventListener("click", toggleFullScreen);
  followSwipes(part(".stage"));
}

/** Open the image that the address names after its #: one of the page, or its first or last. */
export function openLightboxOfAddress() {
  const all = dialog ? tiles() : [];
  const name = location.hash.slice(1);
  const tile = name === "first" ? all[0] : name === "last" ? all.at(-1) : all.find(({ id }) => id === name);
  if (tile) open(tile);
}

function openClicked(event) {
  const link = event.target.closest(".tile a.image");
  if (!link || isModified(event) || !tileOf(link)) return;
  event.preventDefault();
  open(tileOf(link));
}

function open(tile) {
  show(tile);
  if (!dialog.open) dialog.showModal();
}

function closed() {
  const tile = document.getElementById(current);
  current = null;
  part(".shown").removeAttribute("src");
  history.replaceState(null, "", location.pathname + location.search);
  tile?.querySelector("a.image")?.focus();
}

function show(tile) {
  current = tile.id;
  const [link, small] = [tile.querySelector("a.image"), tile.querySelector("img")];
  history.replaceState(null, "", `#${tile.id}`);
  showImage(link.href, small);
  for (const name of [".open", ".download"]) part(name).href = link.href;
  part(".again").href = tile.dataset.run;
  part(".copy").hidden = !tile.dataset.recipe;
  showPosition();
  showFacts(tile);
  for (const neighbour of [1, -1].map((distance) => tiles()[tiles().indexOf(tile) + distance])) {
    if (neighbour) new Image().src = neighbour.querySelector("a.image").href;
  }
}

/** Show the thumbnail at once, and the full image as soon as it is there. */
function showImage(address, small) {
  const [shown, failure] = [part(".shown"), part(".failure")];
  const tile = current;
  shown.alt = small.alt;
  shown.hidden = false;
  failure.hidden = true;
  shown.src = small.complete && small.naturalWidth ? small.src : "";
  const full = new Image();
  full.addEventListener("load", () => { if (current === tile) shown.src = address; });
  full.addEventListener("error", async () => {
    const reason = await reasonOf(address);
    if (current !== tile) return;
    shown.hidden = true;
    failure.hidden = false;
    failure.textContent = reason;
  });
  full.src = address;
}

async function reasonOf(address) {
  try {
    const answer = await (await fetch(address, { headers: { Accept: "application/json" } })).json();
    if (answer.detail) return answer.detail;
  } catch {
    // Not the gallery's own answer.
  }
  return "The image could not be read.";
}

function showPosition() {
  const [all, tile] = [tiles(), document.getElementById(current)];
  const index = all.indexOf(tile);
  const total = Number(document.querySelector("[data-stored]")?.dataset.stored) || all.length;
  part(".position").textContent = `${tile?.dataset.position ?? index + 1} of ${total}`;
  part(".previous").disabled = index <= 0 && !otherPage("prev");
  part(".next").disabled = index >= all.length - 1 && !otherPage("next");
}

const otherPage = (rel) => document.querySelector(`.pager a[rel=${rel}]`);

async function showFacts(tile) {
  const [panel, prompt] = [part("aside"), document.createElement("p")];
  prompt.className = "prompt";
  prompt.textContent = tile.querySelector(".prompt").textContent;
  panel.replaceChildren(prompt, tile.querySelector(".facts").cloneNode(true));
  const recipe = await recipeOf(tile);
  if (current !== tile.id) return;
  if (recipe.prompt) part(".shown").alt = recipe.prompt;
  prompt.textContent = recipe.prompt || prompt.textContent || recipe.note;
}

function step(distance) {
  const all = tiles();
  goTo(all.findIndex(({ id }) => id === current) + distance);
}

function goTo(index) {
  const all = tiles();
  if (all[index]) return show(all[index]);
  const page = otherPage(index < 0 ? "prev" : "next");
  if (page) location.href = `${page.href}#${index < 0 ? "last" : "first"}`;
}

function useKey(event) {
  if (isModified(event) || event.target.matches("textarea, input")) return;
  const keys = {
    ArrowLeft: () => step(-1),
    ArrowRight: () => step(1),
    Home: () => goTo(0),
    End: () => goTo(tiles().length - 1),
    f: toggleFacts,
    c: copyRecipe,
    d: () => part(".download").click(),
  };
  const act = keys[event.key];
  if (!act) return;
  event.preventDefault();
  act();
}

function toggleFacts() {
  const isHidden = dialog.classList.toggle("without-facts");
  part(".toggle-facts").setAttribute("aria-expanded", String(!isHidden));
}

async function toggleFullScreen() {
  try {
    await (document.fullscreenElement ? document.exitFullscreen() : dialog.requestFullscreen());
  } catch {
    say("The browser does not allow full screen here. Open the image in a new tab instead.");
  }
}

async function copyRecipe() {
  const recipe = await recipeOf(document.getElementById(current));
  if (!recipe.text) return say(recipe.note || "This image has no recipe.");
  await copyText(recipe.text);
  say("Recipe copied");
}

function followSwipes(stage) {
  let start = null;
  stage.addEventListener("pointerdown", (event) => { start = event.pointerType === "touch" ? event.clientX : null; });
  stage.addEventListener("pointerup", (event) => {
    const distance = start === null ? 0 : event.clientX - start;
    start = null;
    if (Math.abs(distance) >= SWIPE_PIXELS) step(distance < 0 ? 1 : -1);
  });
}

function showFailure(event) {
  if (event.target.matches?.(".tile img")) fail(event.target);
}

function fail(image) {
  const [link, tile] = [image.closest("a.image"), image.closest(".tile")];
  if (!link || !tile) return;
  const placeholder = document.createElement("p");
  placeholder.className = "image placeholder";
  placeholder.textContent = "The image could not be read.";
  link.replaceWith(placeholder);
  delete tile.dataset.position;
  tile.classList.add("failed");
  tile.querySelector(".select")?.remove();
}
