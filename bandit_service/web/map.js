// The newest queries on a plane: near means alike. Colour is the arm, a full point a good reward.

import { ask } from "./api.js";
import { css } from "./canvas.js";
import { byId, el, say } from "./dom.js";
import { count, percent, signed } from "./format.js";
import { colourOf, dotOf, slotOf, store } from "./store.js";
import { followTopics, topicDot, topicName, topicOf, TopicsPanel, topicsThere } from "./topics.js";

const PAD = 18, EVERY_S = 10;

class Plane {
  constructor(parent) {
    this.canvas = el("canvas", { tabindex: "0", role: "img", "aria-label": "Map of recent queries" });
    this.none = el("p", { class: "none" }, "Not enough data yet");
    this.tip = el("div", { class: "tip", hidden: true });
    this.spoken = el("p", { class: "unseen", "aria-live": "polite" });
    this.legend = el("ul", { class: "legend" });
    this.told = el("p", { class: "muted" });
    this.by = el("select", { id: "map-colour", onchange: () => { this.legends(); this.draw(); } }, el("option", { value: "arm" }, "arm"), el("option", { value: "topic" }, "topic"));
    this.choice = el("div", { class: "field", hidden: true }, el("label", { for: "map-colour" }, "Colour by"), this.by);
    parent.append(
      el("p", { class: "muted" }, "Each point is a query, placed by the two principal directions of the embeddings. A full point was rewarded well, a hollow one badly, a faint one not yet. Arrow keys go from query to query, Enter opens one."),
      this.choice,
      el("div", { class: "chart big-map" }, this.canvas, this.none, this.tip, this.spoken), this.legend, this.told);
    this.topics = new TopicsPanel(parent);
    this.points = [];
    this.at = null;
    this.canvas.addEventListener("pointermove", (event) => this.near(event));
    this.canvas.addEventListener("pointerleave", () => this.choose(null));
    this.canvas.addEventListener("click", () => this.open());
    this.canvas.addEventListener("keydown", (event) => this.step(event));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  take(body) {
    const chosen = this.points[this.at]?.id;
    this.points = body.points ?? [];
    this.at = chosen ? this.points.findIndex((point) => point.id === chosen) : null;
    if (this.at === -1) this.at = null;
    this.none.hidden = body.state === "shown";
    say(this.none, body.state === "all alike" ? "All recent queries are the same" : `Not enough data: ${body.n} of ${body.needed ?? 10} queries`);
    this.legends();
    say(this.told, body.state === "shown" ? `n = ${count(body.n)}; the two directions hold ${percent(body.share)} of the variance, so far apart on the map is not always far apart.` : "");
    this.draw();
  }

  get byTopic() {
    return this.by.value === "topic" && topicsThere().length > 0;
  }

  /** What the colours mean, with the number of points of each. */
  legends() {
    this.choice.hidden = !topicsThere().length;
    const name = (point) => (this.byTopic ? topicName(topicOf(point.id)) ?? "no topic" : point.arm);
    const counts = new Map();
    for (const point of this.points) {
      const row = counts.get(name(point)) ?? { n: 0, point };
      row.n += 1;
      counts.set(name(point), row);
    }
    const rows = [...counts].sort((a, b) => b[1].n - a[1].n);
    const dot = (point) => (this.byTopic ? topicDot(topicOf(point.id)) : el("i", { class: dotOf(point.arm) }));
    this.legend.replaceChildren(...rows.map(([name, { n, point }]) => el("li", {}, dot(point), `${name} ${count(n)}`)));
    this.canvas.setAttribute("aria-label", `Map of ${this.points.length} recent queries: ${rows.map(([name, { n }]) => `${name} ${n}`).join(", ")}`);
  }

  /** The topics came, or there are others. */
  heardTopics() {
    this.topics.draw();
    this.legends();
    this.draw();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width) return;
    const scale = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    const pen = this.canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    const [xs, ys] = [this.points.map((point) => point.x), this.points.map((point) => point.y)];
    const place = (values, room, turned) => {
      const [low, high] = [Math.min(...values), Math.max(...values)];
      return (value) => PAD + (room - 2 * PAD) * (turned ? 1 - (value - low) / (high - low || 1) : (value - low) / (high - low || 1));
    };
    const [x, y] = [place(xs, width, false), place(ys, height, true)];
    this.placed = this.points.map((point) => [x(point.x), y(point.y)]);
    this.points.forEach((point, i) => this.dot(pen, point, ...this.placed[i]));
    if (this.at !== null) this.mark(pen, width);
  }

  dot(pen, point, x, y) {
    pen.beginPath();
    pen.arc(x, y, 5, 0, 7);
    pen.strokeStyle = pen.fillStyle = colourOf(this.byTopic ? topicOf(point.id) : slotOf(point.arm));
    pen.globalAlpha = point.reward === null ? 0.35 : 0.9;
    pen.lineWidth = 1.75;
    if (point.reward === null || point.reward >= 0.5) pen.fill();
    else pen.stroke();
    pen.globalAlpha = 1;
  }

  mark(pen, width) {
    const point = this.points[this.at], [x, y] = this.placed[this.at];
    pen.beginPath();
    pen.arc(x, y, 9, 0, 7);
    pen.strokeStyle = css("--ink");
    pen.stroke();
    this.tip.replaceChildren(el("strong", {}, point.arm), this.aboutOf(point), el("div", {}, "reward", el("b", {}, point.reward === null ? "none yet" : signed(point.reward, 2))), el("div", { class: "id" }, point.id));
    this.tip.hidden = false;
    this.tip.style.top = `${Math.max(4, y - 30)}px`;
    this.tip.style.left = x > width / 2 ? "" : `${x + 14}px`;
    this.tip.style.right = x > width / 2 ? `${width - x + 14}px` : "";
  }

  aboutOf(point) {
    const name = topicName(topicOf(point.id));
    return name ? el("div", {}, name) : "";
  }

  choose(at) {
    if (this.at === at) return;
    this.at = at;
    if (at === null) this.tip.hidden = true;
    this.draw();
  }

  near(event) {
    let best = null, distance = 400;
    (this.placed ?? []).forEach(([x, y], i) => {
      const apart = (x - event.offsetX) ** 2 + (y - event.offsetY) ** 2;
      if (apart < distance) { distance = apart; best = i; }
    });
    this.choose(best);
  }

  step(event) {
    if (event.key === "Enter") this.open();
    const move = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (!move || !this.points.length) return;
    event.preventDefault();
    this.choose(Math.max(0, Math.min(this.points.length - 1, (this.at ?? this.points.length) + move)));
    const point = this.points[this.at];
    const about = topicName(topicOf(point.id));
    say(this.spoken, `${point.arm}${about ? `, ${about}` : ""}, reward ${point.reward === null ? "none yet" : signed(point.reward, 2)}`);
  }

  open() {
    if (this.at !== null) location.hash = `decisions=${this.points[this.at].id}`;
  }
}

let plane = null;
let asked = -Infinity;

/** Draw, and ask for a new picture where there may be one. */
export async function showMap() {
  plane ??= new Plane(byId("map"));
  followTopics(() => plane.heardTopics());
  plane.topics.draw();
  if (store.now - asked < EVERY_S) return;
  asked = store.now;
  try {
    plane.take(await ask("GET", "v1/live/map"));
  } catch (error) {
    say(plane.told, error.message);
  }
}

export function redrawMap() {
  plane?.draw();
}
