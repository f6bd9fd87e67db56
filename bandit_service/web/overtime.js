// Means with their confidence sequences over time, for the variants of one experiment.

import { el, svg } from "./dom.js";
import { clock, number } from "./format.js";
import { ticksOf } from "./canvas.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [640, 190, 44, 20, 8];

export function overTime(variants, metric, slotOf) {
  const points = variants.flatMap((one) => one.over_time);
  const times = points.map((point) => point.ts);
  const lows = points.map((point) => Math.max(point.low, point.mean - 0.5)), highs = points.map((point) => Math.min(point.high, point.mean + 0.5));
  const [first, last] = [Math.min(...times), Math.max(...times)];
  const [low, high] = [Math.min(...lows), Math.max(...highs)];
  const x = (ts) => LEFT + ((WIDTH - LEFT - 8) * (ts - first)) / Math.max(1e-9, last - first);
  const y = (value) => HEIGHT - BOTTOM - ((HEIGHT - BOTTOM - TOP) * (Math.max(low, Math.min(high, value)) - low)) / Math.max(1e-9, high - low);
  const axis = ticksOf(low, Math.max(high, low + 1e-6), 4).map((tick) => [
    svg("line", { class: tick === 0 ? "zero" : "axis", x1: LEFT, x2: WIDTH - 8, y1: y(tick), y2: y(tick) }),
    svg("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, number(tick, 2)),
  ]);
  const lines = variants.map((one, i) => {
    const kept = one.over_time;
    if (kept.length < 2) return null;
    const there = kept.map((point) => `${x(point.ts)},${y(point.high)}`);
    const back = [...kept].reverse().map((point) => `${x(point.ts)},${y(point.low)}`);
    return svg("g", { class: slotOf(i) },
      svg("polygon", { class: "band", points: [...there, ...back].join(" ") }),
      svg("polyline", { class: "mean", points: kept.map((point) => `${x(point.ts)},${y(point.mean)}`).join(" ") }));
  });
  const said = variants.filter((one) => one.over_time.length).map((one) => `${one.key} ${number(one.over_time.at(-1).mean)}`).join(", ");
  return el("figure", {},
    svg("svg", { class: "overtime", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": `${metric} over time with its interval; newest: ${said}` },
      axis, lines,
      svg("text", { x: LEFT, y: HEIGHT - 5 }, clock(first, false)), svg("text", { x: WIDTH - 8, y: HEIGHT - 5, "text-anchor": "end" }, clock(last, false))),
    el("figcaption", { class: "muted" }, `${metric} with its confidence sequence over time`));
}
