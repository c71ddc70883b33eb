// Counts the selected images, and shows what can be done with them.
import { openOutside } from "./airflow.js";

const MAX_COMPARED = 4;

export function followSelection() {
  const form = document.getElementById("selection");
  if (!form) return;
  const [compare, download, count] = [".compare", ".download", "output"].map((part) => form.querySelector(part));

  const show = () => {
    const selected = new FormData(form).getAll("image").length;
    document.body.classList.toggle("selecting", selected > 0);
    compare.disabled = selected < 2 || selected > MAX_COMPARED;
    compare.title = compare.disabled ? `Select two to ${MAX_COMPARED} images to compare them` : "";
    count.textContent = `${selected} selected`;
  };
  document.addEventListener("change", (event) => { if (event.target.form === form) show(); });
  form.addEventListener("reset", () => setTimeout(show));
  form.addEventListener("submit", (event) => {
    if (event.submitter !== download) return;
    event.preventDefault();
    openOutside(`${download.formAction}?${new URLSearchParams(new FormData(form))}`, { download: "" });
  });
  show();
}
