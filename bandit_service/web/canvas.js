// A canvas with axes, a cursor that follows pointer and arrow keys, and a read-out beside it.

import { el, say } from "./dom.js";
import { clock } from "./format.js";

const LEFT = 46, RIGHT = 10, TOP = 10, BOTTOM = 22;

export function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

export class Chart {
  /** `label` names it; `readout(i)` gives the lines at point i as [class, name, value]. */
  constructor(parent, label, readout) {
    this.canvas = el("canvas", { role: "img", tabindex: "0", "aria-label": label });
    this.none = el("p", { class: "none", hidden: true }, "Not enough data yet");
    this.tip = el("div", { class: "tip", hidden: true });
    this.spoken = el("p", { class: "unseen", "aria-live": "polite" });
    parent.append(el("div", { class: "chart" }, this.canvas, this.none, this.tip, this.spoken));
    this.label = label;
    this.readout = readout;
    this.at = null;
    this.times = [];
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerleave", () => this.cursor(null));
    this.canvas.addEventListener("blur", () => this.cursor(null));
    this.canvas.addEventListener("keydown", (event) => this.step(event));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  /** Begin a drawing from `low` to `high`; gives the pen, or null where the canvas is not seen. */
  begin(times, low, high, format, ticks) {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height) return null;
    const scale = window.devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * scale) || this.canvas.height !== Math.round(height * scale)) {
      this.canvas.width = Math.round(width * scale);
      this.canvas.height = Math.round(height * scale);
    }
    const pen = this.canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = `11px ${getComputedStyle(document.body).fontFamily}`;
    this.times = times;
    const first = times[0] ?? 0, last = times.at(-1) ?? 1;
    this.x = (ts) => LEFT + ((ts - first) / Math.max(1e-9, last - first)) * (width - LEFT - RIGHT);
    this.y = (value) => height - BOTTOM - ((value - low) / (high - low)) * (height - TOP - BOTTOM);
    this.frame = { width, height, first, last };
    pen.fillStyle = css("--muted");
    pen.strokeStyle = css("--line");
    pen.lineWidth = 1;
    for (const tick of ticks) {
      const y = Math.round(this.y(tick)) + 0.5;
      pen.beginPath();
      pen.moveTo(LEFT, y);
      pen.lineTo(width - RIGHT, y);
      pen.stroke();
      pen.textAlign = "right";
      pen.textBaseline = "middle";
      pen.fillText(format(tick), LEFT - 7, y);
    }
    return pen;
  }

  /** Draw with nothing outside of the axes. */
  clipped(pen, draw) {
    pen.save();
    pen.beginPath();
    pen.rect(LEFT, TOP - 4, this.frame.width - LEFT - RIGHT, this.frame.height - TOP - BOTTOM + 8);
    pen.clip();
    draw();
    pen.restore();
  }

  /** The times, and the cursor on top. */
  end(pen) {
    const { width, height, first, last } = this.frame;
    pen.fillStyle = css("--muted");
    pen.textBaseline = "alphabetic";
    const parts = width > 420 ? 4 : 2;
    for (let i = 0; i <= parts; i++) {
      pen.textAlign = i === 0 ? "left" : i === parts ? "right" : "center";
      pen.fillText(clock(first + ((last - first) * i) / parts, last - first < 1200), LEFT + ((width - LEFT - RIGHT) * i) / parts, height - 6);
    }
    if (this.at !== null && this.times[this.at] !== undefined) {
      pen.strokeStyle = css("--ink");
      pen.beginPath();
      pen.moveTo(this.x(this.times[this.at]), TOP);
      pen.lineTo(this.x(this.times[this.at]), height - BOTTOM);
      pen.stroke();
      this.show();
    }
  }

  empty(nothing) {
    this.none.hidden = !nothing;
    if (!nothing) return;
    this.canvas.setAttribute("aria-label", this.label); // what it said of before is no longer there
    this.cursor(null);
  }

  point(event) {
    const at = event.offsetX;
    let best = null, distance = Infinity;
    this.times.forEach((ts, i) => {
      const apart = Math.abs(this.x(ts) - at);
      if (apart < distance) { distance = apart; best = i; }
    });
    this.cursor(best);
  }

  step(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9 }[event.key];
    if (event.key === "Escape") this.cursor(null);
    if (move === undefined || !this.times.length) return;
    event.preventDefault();
    const from = this.at ?? this.times.length - 1;
    this.cursor(Math.max(0, Math.min(this.times.length - 1, from + move)));
    if (this.times[this.at] === undefined) return; // drawn again, there was not enough to read
    say(this.spoken, [clock(this.times[this.at]), ...this.readout(this.at).map(([, name, value]) => `${name} ${value}`)].join(", "));
  }

  cursor(at) {
    if (this.at === at) return;
    this.at = at;
    if (at === null) this.tip.hidden = true;
    this.draw();
  }

  show() {
    const lines = this.readout(this.at);
    this.tip.replaceChildren(
      el("strong", {}, clock(this.times[this.at])),
      ...lines.map(([dot, name, value]) => el("div", {}, el("span", {}, dot && el("i", { class: dot }), " ", name), el("b", {}, value))),
    );
    this.tip.hidden = false;
    const x = this.x(this.times[this.at]);
    const left = x > this.frame.width / 2;
    this.tip.style.left = left ? "" : `${x + 12}px`;
    this.tip.style.right = left ? `${this.frame.width - x + 12}px` : "";
  }

  draw() {}
}

/** About `parts` round numbers from `low` to `high`. */
export function ticksOf(low, high, parts = 4) {
  const rough = (high - low) / parts;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((by) => by * power).find((by) => by >= rough);
  const found = [];
  for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-9; tick += step) found.push(tick);
  return found;
}
