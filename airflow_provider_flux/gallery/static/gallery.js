// Starts what the pages with images do in the browser; each page works without it.
import { leaveFrame } from "./airflow.js";
import { openLightboxOfAddress, showLightbox } from "./lightbox.js";
import { keepFresh } from "./live.js";
import { showPrompts } from "./prompts.js";
import { followSelection } from "./selection.js";
import { shareView } from "./sharing.js";
import { showTimes } from "./times.js";

const show = () => {
  showTimes();
  showPrompts();
};

// Before the scripts change what the server sent.
keepFresh(show);
leaveFrame();
showLightbox();
followSelection();
shareView();
show();
openLightboxOfAddress();
