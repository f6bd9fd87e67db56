// What can be changed while the service runs: the policy that decides, and the arms it chooses among.

import { ask } from "./api.js";
import { keysPanel, sectionsPanel } from "./configuration.js";
import { confirmed } from "./dialog.js";
import { byId, el, say, table } from "./dom.js";
import { count, usd, words } from "./format.js";
import { judgesPanel } from "./judges.js";

const TOLD = ["retired", "source", "observed", "health"]; // of an arm, beside its configuration
const AGAIN_MS = 1000;
let timer = 0;

// --- the policy

function policyPanel({ serving, policies, folding }) {
  const select = el("select", { id: "next-policy" }, policies.map((name) => el("option", { value: name, selected: name === serving.name }, name)));
  const parameters = el("textarea", { id: "next-parameters", rows: "2", spellcheck: "false", "aria-describedby": "next-parameters-hint" }, "{}");
  const told = el("p", { class: "result", role: "status" });
  const change = async (event) => {
    event.preventDefault();
    try {
      const body = { name: select.value, parameters: JSON.parse(parameters.value || "{}") };
      const text = "It is trained on the whole log first, while the present policy continues to decide. Then it decides, also after a restart.";
      if (await confirmed(`Let ${body.name} decide?`, text, [], () => ask("PUT", "v1/policy", body))) await showSettings();
    } catch (error) {
      say(told, error instanceof SyntaxError ? "Parameters: not a JSON object." : error.message);
    }
  };
  return el("div", { class: "panel", id: "policy-panel" },
    el("h3", {}, "Policy"),
    el("p", {}, el("strong", {}, serving.name), " decides", folding ? `; ${folding.name} is being trained: ${count(folding.events)} of ${count(folding.of)} events` : ""),
    el("p", { class: "id" }, serving.key),
    el("form", { onsubmit: change },
      el("div", { class: "pair" },
        el("div", { class: "field" }, el("label", { for: "next-policy" }, "Another policy"), select),
        el("div", { class: "field" }, el("label", { for: "next-parameters" }, "Parameters, JSON"), parameters, el("p", { class: "muted", id: "next-parameters-hint" }, "Missing parameters keep their defaults."))),
      el("button", { type: "submit", disabled: Boolean(folding) }, "Train and switch"), told));
}

// --- the arms

function armFields(arm) {
  const price = (name, label) => ({ name, label, type: "number", min: "0", step: "any", required: true, value: arm ? String(arm[name]) : "" });
  return [
    ...(arm ? [] : [{ name: "id", label: "Name", type: "text", required: true }]),
    price("usd_per_mtok_in", "USD for a million prompt tokens"),
    price("usd_per_mtok_out", "USD for a million answer tokens"),
    { name: "capabilities", label: "Capabilities, such as vision, tools", type: "text", value: (arm?.capabilities ?? []).join(", ") },
    { name: "upstream", label: "Upstream, where the service calls it", type: "text", value: arm?.upstream ?? "" },
    { name: "model", label: "Its name there, if it differs", type: "text", value: arm?.model ?? "" },
  ];
}

/** An arm's configuration alone. */
function configured(arm) {
  return Object.fromEntries(Object.entries(arm ?? {}).filter(([name]) => !TOLD.includes(name)));
}

/** The arm as it is to be: what the dialog does not show stays as it is. */
function wanted(arm, given) {
  return {
    ...configured(arm), upstream: given.upstream.trim(), model: given.model.trim(), capabilities: words(given.capabilities),
    usd_per_mtok_in: Number(given.usd_per_mtok_in), usd_per_mtok_out: Number(given.usd_per_mtok_out),
  };
}

const put = (id, arm) => ask("PUT", `v1/arms/${encodeURIComponent(id)}`, arm);

async function edit(arm) {
  const title = arm ? `Change ${arm.id}` : "Add an arm";
  const text = arm ? "New prices apply from the next decision. What was learned about the arm stays." : "It can be chosen from the next decision.";
  const send = (given) => put(arm ? arm.id : given.id.trim(), { ...wanted(arm, given), id: arm ? arm.id : given.id.trim() });
  if (await confirmed(title, text, armFields(arm), send)) await showSettings();
}

async function retire(arm) {
  const send = () => ask("DELETE", `v1/arms/${encodeURIComponent(arm.id)}`);
  if (await confirmed(`Retire ${arm.id}?`, "It is no longer chosen. What was learned about it stays, and you can offer it again.", [], send)) await showSettings();
}

async function back(arm) {
  if (await confirmed(`Offer ${arm.id} again?`, "It can be chosen from the next decision, with what was learned about it.", [], () => put(arm.id, configured(arm)))) await showSettings();
}

function armRow(arm) {
  const button = (label, act, tone = "quiet") => el("button", { type: "button", class: tone, "aria-label": `${label} ${arm.id}`, onclick: () => act(arm) }, label);
  return el("tr", { role: "row" },
    el("td", { role: "rowheader", class: "wide" }, el("span", { class: "name" }, el("span", {}, arm.id, " ", arm.retired ? el("span", { class: "badge" }, "retired") : null))),
    el("td", { role: "cell", "data-label": "Price" }, `${usd(arm.usd_per_mtok_in)} in, ${usd(arm.usd_per_mtok_out)} out`),
    el("td", { role: "cell", "data-label": "Upstream" }, arm.upstream || "none", arm.model ? el("small", {}, arm.model) : null),
    el("td", { role: "cell", "data-label": "Capabilities" }, (arm.capabilities ?? []).join(", ") || "none"),
    el("td", { role: "cell", "data-label": "Set by" }, arm.source === "config" ? "configuration" : "API"),
    el("td", { role: "cell", class: "wide" }, el("div", { class: "row" }, arm.retired ? button("Offer again", back) : [button("Change", edit), button("Retire", retire, "danger")])));
}

function armsPanel(arms) {
  const heads = ["Arm", "USD per million tokens", "Upstream", "Capabilities", "Set by", "Act"];
  return el("div", { class: "panel", id: "arms-panel" },
    el("div", { class: "row" }, el("h3", { id: "h-catalogue" }, "Arms"), el("button", { type: "button", onclick: () => edit(null) }, "Add an arm")),
    table({ "aria-labelledby": "h-catalogue" }, heads, arms.sort((a, b) => Boolean(a.retired) - Boolean(b.retired) || (a.id < b.id ? -1 : 1)).map(armRow)));
}

/** Ask for what there is and show it; again while a policy is being trained and the view is open. */
export async function showSettings() {
  clearTimeout(timer);
  const at = byId("settings");
  try {
    const [policies, { arms }] = await Promise.all([ask("GET", "v1/policies"), ask("GET", "v1/arms")]);
    const [sections, judges, keys] = await Promise.allSettled([ask("GET", "v1/configuration"), ask("GET", "v1/judges"), ask("GET", "v1/keys")]);
    const shown = (panel, answer, name) => (answer.status === "fulfilled" ? panel(answer.value, showSettings) : el("div", { class: "panel" }, el("h3", {}, name), el("p", { class: "note" }, answer.reason.message)));
    at.replaceChildren(policyPanel(policies), armsPanel(arms), shown(sectionsPanel, sections, "Configuration"), shown(judgesPanel, judges, "Judges and people"), shown(keysPanel, keys, "API keys"));
    if (policies.folding) timer = setTimeout(again, AGAIN_MS);
  } catch (error) {
    at.replaceChildren(el("p", { class: "note" }, error.message));
  }
}

/** Only the policy's panel: what somebody writes in another one stays. */
async function again() {
  if (byId("view-settings").hidden) return;
  const policies = await ask("GET", "v1/policies").catch(() => null);
  if (policies) byId("policy-panel").replaceWith(policyPanel(policies));
  if (!policies || policies.folding) timer = setTimeout(again, AGAIN_MS);
}
