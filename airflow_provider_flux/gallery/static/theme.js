// In Airflow's frame, follows the theme and the colours of Airflow's page; alone, the theme chosen in Airflow.
"use strict";

(() => {
  const root = document.documentElement;
  root.classList.add("scripted");
  let airflowRoot = null;
  try {
    if (window.parent !== window) airflowRoot = window.parent.document.documentElement;
  } catch {
    return; // Embedded by another origin: the system's theme.
  }
  if (!airflowRoot) {
    const chosen = localStorage.getItem("theme");
    if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;
    return;
  }
  root.classList.add("framed");
  const names = ["bg", "bg-subtle", "bg-muted", "bg-emphasized", "fg", "fg-muted", "border", "border-emphasized",
    "fg-info", "brand-solid", "brand-contrast", "brand-subtle", "brand-fg", "failed-fg"];
  const states = ["success", "failed", "upstream_failed", "up_for_retry", "up_for_reschedule", "running", "restarting",
    "deferred", "awaiting_input", "queued", "scheduled", "skipped", "removed", "none"];
  const follow = () => {
    const theme = ["dark", "light"].find((name) => airflowRoot.classList.contains(name));
    if (theme) root.dataset.theme = theme;
    // The resolved values: a version of Airflow without a token leaves the default of colours.css.
    const airflow = getComputedStyle(airflowRoot);
    for (const name of [...names, ...states.map((state) => `${state}-solid`)]) {
      const value = airflow.getPropertyValue(`--chakra-colors-${name}`).trim();
      if (value) root.style.setProperty(`--${name}`, value);
    }
  };
  follow();
  new MutationObserver(follow).observe(airflowRoot, { attributes: true, attributeFilter: ["class", "style"] });
})();
