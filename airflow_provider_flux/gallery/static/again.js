// "Make another like this": a new run of the DAG with the parameters of the image's run, and another seed.
import { openOutside } from "./airflow.js";

const MAX_SEED = 2 ** 32;

/** Ask for the parameters of a new run like that of the tile's image. */
export async function makeAnother(tile) {
  const [, base, dag, run] = /^(.*)\/dags\/([^/]+)\/runs\/([^/]+)$/.exec(tile.dataset.run);
  const api = `${base}/api/v2/dags/${dag}`;
  const dialog = build();
  const say = (text) => { dialog.querySelector(".said").textContent = text; };
  dialog.querySelector("h2").textContent = `Make another: a new run of ${decodeURIComponent(dag)}`;
  dialog.querySelector(".form").href = tile.dataset.run;
  document.body.append(dialog);
  dialog.showModal();
  dialog.addEventListener("close", () => dialog.remove());
  dialog.querySelector(".cancel").addEventListener("click", () => dialog.close());
  dialog.querySelector(".trigger").addEventListener("click", async () => {
    try {
      const created = await send(`${api}/dagRuns`, dialog.querySelector("textarea").value);
      openOutside(`${base}/dags/${dag}/runs/${encodeURIComponent(created.dag_run_id)}`);
    } catch (error) {
      say(error.message);
    }
  });
  try {
    const [details, former] = await Promise.all([read(`${api}/details`), read(`${api}/dagRuns/${run}`)]);
    const conf = { ...former.conf };
    if ("seed" in conf || "seed" in (details.params ?? {})) {
      conf.seed = Math.floor(Math.random() * MAX_SEED);
      say("The seed is another one. The new run is billed like any other.");
    } else {
      say("This DAG has no parameter named seed: the image differs only if its task has no fixed seed. The new run is billed like any other.");
    }
    dialog.querySelector("textarea").value = JSON.stringify(conf, null, 2);
  } catch (error) {
    say(error.message);
  }
}

function build() {
  const dialog = document.createElement("dialog");
  dialog.className = "again-form";
  dialog.setAttribute("aria-label", "Make another like this");
  const parts = [
    ["h2", ""], ["label", "", "Parameters of the run (JSON)"], ["textarea", ""], ["p", "said muted"], ["div", "bar"],
  ].map(([name, style, text = ""]) => element(name, style, text));
  const [, label, area, said, bar] = parts;
  area.spellcheck = false;
  area.id = "again-parameters";
  label.htmlFor = area.id;
  said.setAttribute("role", "status");
  const form = element("a", "button form", "Open Airflow's trigger form");
  form.target = "_top";
  bar.append(element("button", "trigger primary", "Trigger the run"), form, element("button", "cancel", "Cancel"));
  dialog.append(...parts);
  return dialog;
}

function element(name, style, text) {
  const created = Object.assign(document.createElement(name), { className: style, textContent: text });
  if (name === "button") created.type = "button";
  return created;
}

async function read(address, options) {
  const response = await fetch(address, options);
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  const detail = typeof answer.detail === "string" ? answer.detail : JSON.stringify(answer.detail ?? response.statusText);
  throw new Error(`Airflow refuses: ${detail}`);
}

async function send(address, text) {
  let conf;
  try {
    conf = JSON.parse(text || "{}");
  } catch {
    throw new Error("The parameters are not valid JSON.");
  }
  const body = JSON.stringify({ conf, logical_date: null });
  return read(address, { method: "POST", headers: { "Content-Type": "application/json" }, body });
}
