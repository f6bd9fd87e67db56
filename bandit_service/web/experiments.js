// Experiments: what may be concluded now, with the numbers behind it.

import { ask } from "./api.js";
import { confirmed } from "./dialog.js";
import { byId, el, table } from "./dom.js";
import { clock, count, NONE, number, percent, signed, usd } from "./format.js";
import { overTime } from "./overtime.js";
import { whisker } from "./arms.js";

const DIFFERENCE = "Difference to the control";

function slot(i) {
  return `s${i % 10}`;
}

function differenceScale(variants) {
  const values = variants.flatMap((one) => [one.difference?.low, one.difference?.high, one.difference?.mean]).filter((v) => v !== undefined && v !== null);
  const reach = Math.max(1e-6, ...values.map(Math.abs));
  return [-reach, reach];
}

function measure(of, format = number) {
  if (!of || of.mean === undefined || of.mean === null) return [NONE];
  const range = of.low === null || of.low === undefined ? NONE : `${format(of.low)} to ${format(of.high)}`;
  return [format(of.mean), el("small", {}, `${range}, n = ${count(of.units)}`)];
}

function variantRow(one, i, result, reach) {
  const gap = one.difference;
  const mark = whisker("low", "high", 0);
  mark.update(gap ?? { mean: null }, ...reach);
  const shown = gap && gap.mean !== undefined;
  const costs = result.cost.saved[one.key];
  return el("tr", { role: "row", class: slot(i) },
    el("td", { role: "rowheader", class: "wide" }, el("span", { class: "name" }, el("i", { class: "dot", "aria-hidden": "true" }), el("span", {}, one.key), one.control ? el("span", { class: "badge" }, "control") : null, one.held ? el("span", { class: "badge bad" }, "held") : null), el("small", {}, one.decides)),
    el("td", { role: "cell", "data-label": "Weight" }, percent(one.weight), el("small", {}, `${count(one.units)} units, ${count(one.decisions)} decisions`)),
    el("td", { role: "cell", "data-label": result.primary }, measure(one.metrics[result.primary])),
    el("td", { role: "cell", "data-label": DIFFERENCE }, one.control ? "—" : shown ? signed(gap.mean) : NONE, one.control ? null : mark.node, shown && gap.low !== null ? el("small", {}, `${signed(gap.low)} to ${signed(gap.high)}, n = ${count(gap.units)}`) : null),
    el("td", { role: "cell", "data-label": "Saved" }, costs?.state === "shown" ? usd(costs.usd_per_decision) : NONE, costs?.state === "shown" ? el("small", {}, `${usd(costs.low)} to ${usd(costs.high)} a decision`) : null));
}

function variantsTable(result) {
  const reach = differenceScale(result.variants);
  const caption = `Intervals hold at every look at once (alpha ${result.alpha}). Saved beside ${result.cost.against}.`;
  return table({ "aria-label": `Variants of ${result.id}` }, ["Variant", "Weight", result.primary, DIFFERENCE, "Saved"],
    result.variants.map((one, i) => variantRow(one, i, result, reach)), { caption });
}

function splitLine(result) {
  const { state, sequential_p: p } = result.split;
  const [tone, word] = { wrong: ["bad", "split is wrong"], "as configured": ["good", "split as configured"] }[state] ?? ["", `split: ${NONE}`];
  return el("p", { class: "muted" }, el("span", { class: `badge ${tone}` }, word),
    p === null ? "" : ` sequential p of a sample-ratio mismatch ${number(p, 4)}`, result.ramp.steps ? `; ramp at step ${result.ramp.step} of ${result.ramp.steps}` : "",
    result.mixed_units ? `; ${count(result.mixed_units)} units saw more than one variant` : "");
}

function guardrails(result) {
  return result.guardrails.map((one) => el("span", { class: `badge ${one.state === "broken" ? "bad" : one.state === "kept" ? "good" : ""}` }, `${one.metric}, ${one.variant}: ${one.state}`));
}

const MOVES = {
  start: ["Start", "Units are assigned from now on."],
  pause: ["Pause", "No unit is assigned until it starts again."],
  stop: ["Stop", "It ends for good. The winner follows from the results."],
};

function buttons(result) {
  const possible = { draft: ["start"], paused: ["start", "stop"], running: ["pause", "stop"] }[result.status] ?? [];
  const made = possible.map((move) => el("button", { type: "button", class: move === "stop" ? "danger" : "quiet", onclick: () => act(result.id, move, ...MOVES[move]) }, MOVES[move][0]));
  if (result.status === "running" || result.status === "paused") made.push(el("button", { type: "button", class: "quiet", onclick: () => ramp(result) }, "Ramp"));
  return made;
}

async function act(id, move, name, what) {
  const answer = await confirmed(`${name} ${id}?`, what, [{ name: "why", label: "Reason", type: "text", required: true }],
    (given) => ask("POST", `v1/experiments/${encodeURIComponent(id)}/${move}`, { why: given.why }));
  if (answer) await showExperiments();
}

async function ramp(result) {
  const answer = await confirmed(`Ramp ${result.id}`, "Share of the units that take part, from 0 to 1.",
    [{ name: "share", label: "Share", type: "number", value: String(result.share), min: "0", max: "1", step: "any", required: true }, { name: "why", label: "Reason", type: "text", required: true }],
    (given) => ask("PATCH", `v1/experiments/${encodeURIComponent(result.id)}`, { share: Number(given.share), why: given.why }));
  if (answer) await showExperiments();
}

async function create() {
  const text = "Half of the units that take part get the policy that serves, half the other one. Create other kinds of experiments with the API.";
  const fields = [
    { name: "id", label: "Name", type: "text", required: true, pattern: "[A-Za-z0-9_\\-]+" },
    { name: "policy", label: "The other policy", type: "text", required: true, value: "metallm" },
    { name: "route", label: "Route (empty: the default one)", type: "text" },
    { name: "share", label: "Share of the units that take part", type: "number", min: "0", max: "1", step: "any", value: "0.1", required: true },
    { name: "why", label: "Reason", type: "text", required: true },
  ];
  const variants = (policy) => [{ key: "control", weight: 0.5 }, { key: "treatment", weight: 0.5, policy }];
  const answer = await confirmed("New experiment", text, fields, (given) => ask("PUT", `v1/experiments/${encodeURIComponent(given.id)}`,
    { route: given.route.trim(), share: Number(given.share), variants: variants(given.policy.trim()), why: given.why }));
  if (answer) await showExperiments();
}

function lines(result) {
  const gaps = result.variants.map((one) => ({ key: one.key, points: one.over_time.filter((point) => point.difference).map((point) => ({ ts: point.ts, ...point.difference })) }));
  return el("div", { class: "times" },
    overTime(result.variants.map((one) => ({ key: one.key, points: one.over_time })), `Mean ${result.primary} with its confidence sequence`, slot, false),
    overTime(gaps, "Difference to the control; the dashed line is none", slot, true));
}

function panel(result) {
  const points = result.variants.filter((one) => one.over_time.length > 1);
  return el("article", { class: "panel experiment", "aria-label": result.id },
    el("header", {}, el("h3", {}, result.id), el("span", { class: `badge ${result.status === "running" ? "good" : ""}` }, result.status),
      el("span", { class: "muted" }, `${percent(result.share)} of units by ${result.unit}${result.route ? ` of the route ${result.route}` : ""}`, result.winner ? `; winner ${result.winner}` : ""), buttons(result)),
    el("p", { class: "conclusion" }, result.conclusion),
    (result.caveats ?? []).length ? el("ul", { class: "caveats muted" }, result.caveats.map((text) => el("li", {}, text))) : null,
    splitLine(result), guardrails(result), variantsTable(result),
    points.length ? lines(result) : el("p", { class: "muted" }, "Not enough data for a plot over time."),
    el("details", {}, el("summary", {}, "Changes"), el("ul", {}, result.changes.map((one) => el("li", {}, `${clock(one.ts)} ${one.status}, by ${one.by}${one.why ? `: ${one.why}` : ""}`)))));
}

export async function showExperiments() {
  const at = byId("experiments");
  try {
    const { experiments } = await ask("GET", "v1/experiments");
    const results = await Promise.all(experiments.map((one) => ask("GET", `v1/experiments/${encodeURIComponent(one.id)}/results`)));
    const order = { running: 0, starting: 1, paused: 2, draft: 3 };
    results.sort((a, b) => (order[a.status] ?? 9) - (order[b.status] ?? 9));
    at.replaceChildren(
      el("div", { class: "row field" }, el("button", { type: "button", onclick: create }, "New experiment")),
      ...(results.length ? results.map(panel) : [el("p", { class: "note" }, "No experiments yet. The first compares the policy that serves with another one.")]));
  } catch (error) {
    at.replaceChildren(el("p", { class: "note" }, error.message));
  }
}
