// What is spent of each budget, those nearest to their end first.

import { byId, el, keyed, say } from "./dom.js";
import { percent, usd } from "./format.js";
import { store } from "./store.js";

function left(seconds) {
  const hours = seconds / 3600;
  if (hours < 1) return `${Math.max(1, Math.round(seconds / 60))} min`;
  return hours < 48 ? `${Math.round(hours)} h` : `${Math.round(hours / 24)} days`;
}

function row() {
  const [name, fill, share, more] = [el("h4"), el("i"), el("span"), el("small")];
  return {
    node: el("li", {}, name, el("span", { class: "bar" }, fill), share, more),
    update(of) {
      const used = (of.spent_usd + of.held_usd) / of.usd;
      say(name, `${of.account.replace(":", " ")}, each ${of.per}`);
      fill.style.width = `${100 * Math.min(1, used)}%`;
      fill.className = used >= 0.9 ? "bad" : "";
      say(share, `${percent(used)} of ${usd(of.usd)}`);
      const dearer = of.shadow_price > 0 ? `; a dollar counts as ${(1 + of.shadow_price).toFixed(1)}` : "";
      say(more, `${of.held_usd > 0 ? `${usd(of.held_usd)} held by requests in flight; ` : ""}ends in ${left(of.ends_in_s)}${dearer}`);
    },
  };
}

export function showBudgets() {
  byId("budgets-panel").hidden = store.budgets.length === 0;
  keyed(byId("budgets"), store.budgets, (of) => `${of.account} ${of.per} ${of.usd}`, row);
}
