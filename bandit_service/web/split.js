// Who gets the traffic: the share of decisions by arm, stacked, over a window that moves.

import { Chart, css } from "./canvas.js";
import { el, keyed, say } from "./dom.js";
import { percent } from "./format.js";
import { colourOf, dotOf, slotOf, store } from "./store.js";

const WINDOW = { fine: 20, coarse: 120 };
const EVERY = { fine: 3, coarse: 30 };

/** Points in time, and at each the decisions of every layer in the window before it. */
function layers(range) {
  const ring = store[range];
  const arms = store.arms.filter((arm) => slotOf(arm.id) !== undefined);
  const order = new Map(arms.map((arm, i) => [arm.id, i]));
  const last = (Math.floor(store.now / ring.step) - 1) * ring.step;
  const seen = [...ring.rows.values()].filter((row) => row[1].length);
  if (!seen.length) return null;
  const first = Math.max(seen[0][0], last - ring.step * ring.most);
  const rest = arms.length;
  const times = [], counts = [], totals = [];
  const sums = new Array(rest + 1).fill(0);
  const change = (ts, by) => {
    const row = ring.rows.get(ts);
    if (!row) return;
    for (let i = 0; i < row[1].length; i += 2) sums[order.get(store.numbers[row[1][i]]) ?? rest] += by * row[1][i + 1];
  };
  for (let ts = first; ts <= last; ts += ring.step) {
    change(ts, 1);
    change(ts - WINDOW[range], -1 * (ts - WINDOW[range] >= first));
    if ((last - ts) % EVERY[range]) continue;
    times.push(ts);
    counts.push(sums.slice());
    totals.push(sums.reduce((a, b) => a + b, 0));
  }
  return { arms, times, counts, totals };
}

export class Split extends Chart {
  constructor(parent) {
    super(parent, "Share of decisions by arm over time", (i) => this.lines(i));
    this.legend = el("ul", { class: "legend" });
    parent.append(this.legend);
    this.range = "fine";
  }

  lines(i) {
    const { arms, counts, totals } = this.shown;
    const named = arms.map((arm, k) => [dotOf(arm.id), arm.id, counts[i][k]]);
    if (store.arms.length > arms.length) named.push(["dot", "others", counts[i][arms.length]]);
    return [
      ...named.filter((line) => line[2]).sort((a, b) => b[2] - a[2]).map(([dot, name, n]) => [dot, name, percent(n / totals[i])]),
      ["", "decisions in the window", String(totals[i])],
    ];
  }

  draw() {
    this.shown = layers(this.range);
    this.empty(!this.shown || this.shown.times.length < 2);
    const { arms, times, counts, totals } = this.shown ?? { arms: [], times: [], counts: [], totals: [] };
    const pen = this.begin(times, 0, 1, (tick) => `${100 * tick} %`, [0, 0.25, 0.5, 0.75, 1]);
    if (!pen || times.length < 2) return;
    const below = times.map(() => 0);
    for (let k = 0; k <= arms.length; k++) {
      pen.fillStyle = k < arms.length ? colourOf(slotOf(arms[k].id)) : css("--rest");
      for (const [from, to] of runs(totals)) {
        pen.beginPath();
        for (let i = from; i <= to; i++) pen.lineTo(this.x(times[i]), this.y(below[i]));
        for (let i = to; i >= from; i--) {
          below[i] += counts[i][k] / totals[i];
          pen.lineTo(this.x(times[i]), this.y(below[i]));
        }
        pen.fill();
      }
    }
    this.end(pen);
    this.name(arms, counts.at(-1), totals.at(-1));
  }

  name(arms, counts, total) {
    const rows = arms.map((arm, k) => ({ id: arm.id, dot: dotOf(arm.id), n: counts[k], total }));
    if (store.arms.length > arms.length) rows.push({ id: `${store.arms.length - arms.length} others`, dot: "dot", n: counts[arms.length], total });
    keyed(this.legend, rows, (row) => row.id, (row) => {
      const share = el("b");
      const node = el("li", {}, el("i", { class: row.dot }), el("span", {}, row.id), share);
      return { node, update: (now) => say(share, now.total ? percent(now.n / now.total) : "") };
    });
    const said = rows.filter((row) => row.n && total).map((row) => `${row.id} ${percent(row.n / total)}`);
    this.canvas.setAttribute("aria-label", `${this.label}. Now: ${said.join(", ") || "no decisions"}. Arrow keys read other times.`);
  }
}

/** The stretches in which there were decisions. */
function runs(totals) {
  const found = [];
  let from = null;
  totals.forEach((total, i) => {
    if (total && from === null) from = i;
    if (!total && from !== null) { found.push([from, i - 1]); from = null; }
  });
  if (from !== null) found.push([from, totals.length - 1]);
  return found;
}
