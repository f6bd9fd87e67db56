// The page: what came last is shown in the view that is open, once in a frame of the screen.

import { key, onKeyNeeded, setKey } from "./api.js";
import { showArms } from "./arms.js";
import { openDecision, showFeed } from "./decisions.js";
import { showBudgets } from "./budgets.js";
import { showByRoute } from "./by_route.js";
import { showChanges } from "./changes.js";
import { forgetFreshKey } from "./configuration.js";
import { confirmed } from "./dialog.js";
import { byId, say } from "./dom.js";
import { showExperiments } from "./experiments.js";
import { showHistory } from "./history.js";
import { Follower } from "./live.js";
import { redrawMap, showMap } from "./map.js";
import { openPlayground } from "./playground.js";
import { showPools } from "./pools.js";
import { showReplicas } from "./replicas.js";
import { Reward } from "./reward.js";
import { showSettings } from "./settings.js";
import { Split } from "./split.js";
import { showStart } from "./start.js";
import { hear, store } from "./store.js";
import { showTiles } from "./tiles.js";
import { openTry } from "./try.js";

const VIEWS = ["live", "decisions", "try", "playground", "experiments", "map", "history", "settings"];
const WORDS = { good: "Healthy", idle: "Quiet", warn: "Look here", bad: "Not healthy" };
const charts = [new Split(byId("split")), new Reward(byId("reward"))];
let view = "live";
let drawing = false;

function showState() {
  if (!store.state) return;
  byId("state").dataset.is = store.state.is;
  say(byId("state-word"), WORDS[store.state.is]);
  say(byId("state-says"), store.state.says.join(" "));
  say(byId("policy"), `${store.policy} decides`);
}

const SHOW = {
  live() { showStart(); showTiles(); showArms(); showReplicas(); showBudgets(); showByRoute(); showChanges(); for (const chart of charts) chart.draw(); },
  decisions: showFeed,
  try: openTry,
  playground: openPlayground,
  experiments() {},
  map: showMap,
  history() {},
  settings() {},
};

function show() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    showState();
    SHOW[view]();
  });
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch { // a link that was cut off
    return text;
  }
}

function go() {
  const [name, id = ""] = location.hash.slice(1).split("=");
  view = VIEWS.includes(name) ? name : "live";
  for (const each of VIEWS) byId(`view-${each}`).hidden = each !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = view === "live" ? "bandit-service" : `${byId(`h-${view}`).textContent} · bandit-service`;
  if (view === "decisions") openDecision(decoded(id));
  if (view === "experiments") showExperiments();
  if (view === "history") showHistory();
  if (view === "settings") showSettings();
  else forgetFreshKey();
  show();
}

const follower = new Follower(
  (kind, body) => { hear(kind, body); show(); },
  (word, why = "") => {
    say(byId("connection"), { live: "live", waiting: "reconnecting", paused: "paused", refused: "no access" }[word]);
    if (word === "refused") {
      byId("state").dataset.is = "warn";
      say(byId("state-word"), "No access");
      say(byId("state-says"), why);
    }
  },
);

async function askKey(why = "") {
  if (byId("dialog").open) return;
  const fields = [{ name: "key", label: "API key", type: "password" }];
  const text = `${why ? `${why}. ` : ""}A key with the scope read. It stays in this tab until it is closed; nothing given forgets it.`;
  if (await confirmed("API key", text, fields, (given) => setKey(given.key.trim()) ?? true)) {
    await showPools();
    follower.restart();
    go();
  }
}

function theme(chosen) {
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  if (chosen) document.documentElement.dataset.theme = chosen;
  say(byId("theme"), dark ? "Light" : "Dark");
  byId("theme").setAttribute("aria-label", dark ? "Light colours" : "Dark colours");
  redrawMap();
  show();
}

function ranged(range) {
  for (const each of ["fine", "coarse"]) byId(`range-${each}`).setAttribute("aria-pressed", String(each === range));
  for (const chart of charts) { chart.range = range; chart.cursor(null); }
  show();
}

byId("theme").addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).colorScheme.startsWith("dark");
  localStorage.setItem("theme", dark ? "light" : "dark");
  theme(dark ? "light" : "dark");
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme(localStorage.getItem("theme")));
byId("range-fine").addEventListener("click", () => ranged("fine"));
byId("range-coarse").addEventListener("click", () => ranged("coarse"));
byId("key").addEventListener("click", () => askKey());
byId("key").setAttribute("aria-label", key() ? "Change the API key" : "Give an API key");
onKeyNeeded(askKey);
addEventListener("hashchange", go);
theme(localStorage.getItem("theme"));
await showPools();
go();
follower.start();
