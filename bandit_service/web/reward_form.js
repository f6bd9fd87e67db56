// Send what an answer was worth, by a thumb or a slider, and show what that moved.

import { ask } from "./api.js";
import { el, say, svg } from "./dom.js";
import { expectedOf, number, percent } from "./format.js";
import { moved } from "./moved.js";
import { facts } from "./why.js";

let made = 0;

function thumb(way) {
  return svg("svg", { class: `thumb ${way}`, viewBox: "0 0 16 16", "aria-hidden": "true" },
    svg("path", { d: "M1.5 7h2.8v7.5H1.5zM5.6 7l2.9-5.6c1.4 0 2.1 1 1.8 2.2L9.6 6.2h4c.9 0 1.5.8 1.3 1.6l-1.2 5.4c-.2.8-.8 1.3-1.6 1.3H5.6z" }));
}

/**
 * Controls for one decision, and what a reward moved: the same query is weighed before and after.
 * `then()` after a reward was taken.
 */
export function rewardForm(decisionId, arm, then) {
  const id = `quality-${(made += 1)}`;
  const told = el("p", { class: "result", role: "status" });
  const shown = el("output", { for: id }, "0.50");
  const slider = el("input", { type: "range", id, min: "0", max: "1", step: "0.05", value: "0.5", oninput: () => say(shown, Number(slider.value).toFixed(2)) });
  const change = el("div", { class: "change", role: "status" });
  const weighed = () => ask("POST", "v1/explain", { decision_id: decisionId }).catch((error) => ({ failed: error.message }));
  const buttons = [];
  const send = async (quality) => {
    for (const each of buttons) each.disabled = true;
    say(told, "Sending…");
    try {
      const before = await weighed();
      const answer = await ask("POST", "v1/rewards", { decision_id: decisionId, quality });
      const result = answer.results[0];
      say(told, result.status === "error" ? result.error.message : result.status === "duplicate" ? "It was already sent, and counts once." : `Quality ${quality} was learned.`);
      if (result.status === "error") return;
      if (result.status !== "duplicate") change.replaceChildren(...changed(arm, quality, before, await weighed()));
      await then();
    } catch (error) {
      say(told, error.message);
    } finally {
      for (const each of buttons) each.disabled = false;
    }
  };
  buttons.push(
    el("button", { type: "button", class: "quiet", onclick: () => send(1) }, thumb("up"), " Good"),
    el("button", { type: "button", class: "quiet", onclick: () => send(0) }, thumb("down"), " Bad"),
    el("button", { type: "button", onclick: () => send(Number(slider.value)) }, "Send"),
  );
  return el("div", { class: "block reward" },
    el("h4", {}, "What was the answer worth?"),
    el("div", { class: "row" }, buttons[0], buttons[1]),
    el("div", { class: "row" }, el("label", { for: id }, "Quality"), slider, shown, buttons[2]),
    told, change);
}

/** Before → after of the arm's chance and of the parts of its score, and why in one sentence. */
function changed(arm, quality, before, after) {
  const failed = before.failed ?? after.failed;
  if (failed) return [el("p", { class: "note" }, `Cannot show what the same query would get now: ${failed}`)];
  const found = moved(arm, quality, before, after);
  if (!found) return [el("p", { class: "note" }, `${arm} cannot be drawn for this query any more.`)];
  const { was, is } = found;
  const step = (name, format) => [name, was[name.toLowerCase()] === undefined ? null : `${format(was[name.toLowerCase()])} → ${format(is[name.toLowerCase()])}`];
  return [
    el("p", { class: `note${found.against ? " against" : ""}` }, "The same query again. ", found.text),
    facts([
      ["Chance", `${percent(was.propensity, 1)} → ${percent(is.propensity, 1)}`],
      step("Value", number), step("Bonus", number), step("Cost", number), step("Score", number),
      ["Expected quality", is.expected.value === null && !is.expected.untried ? null : `${expectedOf(was.expected)} → ${expectedOf(is.expected)}`],
    ]),
  ];
}
