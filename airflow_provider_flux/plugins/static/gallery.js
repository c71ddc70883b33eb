// Fills in what receipts tell, opens full images in a dialog, copies recipes. The page is of use without it.
"use strict";

const dialog = document.querySelector("dialog");
const said = document.querySelector(".said");

async function describe(card) {
  let answer;
  try {
    const response = await fetch(card.dataset.recipe);
    answer = response.ok ? await response.json() : { note: "The receipt could not be read." };
  } catch {
    answer = { note: "The receipt could not be read." };
  }
  const prompt = card.querySelector(".prompt");
  prompt.textContent = answer.prompt || answer.note || "";
  if (answer.prompt) {
    prompt.classList.remove("faint");
    card.querySelector("img").alt = answer.prompt;
  }
  if (answer.recipe) {
    const button = card.querySelector(".copy");
    button.hidden = false;
    button.addEventListener("click", () => copy(JSON.stringify(answer.recipe, null, 2)));
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
  said.textContent = "Recipe copied.";
  setTimeout(() => { said.textContent = ""; }, 3000);
}

function open(event, card) {
  event.preventDefault();
  const [full, caption] = [dialog.querySelector("img"), dialog.querySelector("p")];
  full.src = card.querySelector(".picture").href;
  full.alt = card.querySelector("img").alt;
  caption.textContent = card.querySelector(".prompt").textContent;
  dialog.showModal();
}

function showFailure(image) {
  const text = document.createElement("p");
  text.className = "picture nothing";
  text.textContent = "The image could not be read from its store.";
  image.closest(".picture").replaceWith(text);
}

for (const card of document.querySelectorAll(".card[data-recipe]")) {
  const image = card.querySelector("img");
  for (const link of card.querySelectorAll("a:not([download])")) {
    link.addEventListener("click", (event) => open(event, card));
  }
  image.addEventListener("error", () => showFailure(image));
  if (image.complete && image.src && !image.naturalWidth && image.loading !== "lazy") showFailure(image);
  describe(card);
}

dialog.addEventListener("close", () => { dialog.querySelector("img").removeAttribute("src"); });
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
