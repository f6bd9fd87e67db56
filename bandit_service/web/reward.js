// Mean reward beside what the best single arm would have won; what lies between them is regret.

import { Chart, css, ticksOf } from "./canvas.js";
import { el } from "./dom.js";
import { NONE, number, signed } from "./format.js";
import { store } from "./store.js";

/** Where nearly all values lie: a few of the very beginning may be anywhere. */
function inner(values) {
  if (!values.length) return [0, 1];
  const sorted = [...values].sort((a, b) => a - b);
  return [sorted[Math.floor(0.04 * (sorted.length - 1))], sorted[Math.ceil(0.96 * (sorted.length - 1))]];
}

export class Reward extends Chart {
  constructor(parent) {
    super(parent, "Mean reward and the best single arm's estimate over time", (i) => this.lines(i));
    parent.append(el("ul", { class: "legend" },
      el("li", {}, el("i", { class: "dot line s-mean" }), "mean reward"),
      el("li", {}, el("i", { class: "dot line s-best" }), "best single arm, estimated"),
      el("li", {}, el("i", { class: "dot s-loss" }), "regret"),
      el("li", {}, el("i", { class: "dot s-gain" }), "routing wins more than any single arm"),
    ));
    this.range = "fine";
  }

  lines(i) {
    const { mean, best, raw } = this.points[i];
    return [
      ["dot line s-mean", "mean reward", number(mean)],
      ["dot line s-best", "best single arm", number(best)],
      [best > mean ? "dot s-loss" : "dot s-gain", "regret", best === null ? NONE : signed(best - mean)],
      ["", "rewards in the step", raw ? String(raw) : "none"],
    ];
  }

  draw() {
    const rows = [...store[this.range].rows.values()].sort((a, b) => a[0] - b[0]);
    this.points = rows.filter((row) => row[4] !== null)
      .map(([ts, , raw, , mean, best]) => ({ ts, raw, mean, best }));
    const points = this.points;
    this.empty(points.length < 2);
    const values = points.flatMap((point) => [point.mean, point.best]).filter((value) => value !== null);
    const [least, most] = inner(values);
    const middle = (least + most) / 2;
    const reach = Math.max(0.02, (most - least) * 0.7);
    const [low, high] = [middle - reach, middle + reach];
    const pen = this.begin(points.map((point) => point.ts), low, high, (tick) => number(tick, 2 * reach < 0.1 ? 3 : 2), ticksOf(low, high));
    if (!pen || points.length < 2) return;
    this.clipped(pen, () => {
      this.between(pen);
      this.line(pen, (point) => point.best, "--muted", [5, 4], 1.75);
      this.line(pen, (point) => point.mean, "--accent", [], 2.25);
    });
    this.end(pen);
    const { mean, best } = points.at(-1);
    this.canvas.setAttribute("aria-label", `${this.label}. Now: mean reward ${number(mean)}, best single arm ${number(best)}, regret ${best === null ? NONE : signed(best - mean)}. Arrow keys read other times.`);
  }

  /** What lies between the lines, each stretch from one crossing to the next in one piece. */
  between(pen) {
    let stretch = [];
    const fill = () => {
      const apart = stretch.reduce((sum, at) => sum + at.best - at.mean, 0);
      pen.fillStyle = css(apart > 0 ? "--loss" : "--gain");
      pen.beginPath();
      for (const at of stretch) pen.lineTo(this.x(at.ts), this.y(at.mean));
      for (const at of stretch.reverse()) pen.lineTo(this.x(at.ts), this.y(at.best));
      pen.fill();
    };
    const known = this.points.filter((point) => point.best !== null);
    if (!known.length) return;
    known.forEach((b, i) => {
      const a = known[i - 1];
      if (a && (a.best - a.mean) * (b.best - b.mean) < 0) {
        const part = (a.best - a.mean) / (a.best - a.mean - (b.best - b.mean));
        const value = a.mean + part * (b.mean - a.mean);
        const crossing = { ts: a.ts + part * (b.ts - a.ts), mean: value, best: value };
        stretch.push(crossing);
        fill();
        stretch = [crossing];
      }
      stretch.push(b);
    });
    fill();
  }

  line(pen, of, colour, dash, width) {
    pen.strokeStyle = css(colour);
    pen.setLineDash(dash);
    pen.lineWidth = width;
    pen.lineJoin = "round";
    pen.beginPath();
    for (const point of this.points.filter((each) => of(each) !== null)) pen.lineTo(this.x(point.ts), this.y(of(point)));
    pen.stroke();
    pen.setLineDash([]);
  }
}
