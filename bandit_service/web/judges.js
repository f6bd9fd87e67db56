// How far each judge agrees with the people who graded the same answers.

import { el, table } from "./dom.js";
import { count, number, signed } from "./format.js";

const MEANING = {
  off: "its scores are not compared",
  report: "its scores are not corrected",
  apply: "its scores are corrected by the curve",
};

function uses(judge) {
  if (judge.calibration !== "apply" || judge.applied) return MEANING[judge.calibration];
  return `its scores are corrected from ${count(judge.min_pairs)} pairs on`;
}

function row(name, agreed) {
  return el("tr", { role: "row" },
    el("td", { role: "rowheader", class: "wide" }, el("span", { class: "name" }, name)),
    el("td", { role: "cell", "data-label": "Pairs" }, count(agreed.pairs)),
    el("td", { role: "cell", "data-label": "Apart" }, number(agreed.mean_absolute_difference)),
    el("td", { role: "cell", "data-label": "Judge less people" }, signed(agreed.mean_difference)),
    el("td", { role: "cell", "data-label": "Correlation" }, number(agreed.correlation)));
}

function curve(judge) {
  const heads = ["Judge's score", "Pairs", "People's mean", "Calibrated"];
  const line = (at) => el("tr", { role: "row" },
    el("td", { role: "rowheader" }, number(at.score)),
    el("td", { role: "cell", "data-label": heads[1] }, count(at.pairs)),
    el("td", { role: "cell", "data-label": heads[2] }, number(at.grade)),
    el("td", { role: "cell", "data-label": heads[3] }, number(at.calibrated)));
  return el("details", {}, el("summary", {}, "Curve"), table({ "aria-label": `Curve of ${judge.id}` }, heads, judge.overall.curve.map(line)));
}

function one(judge) {
  const routes = Object.entries(judge.routes);
  const rows = [row("all routes", judge.overall), ...(routes.length > 1 ? routes.map(([name, agreed]) => row(name, agreed)) : [])];
  return el("section", { "aria-label": `Judge ${judge.id}` },
    el("h4", {}, judge.id),
    el("p", { class: "muted" }, `Of kind ${judge.kind}; ${uses(judge)}.`),
    table({ "aria-label": `Agreement of ${judge.id}` }, ["Route", "Pairs", "Apart", "Judge less people", "Correlation"], rows),
    judge.overall.curve.length ? curve(judge) : null);
}

/** Nothing without a judge. */
export function judgesPanel({ judges }) {
  if (!judges.length) return el("span");
  return el("div", { class: "panel", id: "judges-panel" },
    el("h3", {}, "Judges and people"),
    el("p", { class: "muted" }, "A pair is an answer that the judge scored and a person graded, both from 0 to 1."),
    judges.map(one));
}
