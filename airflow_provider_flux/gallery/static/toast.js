// A short message in the corner of the page, or of the dialog that covers it.
const SECONDS = 4;
let timer;

export function say(text) {
  const toast = document.querySelector(".toast");
  if (!toast) return;
  (document.querySelector("dialog[open]") ?? document.querySelector("main")).append(toast);
  toast.textContent = text;
  clearTimeout(timer);
  if (text) timer = setTimeout(() => { toast.textContent = ""; }, 1000 * SECONDS);
}
