// Shows times as Airflow does: in the time zone that is chosen in its UI, which it keeps in the browser.
/** Return the zone chosen in Airflow; undefined: the browser's own, as in Airflow. */
export function timeZone() {
  try {
    const chosen = localStorage.getItem("timezone");
    const name = chosen?.startsWith('"') ? JSON.parse(chosen) : chosen;
    new Intl.DateTimeFormat("en", { timeZone: name || undefined });
    return name || undefined;
  } catch {
    return undefined;
  }
}

export function showTimes() {
  const zone = timeZone();
  const digits = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit" };
  const format = new Intl.DateTimeFormat("sv-SE", { ...digits, timeZone: zone });
  const name = format.resolvedOptions().timeZone;
  for (const time of document.querySelectorAll("time[datetime]")) {
    const moment = new Date(time.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    time.textContent = format.format(moment);
    time.title = `${name} (${time.dateTime})`;
  }
}

window.addEventListener("storage", (event) => { if (event.key === "timezone") showTimes(); });
