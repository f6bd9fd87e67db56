// The table of arms: what each gets, what it is worth, and why.

import { byId, el, keyed, say, svg, table } from "./dom.js";
import { count, NONE, number, percent, seconds, usd } from "./format.js";
import { dotOf, store } from "./store.js";

const FEW = 20;
const drawn = { scale: [0, 1] };
const COLUMNS = ["Arm", "Traffic, last minute", "Reward", "Quality", "Cost", "Latency", "Elo", "Why it gets its share"];

/** A mean with its interval on a scale that is the same for every row. */
export function whisker(low, high, zero = null) {
  const band = svg("line", { y1: 7, y2: 7 });
  const dot = svg("circle", { cy: 7, r: 4 });
  const mark = svg("line", { class: "zero", y1: 0, y2: 14 });
  const node = svg("svg", { class: "whisker", viewBox: "0 0 120 14", "aria-hidden": "true" }, zero === null ? null : mark, band, dot);
  return {
    node,
    update(of, from, to) {
      const x = (value) => Math.max(0, Math.min(120, 4 + (112 * (value - from)) / Math.max(1e-9, to - from)));
      if (zero !== null) { mark.setAttribute("x1", x(zero)); mark.setAttribute("x2", x(zero)); }
      dot.setAttribute("cx", x(of.mean ?? from));
      dot.setAttribute("visibility", of.mean === null || of.mean === undefined ? "hidden" : "visible");
      const whole = of[low] !== null && of[low] !== undefined && of[high] !== null;
      band.setAttribute("visibility", whole ? "visible" : "hidden");
      if (whole) { band.setAttribute("x1", x(of[low])); band.setAttribute("x2", x(of[high])); }
    },
  };
}

function scale(arms, name) {
  const values = arms.flatMap((arm) => [arm[name].low ?? arm[name].mean, arm[name].high ?? arm[name].mean]).filter((v) => v !== null);
  return values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
}

function cell(label, extra = "", ...children) {
  return el("td", { role: "cell", "data-label": label, class: extra }, children);
}

function measured(label) {
  const [text, range, n] = [el("span"), el("small"), el("small")];
  return {
    node: cell(label, "", text, range, n),
    update(of, format) {
      say(text, of.n ? format(of.mean) : NONE);
      say(range, of.n && of.low !== null ? `${format(of.low)} to ${format(of.high)}` : "");
      say(n, of.n ? `n = ${count(of.n)}` : "");
    },
  };
}

function traffic() {
  const [text, fill, n] = [el("span"), el("i"), el("small")];
  const node = cell("Traffic, last minute", "", text, el("span", { class: "bar" }, fill), n);
  return {
    node,
    update(arm) {
      say(text, arm.retired ? "retired" : arm.share === null ? "no traffic" : percent(arm.share, arm.share < 0.1 ? 1 : 0));
      fill.style.width = `${100 * (arm.share ?? 0)}%`;
      const before = arm.share_before;
      const moved = before !== null && arm.share !== null && arm.share_n >= FEW && arm.share_before_n >= FEW ? arm.share - before : null;
      const arrow = moved === null || Math.abs(moved) < 0.02 ? "" : moved > 0 ? "▲ up from " : "▼ down from ";
      say(n, `${arrow ? `${arrow}${percent(before)}, ` : ""}n = ${count(arm.decisions)}`);
      n.className = arrow ? (moved > 0 ? "good" : "warn") : "";
    },
  };
}

const STATES = { closed: "answers", "half open": "probing", open: "masked" };

function health(arm) {
  if (arm.retired) return ["retired", ""];
  if (arm.upstream === "open") return ["masked", "bad"];
  if (arm.upstream === "half open") return ["probing", "warn"];
  if (arm.kind && arm.kind !== "chat") return [arm.kind, ""];
  return ["", ""];
}

function deployments(arm) {
  return (arm.deployments ?? []).map(({ id, state }) => `${id} ${STATES[state]}`).join(", ");
}

function row(arm) {
  const dot = el("i", { "aria-hidden": "true" });
  const badge = el("span", { class: "badge" });
  const places = el("small", { class: "muted" });
  const share = traffic();
  const reward = measured("Reward");
  const mark = whisker("low", "high");
  reward.node.firstChild.after(mark.node);
  const [quality, cost, latency] = [measured("Quality"), measured("Cost"), measured("Latency")];
  const [elo, games, why] = [el("span"), el("small"), cell("Why", "why wide")];
  const node = el("tr", { role: "row" },
    el("td", { role: "rowheader", class: "wide" }, el("span", { class: "name" }, dot, el("span", {}, arm.id, " ", badge, places))),
    share.node, reward.node, quality.node, cost.node, latency.node, cell("Elo", "", elo, games), why);
  return {
    node,
    update(now) {
      dot.className = dotOf(now.id);
      node.className = dotOf(now.id).replace("dot", "").trim();
      const [word, tone] = health(now);
      say(badge, word);
      badge.hidden = !word;
      badge.className = `badge ${tone}`;
      say(places, deployments(now));
      share.update(now);
      reward.update(now.reward, number);
      mark.update(now.reward, ...drawn.scale);
      quality.update(now.quality, (value) => number(value, 2));
      cost.update(now.cost_usd, usd);
      latency.update(now.latency_s, seconds);
      say(elo, now.compared ? number(now.elo, 0) : NONE);
      say(games, now.compared ? `n = ${count(now.compared)}` : "");
      say(why, now.why);
    },
  };
}

let body = null;

export function showArms() {
  if (!store.arms.length) {
    byId("arms").replaceChildren(el("p", { class: "muted" }, "No arms yet. Add one with PUT /v1/arms/{id}."));
    body = null;
    return;
  }
  if (!body) {
    byId("arms").replaceChildren(table({ "aria-labelledby": "h-arms" }, COLUMNS, []));
    body = byId("arms").querySelector("tbody");
  }
  drawn.scale = scale(store.arms, "reward");
  const order = [...store.arms].sort((a, b) => a.retired - b.retired || b.decisions - a.decisions || (a.id < b.id ? -1 : 1));
  keyed(body, order, (arm) => arm.id, row);
}
