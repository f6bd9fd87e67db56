// The sections that change while the service runs, and the API keys.

import { ask, renewed } from "./api.js";
import { changeRow } from "./changes.js";
import { confirmed } from "./dialog.js";
import { byId, copying, el, say, table } from "./dom.js";
import { moment, words } from "./format.js";

const SECTIONS = ["upstreams", "budgets", "judges", "routes", "metrics", "policies", "settings"];
const WHY = { name: "why", label: "Reason", type: "text", required: true };

// --- the sections

let chosen = "budgets";

/** What is in force, one section at a time, as JSON to be changed; `then()` after a change. */
export function sectionsPanel(now, then) {
  const text = el("textarea", { id: "section-text", rows: "8", spellcheck: "false", class: "code" });
  const forget = el("input", { id: "section-forget", type: "text", autocomplete: "off", "aria-describedby": "section-forget-hint" });
  const told = el("p", { class: "result", role: "status" });
  const fill = () => { text.value = JSON.stringify(now[chosen], null, 2); say(told, ""); };
  const select = el("select", { id: "section", onchange() { chosen = select.value; fill(); } }, SECTIONS.map((name) => el("option", { value: name, selected: name === chosen }, name)));
  const apply = async (event) => {
    event.preventDefault();
    let entries;
    try {
      entries = JSON.parse(text.value);
    } catch (error) {
      say(told, `Not valid JSON: ${error.message}`);
      return;
    }
    const lost = words(forget.value);
    const note = lost.length ? ` What the policies of ${lost.join(", ")} have learned may be lost.` : "";
    const send = ({ why }) => ask("PUT", "v1/configuration", { [chosen]: entries, why, forget: lost }, { "If-Match": `"${now.revision}"` });
    if (await confirmed(`Change ${chosen}?`, `All of it is checked first; with a mistake nothing changes. It applies from the next request, also after a restart.${note}`, [WHY], send)) await then();
  };
  fill();
  return el("div", { class: "panel", id: "sections-panel" },
    el("h3", {}, "Configuration"),
    el("p", { class: "muted" }, `Revision ${now.revision}. Each section is a list of tables, with the fields that they have in the file. Secrets are names of variables or files.`),
    el("form", { onsubmit: apply },
      el("div", { class: "field" }, el("label", { for: "section" }, "Section"), select),
      el("div", { class: "field" }, el("label", { for: "section-text" }, "Entries, JSON"), text),
      el("div", { class: "field" }, el("label", { for: "section-forget" }, "Routes whose learning may be lost"), forget, el("p", { class: "muted", id: "section-forget-hint" }, "Only if a route is removed, or gets another policy.")),
      el("div", { class: "row" }, el("button", { type: "submit" }, "Apply"), el("button", { type: "button", class: "quiet", onclick: then }, "Read it again")), told),
    historyList(now, then));
}

function historyList({ revision, history }, then) {
  if (!history.length) return el("p", { class: "muted" }, "Nothing was changed at run time.");
  const back = async (to) => {
    const send = ({ why }) => ask("POST", "v1/configuration/rollback", { to, why }, { "If-Match": `"${revision}"` });
    if (await confirmed(`Back to revision ${to}?`, "This restores the sections of that revision, as a new revision. Keys stay as they are.", [WHY], send)) await then();
  };
  const item = (one) => {
    const { node, update } = changeRow();
    update(one);
    if (one.revision !== revision) node.append(el("button", { type: "button", class: "quiet", onclick: () => back(one.revision) }, `Back to ${one.revision}`));
    return node;
  };
  return el("details", { open: true }, el("summary", {}, "Changes"), el("ul", { id: "revisions", class: "budgets" }, history.map(item)));
}

// --- the keys

/** Told once, until the view is left. */
let fresh = null;

export function keysPanel({ keys }, then) {
  const make = async () => {
    const fields = [
      { name: "id", label: "Name", type: "text", required: true },
      { name: "scopes", label: "Scopes: any of decide, reward, read, texts, admin", type: "text", required: true, value: "decide, reward" },
      { name: "tenant", label: "Only for this tenant", type: "text" }, WHY,
    ];
    const send = (given) => ask("POST", "v1/keys", { id: given.id.trim(), scopes: words(given.scopes), tenant: given.tenant.trim(), why: given.why });
    await made(await confirmed("Make an API key", "It is shown once, after this.", fields, send));
  };
  const rotate = async (key) => {
    const fields = [{ name: "grace", label: "Hours that the present key stays valid", type: "number", min: "0", step: "any", value: "1", required: true }, WHY];
    const send = async (given) => {
      const answer = await ask("POST", `v1/keys/${encodeURIComponent(key.id)}/rotate`, { grace_s: 3600 * Number(given.grace), why: given.why });
      await renewed(answer.key);
      return answer;
    };
    await made(await confirmed(`A new key for ${key.id}?`, "It is shown once, after this.", fields, send));
  };
  const revoke = async (key) => {
    const send = ({ why }) => ask("DELETE", `v1/keys/${encodeURIComponent(key.id)}?why=${encodeURIComponent(why)}`);
    if (await confirmed(`Revoke ${key.id}?`, "From now on requests with it get 401, on open streams too. A rollback does not restore it.", [WHY], send)) await then();
  };
  const made = async (answer) => {
    if (!answer) return;
    fresh = answer;
    await then();
  };
  const row = (key) => el("tr", { role: "row" },
    el("td", { role: "rowheader", class: "wide" }, el("span", { class: "name" }, key.id)),
    el("td", { role: "cell", "data-label": "Scopes" }, key.scopes.join(", ")),
    el("td", { role: "cell", "data-label": "Tenant" }, key.tenant || "any"),
    el("td", { role: "cell", "data-label": "Ends" }, key.expires || "never", key.old_expires ? el("small", {}, `the one before until ${key.old_expires}`) : null),
    el("td", { role: "cell", "data-label": "Set by" }, key.source === "file" ? "configuration" : "API"),
    el("td", { role: "cell", class: "wide" }, el("div", { class: "row" },
      el("button", { type: "button", class: "quiet", "aria-label": `Rotate ${key.id}`, onclick: () => rotate(key) }, "Rotate"),
      el("button", { type: "button", class: "danger", "aria-label": `Revoke ${key.id}`, onclick: () => revoke(key) }, "Revoke"))));
  const heads = ["Key", "Scopes", "Tenant", "Ends", "Set by", "Act"];
  return el("div", { class: "panel", id: "keys-panel" },
    el("div", { class: "row" }, el("h3", { id: "h-keys" }, "API keys"), keys.length ? el("button", { type: "button", onclick: make }, "Make a key") : null),
    shownOnce(),
    keys.length ? table({ "aria-labelledby": "h-keys" }, heads, keys.map(row)) : el("p", { class: "muted" }, "No keys: anybody who reaches this address can do nearly everything. The first key comes from the configuration file."));
}

function shownOnce() {
  if (!fresh) return null;
  const secret = el("code", { id: "fresh-key" }, fresh.key);
  return el("div", { class: "note" }, el("p", {}, `The key of ${fresh.id}. It is not shown again.`), el("div", { class: "row" }, secret, copying(secret, "Copy the key")));
}

/** A key that was told is forgotten once its view is left. */
export function forgetFreshKey() {
  fresh = null;
  byId("fresh-key")?.closest(".note").remove();
}
