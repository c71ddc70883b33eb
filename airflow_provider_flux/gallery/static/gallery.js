// Fills in what receipts tell, opens full images in a dialog, copies recipes. The page is of use without it.
"use strict";

async function describe(card) {
  let answer;
  try {
    const response = await fetch(card.dataset.recipe);
    answer = response.ok ? await response.json() : { note: "The receipt could not be read." };
  } catch {
    answer = { note: "The receipt could not be read." };
  }
  const [prompt, image] = [card.querySelector(".prompt"), card.querySelector("img")];
  prompt.textContent = answer.prompt || answer.note || "";
  if (answer.prompt) {
    prompt.classList.remove("faint");
    if (image) image.alt = answer.prompt;
  }
  if (answer.text) {
    const button = card.querySelector(".copy");
    button.hidden = false;
    button.addEventListener("click", () => copy(answer.text));
  }
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // The clipboard's interface needs https; the old way does not.
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  const said = document.querySelector(".said");
  said.textContent = "Recipe copied.";
  setTimeout(() => { said.textContent = ""; }, 3000);
}

function open(event) {
  const link = event.target.closest(".card a:not([download])");
  // With such a key, or another button, people ask for a new tab or window.
  if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  const [card, dialog] = [link.closest(".card"), document.querySelector("dialog")];
  const [full, caption] = [dialog.querySelector("img"), dialog.querySelector("p")];
  full.src = link.href;
  full.alt = card.querySelector("img").alt;
  caption.textContent = card.querySelector(".prompt").textContent;
  dialog.showModal();
}

function showFailure(event) {
  const picture = event.target.closest(".card .picture");
  if (!picture) return;
  const text = document.createElement("p");
  text.className = "picture nothing";
  text.textContent = "The image could not be read from its store.";
  picture.before(text);
  // Its style hides what leads to the image, and what of that is still to come with the page.
  picture.closest(".card").classList.add("failed");
}

// Not each card's own: an image may fail, and be clicked at, before the page is complete. Such errors do not bubble.
document.addEventListener("error", showFailure, true);
document.addEventListener("click", open);

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".card[data-recipe]").forEach(describe);
  const dialog = document.querySelector("dialog");
  dialog.addEventListener("close", () => { dialog.querySelector("img").removeAttribute("src"); });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
});
