// The stream of server-sent events, read by fetch so that a key can go along.

import { failure, headers } from "./api.js";
import { events } from "./sse.js";

const LONGEST_WAIT_S = 15;

/** Follow GET /v1/live for ever: `hear(kind, body)` for each event, `tell(word)` for the connection. */
export class Follower {
  constructor(hear, tell) {
    this.hear = hear;
    this.tell = tell;
    this.tries = 0;
    this.stopped = null;
    this.timer = 0;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.pause() : this.start()));
  }

  start() {
    if (this.stopped) return;
    clearTimeout(this.timer);
    this.stopped = new AbortController();
    this.read(this.stopped);
  }

  /** A page that nobody sees asks for nothing. */
  pause() {
    clearTimeout(this.timer);
    this.stopped?.abort();
    this.stopped = null;
    this.tell("paused");
  }

  restart() {
    this.pause();
    this.tries = 0;
    this.start();
  }

  async read(stop) {
    let wait = 0;
    try {
      const response = await fetch("v1/live", { headers: headers(), signal: stop.signal, cache: "no-store" });
      if (!response.ok) {
        const failed = await failure(response);
        wait = failed.retryAfter;
        this.tell(failed.status === 401 || failed.status === 403 ? "refused" : "waiting", failed.message);
        if (failed.status === 401 || failed.status === 403) { this.stopped = null; return; }
      } else {
        await this.parse(response.body);
      }
    } catch (error) {
      if (stop.signal.aborted) return;
    }
    if (stop.signal.aborted) return;
    this.stopped = null;
    this.tries += 1;
    wait = Math.max(wait, Math.min(LONGEST_WAIT_S, 2 ** Math.min(this.tries - 1, 4))) * (0.75 + Math.random() / 2);
    this.tell("waiting");
    this.timer = setTimeout(() => this.start(), 1000 * wait);
  }

  async parse(body) {
    for await (const { kind, data } of events(body)) {
      this.tries = 0;
      this.tell("live");
      this.hear(kind, JSON.parse(data));
    }
  }
}
