// Copies the address of what the page shows, and sends the time zone of the days in the search.
import { copyText } from "./clipboard.js";
import { say } from "./toast.js";
import { timeZone } from "./times.js";

export function shareView() {
  const zone = document.querySelector("input[name=tz]");
  if (zone) zone.value ||= timeZone() ?? Intl.DateTimeFormat().resolvedOptions().timeZone;
  document.querySelector(".filters")?.addEventListener("submit", (event) => leaveOutEmptyFields(event.target));
  document.querySelector(".share")?.addEventListener("click", async (event) => {
    event.preventDefault();
    await copyText(addressToShare());
    say("Link copied");
  });
}

/** Airflow's own address where it contains the gallery's, as since Airflow 3.2; else the gallery's. */
function addressToShare() {
  const framed = window.parent !== window && window.parent.location.href.includes(location.pathname + location.search);
  return (framed ? window.parent : window).location.href;
}

function leaveOutEmptyFields(form) {
  const hasDay = form.elements.since.value || form.elements.until.value;
  for (const field of form.elements) field.disabled = !field.value || (field.name === "tz" && !hasDay);
  // For the form that the browser shows again when it goes back.
  setTimeout(() => { for (const field of form.elements) field.disabled = false; });
}
