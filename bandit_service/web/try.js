// Try a query: decide or only explain it, reward it by a click, and see what that changed.

import { ask } from "./api.js";
import { byId, el, say } from "./dom.js";
import { rewardForm } from "./reward_form.js";
import { routePicker } from "./routes.js";
import { decisionView, excludedBlock, neighboursBlock, weighedTable } from "./why.js";

function field(label, control, hint = "") {
  return el("div", { class: "field" }, el("label", { for: control.id }, label), control, hint ? el("p", { class: "muted", id: `${control.id}-hint` }, hint) : null);
}

function build() {
  const text = el("textarea", { id: "query", rows: "5", required: true, placeholder: "Prove that the square root of two is irrational." });
  const cost = el("input", { id: "max-cost", type: "number", min: "0", step: "any", inputmode: "decimal" });
  const requires = el("input", { id: "requires", type: "text", autocomplete: "off", "aria-describedby": "requires-hint" });
  let route = "";
  const by = routePicker("try-route", "Route", "the default one", (chosen) => { route = chosen === "auto" ? "" : chosen; });
  const told = el("p", { class: "result", role: "status" });
  const asked = () => {
    const body = { query: text.value };
    if (cost.value !== "") body.max_cost_usd = Number(cost.value);
    const names = requires.value.split(",").map((name) => name.trim()).filter(Boolean);
    if (names.length) body.requires = names;
    if (route) body.route = route;
    return body;
  };
  const run = async (what) => {
    if (!text.value.trim()) { say(told, "Write a query first."); text.focus(); return; }
    say(told, "Asking…");
    try {
      await what(asked());
      say(told, "");
    } catch (error) {
      say(told, error.message);
    }
  };
  byId("ask").append(el("form", { onsubmit(event) { event.preventDefault(); run(decide); } },
    field("Query", text, "It is embedded and decided on. Its text is not stored."),
    by,
    el("div", { class: "pair" }, field("At most, USD", cost), field("Capabilities it needs", requires, "such as vision, tools")),
    el("div", { class: "row" },
      el("button", { type: "submit" }, "Decide"),
      el("button", { type: "button", class: "quiet", onclick: () => run(explain) }, "Only explain")),
    told));
  byId("answer").append(el("p", { class: "muted" }, "“Decide” draws an arm and writes the decision down, as for any client. “Only explain” writes nothing."));
}

async function decide(asked) {
  const made = await ask("POST", "v1/decide", { ...asked, explain: true });
  const whole = () => ask("GET", `v1/decisions/${made.decision_id}`);
  const view = el("div", {}, decisionView(await whole(), null, made.arms));
  const form = rewardForm(made.decision_id, made.arm, async () => view.replaceChildren(...decisionView(await whole(), null, made.arms)));
  byId("answer").replaceChildren(el("h3", {}, "Decided"), form, view);
}

async function explain(asked) {
  const told = await ask("POST", "v1/explain", asked);
  byId("answer").replaceChildren(
    el("h3", {}, "What would be decided"),
    el("p", { class: "muted" }, `by ${told.policy}; nothing was written${told.fallback ? `; fallback: ${told.fallback}` : ""}`),
    el("div", { class: "block" }, weighedTable(told.arms, "")),
    excludedBlock(told.left_out, told.arms.map((arm) => arm.id)),
    neighboursBlock(told.neighbours));
}

let built = false;
export function openTry() {
  if (!built) build();
  built = true;
}
