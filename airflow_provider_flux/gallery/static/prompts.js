// Reads the prompts that the page does not know from the receipts, of those images that come into view.
const recipes = new Map();

/** Return the recipe of a tile's image: prompt, parameters, or a note on why there are none. */
export function recipeOf(tile) {
  const address = tile.dataset.recipe;
  if (!address) return Promise.resolve({ note: "" });
  if (!recipes.has(address)) recipes.set(address, read(address));
  return recipes.get(address);
}

async function read(address) {
  try {
    const response = await fetch(address);
    if (response.ok) return await response.json();
  } catch {
    // The note below says so.
  }
  recipes.delete(address);
  return { note: "The receipt could not be read." };
}

async function showPrompt(tile) {
  const recipe = await recipeOf(tile);
  const [prompt, image] = [tile.querySelector(".prompt"), tile.querySelector("img")];
  prompt.textContent = recipe.prompt || recipe.note || "";
  prompt.title = recipe.prompt || "";
  prompt.classList.toggle("muted", !recipe.prompt);
  if (!recipe.prompt || !image) return;
  image.alt = recipe.prompt;
  const label = tile.querySelector(".select span");
  if (label) label.textContent = `Select ${recipe.prompt}`;
}

const inView = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    inView.unobserve(target);
    showPrompt(target);
  }
}, { rootMargin: "400px" });

export function showPrompts() {
  for (const tile of document.querySelectorAll(".tile[data-recipe]")) {
    if (!tile.querySelector(".prompt").textContent) inView.observe(tile);
  }
}
