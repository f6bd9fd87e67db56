// The start card: what to send first, while nothing has come yet.

import { ask, key } from "./api.js";
import { byId, copying, el, say } from "./dom.js";
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
    demo(),
  ];
}

/** Recorded traffic through this very service, where it is empty and for this machine alone. */
function demo() {
  const at = el("div");
  const told = el("p", { class: "muted", role: "status" });
  const begin = async () => {
    try {
      await ask("POST", "v1/demo");
      say(told, "It runs for some twenty seconds.");
    } catch (error) {
      say(told, error.message);
    }
  };
  ask("GET", "v1/demo").then(({ available, why }) => {
    at.append(...(available
      ? [el("p", {}, "Or let recorded traffic through this service, and watch it learn. Its policy then knows what the recording taught it: to start over, stop the service and delete its data directory."),
        el("div", { class: "row" }, el("button", { type: "button", onclick: begin }, "Run the demo here"), told)]
      : [el("p", { class: "muted" }, `The demo does not run here: ${why}.`)]));
  }).catch(() => {}); // the card says enough without it
  return at;
}

/** Shown until the first decision or outcome, and never again on this page. */
export function showStart() {
  const panel = byId("start");
  if (!store.totals) return;
  const nothing = !store.feed.length && !store.totals.decisions && store.arms.every((arm) => !arm.quality.n);
  if (nothing && !panel.childElementCount) panel.append(...card().flat());
  panel.hidden = !nothing;
}
