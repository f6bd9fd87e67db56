// The start card: what to send first, while nothing has come yet.

import { key } from "./api.js";
import { byId, copying, el } from "./dom.js";
import { store } from "./store.js";

function snippets(address) {
  const given = key() ? " -H \"Authorization: Bearer $BANDIT_KEY\"" : "";
  return [
    ["From a shell", `curl -s ${address}/v1/decide${given} -d '{"query": "Prove that the square root of two is irrational."}'`],
    ["From Python", [
      "from bandit_client import Client",
      "",
      `with Client("${address}"${key() ? ", os.environ[\"BANDIT_KEY\"]" : ""}) as client:`,
      "    decision = client.decide(\"Prove that the square root of two is irrational.\")",
      "    # call decision.arm, judge its answer",
      "    client.reward(decision, quality=1.0)",
    ].join("\n")],
    ["With OpenAI's client, where the arms have an upstream", [
      "from openai import OpenAI",
      "",
      `client = OpenAI(base_url="${address}/v1", api_key=${key() ? "os.environ[\"BANDIT_KEY\"]" : "\"unused\""})`,
      "client.chat.completions.create(",
      "    model=\"auto\", messages=[{\"role\": \"user\", \"content\": \"Why is the sky blue?\"}]",
      ")",
    ].join("\n")],
  ].map(([name, text]) => [name, text.includes("os.environ") ? `import os\n\n${text}` : text]);
}

function snippet([name, text]) {
  const code = el("code", {}, text);
  return el("div", { class: "snippet" },
    el("div", { class: "row" }, el("h4", {}, name), copying(code, "Copy", { "aria-label": `Copy: ${name}` })),
    el("pre", { tabindex: "0", role: "region", "aria-label": name }, code));
}

function card() {
  const address = location.href.split(/[?#]/)[0].replace(/\/$/, "");
  return [
    el("h3", { id: "h-start" }, "Nothing has come yet"),
    el("p", {}, "Send a first query, then a reward for its answer. This page shows both as they come."),
    snippets(address).map(snippet),
    el("p", {}, "Or stay here: ", el("a", { href: "#try" }, "try a query"), ", or ", el("a", { href: "#playground" }, "ask a model"),
      ". In a clone, ", el("code", {}, "make demo"), " shows a router learn from recorded traffic."),
  ];
}

/** Shown until the first decision or outcome, and never again on this page. */
export function showStart() {
  const panel = byId("start");
  if (!store.totals) return;
  const nothing = !store.feed.length && !store.totals.decisions && store.arms.every((arm) => !arm.quality.n);
  if (nothing && !panel.childElementCount) panel.append(...card().flat());
  panel.hidden = !nothing;
}
