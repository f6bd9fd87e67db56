// Topics of the questions that are kept: which decision is of which, and what each arm earns in them.

import { ask } from "./api.js";
import { el, say, table } from "./dom.js";
import { count, NONE, number, usd } from "./format.js";
import { dotOf, store } from "./store.js";

const EVERY_S = 30;
let known = { topics: [], decisions: [] };
let of = new Map();
let asked = -Infinity;
let failed = "";

/** Ask for them where there may be newer ones, and call `then` once they are there. */
export async function followTopics(then) {
  if (!store.topics || store.now - asked < EVERY_S) return;
  asked = store.now;
  try {
    known = await ask("GET", "v1/topics");
    failed = "";
  } catch (error) {
    known = { topics: [], decisions: [] };
    failed = error.message;
  }
  of = new Map(known.decisions.map((each) => [each.decision_id, each.topic]));
  then();
}

/** The number of a decision's topic, which is also its colour; undefined without one. */
export function topicOf(id) {
  return of.get(id);
}

export function topicsThere() {
  return known.topics;
}

/** What a topic is called; null without one. */
export function topicName(topic) {
  const found = known.topics[topic];
  return found ? found.words.join(", ") || `topic ${topic + 1}, no words of many` : null;
}

export function topicDot(topic) {
  return el("i", { class: topic === undefined ? "dot" : `dot s${topic}`, "aria-hidden": "true" });
}

/** A choice among the topics, which is there only where there are some. */
export function topicPicker(id, label, chosen) {
  const select = el("select", { id, onchange: () => chosen(select.value) });
  const field = el("div", { class: "field", hidden: true }, el("label", { for: id }, label), select);
  let shown = null;
  return {
    field,
    update() {
      const names = known.topics.map((each) => topicName(each.topic));
      field.hidden = !names.length;
      if (shown === names.join("\n")) return;
      shown = names.join("\n");
      const before = select.value;
      select.replaceChildren(el("option", { value: "" }, "all"), ...names.map((name, i) => el("option", { value: String(i) }, name)));
      select.value = before && Number(before) < names.length ? before : "";
      if (select.value !== before) chosen(select.value);
    },
  };
}

function topicBlock(topic) {
  const units = topic.units ? ` of ${count(topic.units)} ${topic.units === 1 ? "unit" : "units"}` : "";
  const rows = topic.arms.map((arm) => el("tr", {},
    el("td", {}, el("span", { class: "name" }, el("i", { class: dotOf(arm.arm), "aria-hidden": "true" }), el("span", {}, arm.arm))),
    el("td", {}, count(arm.decisions)),
    el("td", {}, arm.reward === null ? NONE : number(arm.reward), el("small", {}, ` n = ${count(arm.rewarded)}`)),
    el("td", {}, arm.cost_usd === null ? NONE : usd(arm.cost_usd), el("small", {}, ` n = ${count(arm.billed)}`))));
  const name = topicName(topic.topic);
  return el("div", { class: "block" },
    el("h4", {}, topicDot(topic.topic), ` ${name}`),
    el("p", { class: "muted" }, `${count(topic.questions)} questions${units}`),
    rows.length ? table({ "aria-label": `Arms asked about ${name}` }, ["Arm", "Decisions", "Mean reward", "Mean cost"], rows, { cards: false }) : null);
}

/** What every arm earns and costs by topic. */
export class TopicsPanel {
  constructor(parent) {
    this.told = el("p", { class: "muted" });
    this.rows = el("div", { class: "beside" });
    this.panel = el("div", { class: "block", hidden: true }, el("h3", { id: "h-topics" }, "Topics"), this.told, this.rows);
    parent.append(this.panel);
  }

  draw() {
    this.panel.hidden = !store.topics;
    if (this.drawn === known && this.failed === failed) return;
    this.drawn = known;
    this.failed = failed;
    const few = known.questions < known.needed;
    say(this.told, failed || (known.questions === undefined ? "" : few
      ? `Not enough questions yet: ${count(known.questions)} of ${known.needed}`
      : `Made of the newest ${count(known.questions)} questions that are kept. A word is shown if at least ${known.people} units used it. Rewards and costs are of the newest 5,000 decisions that may still be rewarded.`));
    this.rows.replaceChildren(...known.topics.map(topicBlock));
  }
}
