// Ask a model and watch its answer come, or two beside each other, and say which was better.

import { ask, failure, headers } from "./api.js";
import { byId, el, say } from "./dom.js";
import { seconds, usd } from "./format.js";
import { rewardForm } from "./reward_form.js";
import { events } from "./sse.js";
import { facts, REASONS } from "./why.js";

const NOBODY = "";
let made = 0;
let stopping = null;

/** What a client can send as `model` for a chat: what chooses first, then the arms. */
async function names() {
  const { data } = await ask("GET", "v1/models");
  const chat = data.filter((model) => model.kind === "chat");
  return { routed: chat.filter((model) => model.route).map((model) => model.id), arms: chat.filter((model) => !model.route).map((model) => model.id) };
}

function choice(id, label, { routed, arms }, none) {
  const option = (name) => el("option", { value: name }, name);
  const select = el("select", { id },
    none ? el("option", { value: NOBODY }, none) : null,
    el("optgroup", { label: "The service chooses" }, routed.map(option)),
    el("optgroup", { label: "Always this one" }, arms.map(option)));
  return [select, el("div", { class: "field" }, el("label", { for: id }, label), select)];
}

async function build() {
  const found = await names();
  const form = byId("question");
  if (!found.arms.length) {
    form.replaceChildren(el("p", {}, "No arm has an upstream, so no model can answer here. Give the arms an ", el("code", {}, "upstream"), " in the configuration; “Try” decides without one."));
    return;
  }
  const text = el("textarea", { id: "message", rows: "4", required: true, placeholder: "Why is the sky blue?" });
  const [first, firstField] = choice("model-first", "Answered by", found, "");
  const [second, secondField] = choice("model-second", "And beside it", found, "nobody");
  const told = el("p", { class: "result", role: "status" });
  const stop = el("button", { type: "button", class: "quiet", disabled: true, onclick: () => stopping?.abort() }, "Stop");
  const send = el("button", { type: "submit" }, "Ask");
  const submit = async (event) => {
    event.preventDefault();
    if (!text.value.trim()) { say(told, "Write a message first."); text.focus(); return; }
    const models = [first.value, second.value].filter((name) => name !== NOBODY);
    send.disabled = true;
    stop.disabled = false;
    say(told, "The answer is coming…");
    stopping = new AbortController();
    const ended = await answers(text.value, models, stopping.signal);
    send.disabled = false;
    stop.disabled = true;
    say(told, ended);
  };
  form.replaceChildren(el("form", { onsubmit: submit },
    el("div", { class: "field" }, el("label", { for: "message" }, "Message"), text,
      el("p", { class: "muted" }, "It is sent to the models' providers and costs what they bill. The service stores no text.")),
    el("div", { class: "pair" }, firstField, secondField),
    el("div", { class: "row" }, send, stop),
    told));
}

/** Ask all of them at once; what to say when the last has ended. */
async function answers(message, models, signal) {
  const cards = models.map((model) => card(model));
  const vote = el("div", { class: "panel vote", hidden: true });
  byId("answers").replaceChildren(el("div", { class: models.length > 1 ? "beside" : "" }, cards.map((each) => each.node)), vote);
  const ended = await Promise.all(cards.map((each) => each.stream(message, signal)));
  const whole = ended.filter((each) => each.whole);
  if (whole.length === 2) { vote.hidden = false; vote.replaceChildren(...voting(whole)); }
  if (signal.aborted) return "Stopped.";
  return whole.length === ended.length ? "Done." : "An answer is incomplete.";
}

/** One answer: `stream()` fills it, and tells whether it came whole, by which arm and decision. */
function card(model) {
  const title = el("h3", {}, model);
  const text = el("div", { class: "said", role: "region", "aria-label": `The answer of ${model}`, tabindex: "0" });
  const told = el("p", { class: "muted", role: "status" }, "asked");
  const about = el("div");
  const failed = (message) => { say(told, message); told.className = "bad"; return { whole: false }; };
  return {
    node: el("article", { class: "panel" }, title, text, told, about),
    async stream(message, signal) {
      const begun = performance.now();
      let first = null;
      try {
        const response = await called(model, message, signal);
        const [id, arm] = ["x-decision-id", "x-arm"].map((name) => response.headers.get(name) ?? "");
        say(title, arm && arm !== model ? `${model} → ${arm}` : model);
        say(told, "answering…");
        let whole = false;
        for await (const { data } of events(response.body)) {
          if (data === "[DONE]") { whole = true; continue; }
          const said = JSON.parse(data);
          if (said.error) return failed(said.error.message);
          const words = said.choices?.[0]?.delta?.content ?? "";
          if (words && first === null) first = (performance.now() - begun) / 1000;
          text.append(words);
        }
        if (!whole) return failed("The answer broke off.");
        say(told, "");
        about.replaceChildren(...await outcome(id, arm, response.headers, first));
        return { whole: true, id, arm };
      } catch (error) {
        return failed(signal.aborted ? "Stopped." : error.message);
      }
    },
  };
}

async function called(model, message, signal) {
  // each question is one of its own, so no earlier one keeps its model
  const response = await fetch("v1/chat/completions", {
    method: "POST", signal, cache: "no-store",
    headers: headers({ "Content-Type": "application/json", "x-keep-model": "off" }),
    body: JSON.stringify({ model, messages: [{ role: "user", content: message }], stream: true }),
  });
  if (!response.ok) throw await failure(response);
  return response;
}

/** What is known of a whole answer, and a form to reward it. */
async function outcome(id, arm, told, first) {
  const record = await ask("GET", `v1/decisions/${id}`).catch(() => ({ signals: {} }));
  const { cost_usd: cost, latency_s: latency } = record.signals;
  return [
    facts([
      ["First word after", first === null ? null : seconds(first)],
      ["Whole after", latency === undefined ? null : seconds(latency)],
      ["Cost", cost === undefined ? "not known" : usd(cost)],
      ["Why this model", REASONS[told.get("x-bandit-reason")] ?? told.get("x-bandit-reason")],
    ]),
    el("p", {}, el("a", { href: `#decisions=${id}` }, "The decision, with all scores")),
    rewardForm(id, arm, async () => {}),
  ];
}

/** Which of two was better: one comparison, of the first decision, until the person says otherwise. */
function voting([first, second]) {
  const id = `vote-${(made += 1)}`;
  if (first.arm === second.arm) return [el("p", {}, `${first.arm} gave both answers, so there is nothing to compare.`)];
  const told = el("p", { class: "result", role: "status" });
  const buttons = [];
  let correction = false;
  const send = async (button, winner, loser, tie) => {
    for (const each of buttons) each.disabled = true;
    try {
      const answer = await ask("POST", "v1/comparisons", { decision_id: first.id, winner, loser, tie, correction });
      const result = answer.results[0];
      const error = result.status === "error";
      say(told, error ? result.error.message : correction ? "Your vote was changed." : "Your vote was learned.");
      if (!error) { correction = true; for (const each of buttons) each.setAttribute("aria-pressed", String(each === button)); }
    } catch (error) {
      say(told, error.message);
    } finally {
      for (const each of buttons) each.disabled = false;
    }
  };
  const way = (label, winner, loser, tie) => {
    const button = el("button", { type: "button", class: "quiet", "aria-pressed": "false", onclick: () => send(button, winner, loser, tie) }, label);
    buttons.push(button);
  };
  way(`${first.arm} was better`, first.arm, second.arm, false);
  way(`${second.arm} was better`, second.arm, first.arm, false);
  way("Equally good", first.arm, second.arm, true);
  return [el("h3", { id }, "Which answer was better?"), el("div", { class: "row", role: "group", "aria-labelledby": id }, buttons), told];
}

let built = null;
export function openPlayground() {
  if (built) return;
  built = build().catch((error) => {
    built = null;
    byId("question").replaceChildren(el("p", { class: "note" }, error.message));
  });
}
