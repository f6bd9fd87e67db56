// What was decided, earned and spent, by period and group, added up from the log.

import { ask } from "./api.js";
import { byId, el, say, svg, table } from "./dom.js";
import { count, NONE, number, usd } from "./format.js";

const TRIES = 5;
const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [1000, 240, 64, 24, 10];
const PER = [["hour", "hours"], ["day", "days"], ["week", "weeks"], ["month", "months"]];
const BY = [["arm", "model"], ["route", "route"], ["tenant", "tenant"], ["key", "API key"], ["tag", "tag"], ["policy", "policy"]];
const MEASURES = { spent_usd: ["Spend", usd], decisions: ["Decisions", count] };

function choice(id, label, options, chosen, onchange) {
  const select = el("select", { id, onchange }, options.map(([value, name]) => el("option", { value, selected: value === chosen }, name)));
  return el("div", { class: "field" }, el("label", { for: id }, label), select);
}

function build() {
  byId("history").replaceChildren(
    el("div", { class: "trio" },
      choice("history-per", "By", PER, "day", load),
      choice("history-by", "Told apart by", BY, "arm", load),
      choice("history-measure", "Shown", Object.entries(MEASURES).map(([value, [name]]) => [value, name]), "spent_usd", draw)),
    el("p", { id: "history-told", class: "result", role: "status" }),
    el("div", { id: "history-shown" }));
}

/** Groups with their sums over all periods, the largest first. */
function ranked(periods, measure) {
  const sums = new Map();
  for (const { groups } of periods) for (const [name, of] of Object.entries(groups)) sums.set(name, (sums.get(name) ?? 0) + of[measure]);
  return [...sums].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
}

const slot = (i) => (i < 10 ? `s${i}` : "");

function bars(periods, groups, measure) {
  const [title, format] = MEASURES[measure];
  const heights = periods.map(({ groups: of }) => Object.values(of).reduce((sum, one) => sum + one[measure], 0));
  const most = Math.max(...heights, 1e-12);
  const step = (WIDTH - LEFT) / periods.length;
  const y = (value) => (HEIGHT - BOTTOM - TOP) * (value / most);
  const stacks = periods.map(({ name, groups: of }, i) => {
    let at = HEIGHT - BOTTOM;
    return groups.map(([group], k) => {
      const height = y(of[group]?.[measure] ?? 0);
      at -= height;
      return height > 0 ? svg("rect", { class: `piece ${slot(k)}`, x: LEFT + i * step + step * 0.1, width: Math.min(step * 0.8, 60), y: at, height }, svg("title", {}, `${name}, ${group}: ${format(of[group][measure])}`)) : null;
    });
  });
  const mark = (value) => [svg("line", { class: "axis", x1: LEFT, x2: WIDTH, y1: HEIGHT - BOTTOM - y(value), y2: HEIGHT - BOTTOM - y(value) }),
    svg("text", { x: LEFT - 6, y: HEIGHT - BOTTOM - y(value) + 4, "text-anchor": "end" }, format(measure === "decisions" ? Math.round(value) : value))];
  return el("figure", {}, svg("svg", { class: "overtime", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title} of ${periods.length} periods; the table below has the figures` },
    mark(most), mark(most / 2), stacks,
    svg("text", { x: LEFT, y: HEIGHT - 6 }, periods[0].name),
    periods.length > 1 ? svg("text", { x: WIDTH, y: HEIGHT - 6, "text-anchor": "end" }, periods.at(-1).name) : null));
}

function row(first, of) {
  const cell = (label, text, n = null) => el("td", { role: "cell", "data-label": label }, text, n === null ? null : el("small", {}, `n = ${count(n)}`));
  return el("tr", { role: "row" }, el("td", { role: "rowheader", class: "wide" }, first), cell("Decisions", count(of.decisions)),
    cell("Mean reward", of.rewarded ? number(of.mean_reward) : NONE, of.rewarded || null),
    cell("Mean quality", of.rated ? number(of.mean_quality) : NONE, of.rated || null), cell("Spend", usd(of.spent_usd)));
}

/** The figures of one group over all periods. */
function together(periods, group) {
  const all = periods.map((one) => one.groups[group]).filter(Boolean);
  const sum = (name) => all.reduce((whole, of) => whole + of[name], 0);
  const mean = (name, n) => all.reduce((whole, of) => whole + (of[n] ? of[name] * of[n] : 0), 0) / Math.max(1, sum(n));
  return { decisions: sum("decisions"), rewarded: sum("rewarded"), rated: sum("rated"), spent_usd: sum("spent_usd"), mean_reward: mean("mean_reward", "rewarded"), mean_quality: mean("mean_quality", "rated") };
}

let told = null;

async function load() {
  const chosen = ["per", "by"].map((name) => byId(`history-${name}`));
  const [per, by] = chosen.map((select) => select.value);
  for (const select of chosen) select.disabled = true; // one log is added up at a time
  say(byId("history-told"), "Reading the log…");
  try {
    told = await added(`v1/history?per=${per}&by=${by}`);
    say(byId("history-told"), told.uncounted ? `${count(told.uncounted)} outcomes of decisions that are no longer known are not counted.` : "");
    draw();
  } catch (error) {
    say(byId("history-told"), error.message);
  } finally {
    for (const select of chosen) select.disabled = false;
  }
}

/** The answer, once nobody else is being answered. */
async function added(path) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await ask("GET", path);
    } catch (error) {
      if (error.status !== 429 || tries === TRIES) throw error;
      say(byId("history-told"), "Waiting for another page's history…");
      await new Promise((wake) => setTimeout(wake, 1000 * Math.max(1, error.retryAfter)));
    }
  }
}

function draw() {
  if (!told) return;
  const { periods, by } = told;
  byId("history-shown").replaceChildren(...(periods.length ? figures(periods, by, byId("history-measure").value) : [el("p", { class: "note" }, "No decisions in this time.")]));
}

function figures(periods, by, measure) {
  const groups = ranked(periods, measure);
  const heads = ["Decisions", "Mean reward", "Mean quality", "Spend"];
  const what = BY.find(([value]) => value === by)[1];
  const named = ([group], i) => el("span", { class: "name" }, el("i", { class: `dot ${slot(i)}`, "aria-hidden": "true" }), el("span", {}, group));
  return [
    bars(periods, groups, measure),
    el("h3", {}, `By ${what}`),
    table({ "aria-label": `By ${what}, all periods together` }, [what, ...heads], groups.map((one, i) => row(named(one, i), together(periods, one[0]))), { id: "history-groups" }),
    el("h3", {}, "By time, UTC"),
    table({ "aria-label": "By time" }, ["Period", ...heads], [...periods].reverse().map((one) => row(one.name, one.total)), { id: "history-periods" }),
  ];
}

/** Shown when the view is opened, and anew with another choice. */
export function showHistory() {
  if (!byId("history-per")) build();
  if (!byId("history-per").disabled) load();
}
