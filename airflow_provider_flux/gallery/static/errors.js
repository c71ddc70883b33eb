// Marks images that cannot be read, also those that fail before the other scripts run.
"use strict";

// In the capture phase: error events do not bubble.
document.addEventListener("error", ({ target }) => {
  if (target.matches?.("img")) target.classList.add("broken");
}, true);
