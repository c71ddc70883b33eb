// Leaves Airflow's frame, whose sandbox allows neither new tabs nor the way to another page of Airflow.
const framed = document.documentElement.classList.contains("framed");

/** Open an address outside of the frame: as a download, in a new tab, or in place of Airflow's page. */
export function openOutside(address, { target = "", download = null } = {}) {
  // A link of Airflow's own page is not in the sandbox.
  const page = framed ? window.parent.document : document;
  const link = page.createElement("a");
  Object.assign(link, { href: new URL(address, document.baseURI).href, rel: "noopener" });
  if (target === "_blank") link.target = target;
  if (download !== null) link.download = download;
  page.body.append(link);
  link.click();
  link.remove();
}

export function leaveFrame() {
  if (!framed) return;
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[target], a[download]");
    if (!link || !link.href || event.defaultPrevented || isModified(event)) return;
    event.preventDefault();
    openOutside(link.href, { target: link.target, download: link.getAttribute("download") });
  });
}

/** Whether a click asks for a new tab or window. */
export function isModified(event) {
  return event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey;
}
