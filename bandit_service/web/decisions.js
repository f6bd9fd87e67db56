// The newest decisions, and everything that is known of one of them.

import { ask } from "./api.js";
import { byId, el, keyed, say } from "./dom.js";
import { clock, percent, signed } from "./format.js";
import { rewardForm } from "./reward_form.js";
import { routePicker } from "./routes.js";
import { dotOf, store } from "./store.js";
import { followTopics, topicDot, topicName, topicOf, topicPicker } from "./topics.js";
import { decisionView, textBlock } from "./why.js";

let list = null;
let open = "";
let fixed = false;
let held = [];
let route = "";
let topic = "";
let topics = null;

function item(decision) {
  const dot = el("i", { "aria-hidden": "true" });
  const about = el("span", { class: "badge", hidden: true });
  let shown;
  const chance = el("span", { class: "chance" });
  const reward = el("span");
  const link = el("a", { href: `#decisions=${decision.id}` },
    el("time", {}, clock(decision.ts)), el("span", { class: "arm" }, dot, el("span", {}, decision.arm), notes(decision), about), chance, reward);
  return {
    node: el("li", {}, link),
    update(now) {
      dot.className = dotOf(now.arm);
      const name = topicName(topicOf(now.id));
      about.hidden = name === null;
      if (name !== shown) about.replaceChildren(...(name === null ? [] : [topicDot(topicOf(now.id)), ` ${name}`]));
      shown = name;
      say(chance, percent(now.propensity));
      say(reward, now.reward === null ? (now.signals ? "no quality yet" : "no reward yet") : signed(now.reward, 2));
      reward.className = now.reward === null ? "muted" : "";
      if (now.id === open) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    },
  };
}

function notes(decision) {
  const words = [];
  if (decision.explored) words.push("explored");
  if (decision.fallback) words.push("fallback");
  if (decision.excluded) words.push(`${decision.excluded} excluded`);
  if (decision.route) words.push(`route ${decision.route}`);
  if (decision.experiment) words.push(`${decision.experiment}: ${decision.variant}`);
  return words.map((word) => el("span", { class: "badge" }, word));
}

function build() {
  list = el("ul", { class: "feed" });
  const find = el("input", { type: "text", id: "find", placeholder: "its id", autocomplete: "off", spellcheck: "false" });
  const hold = el("button", { type: "button", class: "quiet", "aria-pressed": "false", onclick() {
    fixed = !fixed;
    hold.setAttribute("aria-pressed", String(fixed));
    say(hold, fixed ? "Go on" : "Hold");
    if (fixed) held = store.feed;
    showFeed();
  } }, "Hold");
  topics = topicPicker("feed-topic", "Of the topic", (chosen) => { topic = chosen; showFeed(); });
  byId("feed").append(
    el("form", { class: "row", onsubmit(event) { event.preventDefault(); if (find.value.trim()) location.hash = `decisions=${encodeURIComponent(find.value.trim())}`; } },
      el("label", { for: "find" }, "Look up a decision"), find, el("button", { type: "submit", class: "quiet" }, "Look up"), hold),
    routePicker("feed-route", "Of the route", "all", (chosen) => { route = chosen; showFeed(); }),
    topics.field,
    list, el("p", { class: "muted none" }, "No decision to show. Make one in the view “Try”."));
  byId("why").append(el("p", { class: "muted" }, "Select a decision to see how it was made."));
}

export function showFeed() {
  if (!list) build();
  followTopics(showFeed);
  topics.update();
  const shown = (fixed ? held : store.feed).filter((one) => (route === "" || (one.route || "auto") === route) && (topic === "" || String(topicOf(one.id)) === topic));
  keyed(list, shown, (decision) => decision.id, item);
  list.nextSibling.hidden = shown.length > 0;
}

export async function openDecision(id) {
  if (!list) build();
  if (id === open) return;
  open = id;
  showFeed();
  if (id) await load(id);
}

async function showText(id, at) {
  try {
    at.replaceChildren(textBlock(await ask("GET", `v1/decisions/${encodeURIComponent(id)}/text`)));
  } catch (error) {
    at.replaceChildren(el("p", { class: "note" }, error.message));
  }
}

async function load(id, form = null) {
  const panel = byId("why");
  try {
    const decision = await ask("GET", `v1/decisions/${encodeURIComponent(id)}`);
    if (id !== open) return;
    form ??= rewardForm(id, decision.arm, () => load(id, form));
    const text = el("div");
    panel.replaceChildren(el("h3", { tabindex: "-1" }, "Why this decision?"), ...decisionView(decision, form), text);
    if (decision.text) await showText(id, text);
  } catch (error) {
    if (id !== open) return;
    open = null; // so that it is asked for again, as with a key
    panel.replaceChildren(el("h3", {}, "Why this decision?"), el("p", { class: "note" }, error.message));
  }
}
