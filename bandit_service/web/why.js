// Why one decision fell as it did: scores, chances, neighbours, what constraints took out.

import { el, table } from "./dom.js";
import { clock, count, expectedOf, moment, NONE, number, percent, seconds, signed, usd } from "./format.js";
import { dotOf, store } from "./store.js";
import { topicDot, topicName, topicOf } from "./topics.js";

const NEAR = 6;
const STEPS = {
  stopped: "all experiments are stopped", holdout: "held out", audience: "in the audience", override: "named by an override",
  namespace: "in the namespace's slots", share: "in the share", split: "split by weight", kept: "kept its variant",
  held: "its variant is held", "no arm": "the variant's arm could not serve",
};
export const REASONS = {
  drawn: "drawn among several arms", stayed: "its conversation's arm was drawn again", switched: "another arm than its conversation's was drawn",
  tool_loop: "a tool's result is on its way to its conversation's arm", signed_thinking: "drawn among the arms of the provider that signed the thinking",
  only_one: "no other arm was eligible", fixed: "an experiment names the arm", direct: "the request names the arm",
  fallback: "another arm failed or refused earlier in this request",
};

function named(arm) {
  return el("span", { class: "name" }, el("i", { class: dotOf(arm), "aria-hidden": "true" }), el("span", {}, arm));
}

function plain(label, columns, rows) {
  return table({ "aria-label": label }, columns, rows, { cards: false });
}

function block(title, ...children) {
  return el("div", { class: "block" }, el("h4", {}, title), children);
}

export function facts(pairs) {
  return el("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== "").map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

function bar(arm, share) {
  const fill = el("i");
  fill.style.width = `${100 * share}%`;
  return el("span", { class: `bar ${dotOf(arm).replace("dot", "").trim()}` }, fill);
}

/** One row for each arm that could be drawn: {id, propensity, score, value?, bonus?, cost?, expected?, cost_usd?}. */
export function weighedTable(arms, drawn) {
  const split = arms.some((arm) => arm.bonus !== undefined);
  const rich = arms.some((arm) => arm.expected && (arm.expected.value !== null || arm.expected.n !== null));
  const priced = arms.some((arm) => arm.cost_usd !== undefined);
  const columns = ["Arm", "Chance", "Score", ...(split ? ["= Value", "+ Bonus", "− Cost"] : []), ...(rich ? ["Expected quality, 95 %"] : []), ...(priced ? ["Expected cost"] : [])];
  const rows = [...arms].sort((a, b) => b.propensity - a.propensity).map((arm) => el("tr", {},
    el("td", {}, named(arm.id), arm.id === drawn ? el("span", { class: "badge" }, "drawn") : null, arm.untried || arm.expected?.untried ? el("span", { class: "badge" }, "untried") : null),
    el("td", {}, percent(arm.propensity, 1), bar(arm.id, arm.propensity)),
    el("td", {}, number(arm.score), !split && (arm.untried || arm.expected?.untried) ? el("small", {}, " by prior") : null),
    split ? [el("td", {}, number(arm.value), arm.expected.untried ? el("small", {}, " by prior") : null), el("td", {}, number(arm.bonus)), el("td", {}, number(arm.cost))] : null,
    rich ? el("td", {}, expectedOf(arm.expected)) : null,
    priced ? el("td", {}, usd(arm.cost_usd), arm.switch_usd > 0 ? el("small", {}, ` of it ${usd(arm.switch_usd)} for a switch`) : null) : null));
  return plain("Arms that could be drawn", columns, rows);
}

export function excludedBlock(excluded, weighed) {
  const known = new Set([...Object.keys(excluded), ...weighed]);
  const others = store.arms.filter((arm) => !known.has(arm.id)).map((arm) => arm.id);
  const rows = Object.entries(excluded).map(([arm, why]) => el("tr", {}, el("td", {}, named(arm)), el("td", {}, why)));
  return block("Arms excluded by constraints",
    rows.length ? plain("Arms excluded by a constraint", ["Arm", "Because"], rows) : el("p", { class: "muted" }, "No constraint excluded an arm."),
    others.length ? el("p", { class: "muted" }, `Neither weighed nor excluded: ${others.join(", ")}. The request did not allow them, or they were not offered then.`) : null);
}

function byArm(neighbours) {
  const found = new Map();
  for (const each of neighbours) {
    for (const one of each.outcomes ?? []) {
      const of = found.get(one.arm) ?? { n: 0, sum: 0 };
      of.n += 1;
      of.sum += one.reward;
      found.set(one.arm, of);
    }
  }
  return [...found].sort((a, b) => b[1].sum / b[1].n - a[1].sum / a[1].n);
}

export function neighboursBlock(neighbours) {
  if (!neighbours.length) return block("Nearest past queries", el("p", { class: "muted" }, "None: the history was empty, or they are not shown to this key."));
  const sums = byArm(neighbours).map(([arm, of]) => el("li", {}, el("i", { class: dotOf(arm) }), `${arm}: mean reward ${number(of.sum / of.n)}, n = ${of.n}`));
  const row = (each) => el("tr", {},
    el("td", {}, number(each.similarity, 3)),
    el("td", {}, (each.outcomes ?? []).length
      ? each.outcomes.map((one) => el("div", {}, el("i", { class: dotOf(one.arm) }), ` ${one.arm}: ${signed(one.reward, 2)}`))
      : el("span", { class: "muted" }, "no longer remembered")),
    el("td", { class: "id" }, String(each.id)));
  const columns = ["Similarity", "Outcomes as known now", "Number"];
  const label = "Nearest past queries with their outcomes";
  return block(`Nearest past queries, ${neighbours.length} recalled`,
    sums.length ? el("ul", { class: "legend" }, sums) : null,
    plain(label, columns, neighbours.slice(0, NEAR).map(row)),
    neighbours.length > NEAR ? el("details", {}, el("summary", {}, `${neighbours.length - NEAR} more`), plain(`${label}, the rest`, columns, neighbours.slice(NEAR).map(row))) : null);
}

function chanceOf(decision) {
  const best = Math.max(...Object.values(decision.propensities));
  return decision.propensity < best ? "explored: another arm was likelier" : "the likeliest arm";
}

function conversationOf(decision) {
  if (!decision.before) return null;
  const dearest = Math.max(0, ...Object.values(decision.switch_usd ?? {}));
  const said = decision.stayed ? `stayed with ${decision.before}` : `was with ${decision.before} before`;
  return dearest > 0 ? `${said}; a switch would cost up to ${usd(dearest)}` : said;
}

function effortOf({ effort, effort_asked: asked }) {
  if (!asked) return effort ? `the arm asks for ${effort}` : null;
  return asked === effort ? `${effort}, as the client asks` : `${effort || "as the model likes"}; the client asks for ${asked}`;
}

function path(decision) {
  const steps = (decision.steps ?? []).map((step) => STEPS[step] ?? step);
  return [...steps, decision.experiment ? `${decision.experiment}: ${decision.variant}` : "in no experiment"].join(" → ");
}

function topicBadge(topic) {
  const name = topicName(topic);
  return name && [" ", el("span", { class: "badge" }, topicDot(topic), ` ${name}`)];
}

/** What was asked and answered, of GET /v1/decisions/{id}/text, as far as it is kept. */
export function textBlock(text) {
  const said = (label, value) => [el("h5", {}, label), el("pre", { class: "said", tabindex: "0", "aria-label": label }, value)];
  const notes = [text.cut ? "cut" : "", text.redacted ? `${count(text.redacted)} places redacted` : "", `kept until ${moment(text.until)}`];
  return block("What was said",
    said("Question", text.question),
    text.answer === null ? null : said("Answer", text.answer),
    text.neighbours.length ? el("details", {}, el("summary", {}, `Questions of ${text.neighbours.length} nearest past queries`), el("ol", { class: "said" }, text.neighbours.map((each) => el("li", {}, each.question, topicBadge(each.topic))))) : null,
    el("p", { class: "muted" }, notes.filter(Boolean).join("; ")));
}

/** All of GET /v1/decisions/{id}, with `form` where the signals are; `weighed`: its arms in full, while they are known. */
export function decisionView(decision, form = null, weighed = null) {
  const { expected } = decision;
  const arms = weighed ?? Object.keys(decision.propensities).map((id) => ({
    id, propensity: decision.propensities[id], score: decision.scores?.[id], untried: decision.untried.includes(id),
  }));
  const signals = Object.entries(decision.signals);
  return [
    el("p", {}, named(decision.arm)),
    el("p", { class: "id" }, decision.decision_id),
    facts([
      ["Chance", `${percent(decision.propensity, 1)}, ${chanceOf(decision)}`],
      ["Why this arm", REASONS[decision.reason] ?? decision.reason ?? null],
      ["Reasoning", effortOf(decision)],
      ["Conversation", conversationOf(decision)],
      ["Deployment", decision.deployment ?? null],
      ["Route", decision.route ?? null],
      ["Topic", topicName(topicOf(decision.decision_id))],
      ["Decided by", decision.policy],
      ["Time", clock(decision.ts)],
      ["Expected quality", expectedOf({ ...expected, value: expected.quality })],
      ["Expected cost", usd(expected.cost_usd)],
      ["Expected latency", expected.latency_s === undefined ? NONE : seconds(expected.latency_s)],
      ["Willingness to pay", usd(decision.willingness_to_pay)],
      ["Prompt, estimated", decision.tokens ? `${decision.tokens} tokens` : null],
      ["Fallback", decision.fallback ?? null],
      ["Experiment", path(decision)],
      ["Tags", (decision.tags ?? []).join(", ")],
    ]),
    block("Arms that could be drawn", weighedTable(arms, decision.arm)),
    excludedBlock(decision.excluded ?? {}, arms.map((arm) => arm.id)),
    block("Signals so far",
      signals.length ? facts(signals.map(([name, value]) => [name, String(Number(value.toPrecision(4)))])) : el("p", { class: "muted" }, "None yet."),
      el("p", { class: "muted" }, decision.settled ? "Its reward is final and was learned." : "Its reward is not final yet."), form),
    neighboursBlock(decision.neighbours),
  ];
}
