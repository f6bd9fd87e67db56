// Values with their confidence sequences over time, for the variants of one experiment.

import { ticksOf } from "./canvas.js";
import { byId, el, svg } from "./dom.js";
import { clock, number, signed } from "./format.js";

const [HEIGHT, LEFT, RIGHT, BOTTOM, TOP] = [190, 50, 10, 20, 8];
let made = 0;

/** Where the lines lie, and the newest intervals; what was wide at the beginning is cut. */
function rangeOf(series, zero) {
  const values = series.flatMap(({ points }) => [...points.slice(Math.floor(points.length / 10)).map((point) => point.mean), points.at(-1).low, points.at(-1).high]);
  if (zero) values.push(0);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = Math.max(0.01, (high - low) * 0.15);
  return [low - room, high + room];
}

/** series: [{key, points: [{ts, mean, low, high}]}], in the order of their colours. */
export function overTime(given, title, slotOf, zero) {
  const series = given.map((one, i) => ({ ...one, slot: slotOf(i) })).filter((one) => one.points.length > 1);
  if (!series.length) return el("p", { class: "muted" }, `${title}: not enough data.`);
  const room = byId("experiments").clientWidth || 700;
  const width = Math.max(280, room > 900 ? room / 2 - 40 : room - 40);
  const times = series.flatMap(({ points }) => points.map((point) => point.ts));
  const [first, last] = [Math.min(...times), Math.max(...times)];
  const [low, high] = rangeOf(series, zero);
  const x = (ts) => LEFT + ((width - LEFT - RIGHT) * (ts - first)) / Math.max(1e-9, last - first);
  const y = (value) => HEIGHT - BOTTOM - ((HEIGHT - BOTTOM - TOP) * (value - low)) / (high - low);
  const format = zero ? (value) => signed(value, high - low < 0.1 ? 3 : 2) : (value) => number(value, high - low < 0.1 ? 3 : 2);
  const axis = ticksOf(low, high, 4).map((tick) => [
    svg("line", { class: zero && Math.abs(tick) < 1e-12 ? "zero" : "axis", x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick) }),
    svg("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, format(tick)),
  ]);
  const clip = `clip-${(made += 1)}`;
  const lines = series.map(({ points, slot }) => svg("g", { class: slot, "clip-path": `url(#${clip})` },
    svg("polygon", { class: "band", points: [...points.map((at) => `${x(at.ts)},${y(at.high)}`), ...[...points].reverse().map((at) => `${x(at.ts)},${y(at.low)}`)].join(" ") }),
    svg("polyline", { class: "mean", points: points.map((at) => `${x(at.ts)},${y(at.mean)}`).join(" ") })));
  const said = series.map(({ key, points }) => `${key} ${format(points.at(-1).mean)}`).join(", ");
  return el("figure", {},
    el("figcaption", { class: "muted" }, title),
    svg("svg", { class: "overtime", viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": `${title}; newest: ${said}` },
      svg("defs", {}, svg("clipPath", { id: clip }, svg("rect", { x: LEFT, y: TOP, width: width - LEFT - RIGHT, height: HEIGHT - TOP - BOTTOM }))),
      axis, lines,
      svg("text", { x: LEFT, y: HEIGHT - 5 }, clock(first, last - first < 600)),
      svg("text", { x: width - RIGHT, y: HEIGHT - 5, "text-anchor": "end" }, clock(last, last - first < 600))));
}
