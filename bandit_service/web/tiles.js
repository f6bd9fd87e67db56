// The figures at the top: what goes through, what it is worth, what it saves.

import { byId, el, keyed, say } from "./dom.js";
import { count, NONE, number, percent, seconds, signed, usd } from "./format.js";
import { store } from "./store.js";

function figures(totals) {
  const { reward, saved } = totals;
  const regret = totals.regret;
  const part = totals.would_cost_usd > 0 ? 1 - totals.spent_usd / totals.would_cost_usd : null;
  return [
    {
      name: "Decisions", big: number(totals.per_s, totals.per_s < 10 ? 1 : 0), unit: "a second",
      more: `${count(totals.decisions)} in ten minutes`, known: totals.decisions > 0,
    },
    {
      name: "Mean reward, ten minutes", big: number(reward.mean), unit: "", known: reward.n > 0,
      more: `${reward.low === null ? "" : `95 %: ${number(reward.low)} to ${number(reward.high)}, `}n = ${count(reward.n)}`,
    },
    {
      name: "Regret a decision, estimated", big: signed(regret), unit: "", known: regret !== null && totals.rewarded > 0,
      tone: regret === null ? "" : regret <= 0.005 ? "good" : regret > 0.05 ? "warn" : "",
      more: regret !== null && regret <= 0 ? `better than any single arm, n = ${count(totals.rewarded)}` : `beside the best known single arm, n = ${count(totals.rewarded)}`,
    },
    {
      name: `Saved against ${totals.baseline || "no arm"}`, big: usd(saved.mean === null ? null : totals.would_cost_usd - totals.spent_usd),
      unit: part === null ? "" : percent(part), known: saved.n > 0, tone: part > 0 ? "good" : "bad",
      more: saved.mean === null ? "" : `estimated, ${usd(1000 * saved.mean)} in 1,000${saved.low === null ? "" : ` (${usd(1000 * saved.low)} to ${usd(1000 * saved.high)})`}, n = ${count(saved.n)}`,
    },
    {
      name: "Time to decide", big: seconds(totals.p50_s), unit: totals.p50_s === null ? "" : "median",
      more: totals.p99_s === null ? "" : `99 % within ${seconds(totals.p99_s)}, n = ${count(totals.timed)}`, known: totals.p50_s !== null,
    },
    {
      name: "Errors", big: percent(totals.failed / totals.answered, 1), unit: "", known: totals.answered >= 20,
      tone: totals.failed > 0.01 * totals.answered ? "bad" : "",
      more: `${totals.refused ? `${percent(totals.refused / totals.answered, 1)} refused for now, ` : ""}n = ${count(totals.answered)} answers`,
    },
  ];
}

function tile() {
  const [name, big, unit, more] = [el("h3"), el("span"), el("small"), el("p")];
  const line = el("p", { class: "big" }, big, " ", unit);
  return {
    node: el("div", { class: "tile" }, name, line, more),
    update(of) {
      say(name, of.name);
      say(big, of.known ? of.big : NONE);
      say(unit, of.known ? of.unit : "");
      say(more, of.known ? of.more : "");
      line.className = `big ${of.known ? of.tone ?? "" : "none"}`;
    },
  };
}

export function showTiles() {
  if (store.totals) keyed(byId("tiles"), figures(store.totals), (of) => of.name.split(" ")[0], tile);
}
