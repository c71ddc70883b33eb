// Light or dark as Airflow's own page is, which carries it as a class; by itself, as the system is.
"use strict";

(() => {
  let outer;
  try {
    outer = window.parent === window ? null : window.parent.document.documentElement;
  } catch {
    return; // embedded elsewhere: the system decides
  }
  if (!outer) return;
  const follow = () => {
    const theme = ["dark", "light"].find((name) => outer.classList.contains(name));
    if (theme) document.documentElement.dataset.theme = theme;
  };
  follow();
  new MutationObserver(follow).observe(outer, { attributes: true, attributeFilter: ["class"] });
})();
