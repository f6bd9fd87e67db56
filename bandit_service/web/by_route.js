// What came of each route since the process started, where there are several.

import { byId, el, keyed, say, table } from "./dom.js";
import { count, number, seconds, usd } from "./format.js";
import { store } from "./store.js";

const HEADS = ["Route", "Decisions", "Mean reward", "Quality", "USD in 1,000 answers", "Latency"];

function bounded({ mean, low, high, n }) {
  return low === null ? `n = ${count(n)}` : `95 %: ${number(low)} to ${number(high)}, n = ${count(n)}`;
}

function row() {
  const name = el("span", { class: "name" });
  const [reward, bounds] = [el("span"), el("small", { class: "muted" })];
  const [decisions, , quality, cost, latency] = HEADS.slice(1).map((head) => el("td", { role: "cell", "data-label": head }));
  return {
    node: el("tr", { role: "row" },
      el("td", { role: "rowheader", class: "wide" }, name), decisions,
      el("td", { role: "cell", "data-label": HEADS[2] }, reward, " ", bounds), quality, cost, latency),
    update(of) {
      say(name, of.id);
      say(decisions, count(of.decisions));
      say(reward, number(of.reward.mean));
      say(bounds, of.reward.n ? bounded(of.reward) : "");
      say(quality, number(of.quality.mean));
      say(cost, usd(of.cost_usd.mean === null ? null : 1000 * of.cost_usd.mean));
      say(latency, seconds(of.latency_s.mean));
    },
  };
}

export function showByRoute() {
  const panel = byId("routes-panel");
  panel.hidden = store.routes.length < 2;
  if (panel.hidden) return;
  if (!byId("routes-rows")) byId("routes").append(table({ "aria-labelledby": "h-routes" }, HEADS, []));
  const rows = byId("routes").querySelector("tbody");
  rows.id = "routes-rows";
  keyed(rows, store.routes, (of) => of.id, row);
}
