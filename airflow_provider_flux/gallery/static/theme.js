// In Airflow's frame, follows the theme of Airflow's page, which is a class of its root; alone, the system's theme.
"use strict";

(() => {
  let airflowRoot;
  try {
    airflowRoot = window.parent === window ? null : window.parent.document.documentElement;
  } catch {
    return; // Embedded by another origin: the system's theme.
  }
  if (!airflowRoot) return;
  const follow = () => {
    const theme = ["dark", "light"].find((name) => airflowRoot.classList.contains(name));
    if (theme) document.documentElement.dataset.theme = theme;
  };
  follow();
  new MutationObserver(follow).observe(airflowRoot, { attributes: true, attributeFilter: ["class"] });
})();
