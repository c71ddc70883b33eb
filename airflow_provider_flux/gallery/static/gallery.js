// Shows prompts from receipts, opens full images in a dialog, copies recipes. The page works without it.
"use strict";

async function showRecipe(card) {
  let recipe;
  try {
    const response = await fetch(card.dataset.recipe);
    recipe = response.ok ? await response.json() : { note: "The receipt could not be read." };
  } catch {
    recipe = { note: "The receipt could not be read." };
  }
  const [prompt, image] = [card.querySelector(".prompt"), card.querySelector("img")];
  prompt.textContent = recipe.prompt || recipe.note || "";
  if (recipe.prompt) {
    prompt.classList.remove("faint");
    if (image) image.alt = recipe.prompt;
  }
  if (recipe.text) {
    const button = card.querySelector(".copy");
    button.hidden = false;
    button.addEventListener("click", () => copy(recipe.text));
  }
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // The clipboard API needs https; execCommand does not.
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  const toast = document.querySelector(".toast");
  toast.textContent = "Recipe copied";
  setTimeout(() => { toast.textContent = ""; }, 3000);
}

function openFullImage(event) {
  const link = event.target.closest(".card a:not([download])");
  // A modifier key or another button asks for a new tab or window.
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
  const image = event.target.closest(".card .image");
  if (!image) return;
  const placeholder = document.createElement("p");
  placeholder.className = "image placeholder";
  placeholder.textContent = "The image could not be read.";
  image.before(placeholder);
  // The class hides the links to the image, also those that the parser has not reached yet.
  image.closest(".card").classList.add("failed");
}

// On the document, in the capture phase: an image may fail, or be clicked, before the page is complete, and error
// events do not bubble.
document.addEventListener("error", showFailure, true);
document.addEventListener("click", openFullImage);

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".card[data-recipe]").forEach(showRecipe);
  const dialog = document.querySelector("dialog");
  dialog.addEventListener("close", () => { dialog.querySelector("img").removeAttribute("src"); });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
});
