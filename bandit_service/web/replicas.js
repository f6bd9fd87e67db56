// Who shares the log: how far each has learned, and what it does for all.

import { byId, el, keyed, say } from "./dom.js";
import { store } from "./store.js";

function how(of) {
  if (!of.open) return "left, or was silent for too long";
  if (of.differs) return "its state differs from this one's";
  return of.behind === 0 ? "up to date" : `${of.behind.toLocaleString("en")} events behind`;
}

function row() {
  const [name, says, more] = [el("h4"), el("span"), el("small")];
  return {
    node: el("li", {}, name, says, more),
    update(of) {
      say(name, `Replica ${of.slot}${of.this ? ", this one" : ""}`);
      say(says, how(of));
      const seen = of.open && of.unseen_s < 5 ? "" : `last heard of ${Math.round(of.unseen_s)} s ago`;
      say(more, [of.roles.includes("keeper") ? "runs the shared background tasks" : "", seen].filter(Boolean).join("; "));
    },
  };
}

export function showReplicas() {
  byId("replicas-panel").hidden = store.replicas.length === 0;
  keyed(byId("replicas"), store.replicas, (of) => String(of.slot), row);
}
