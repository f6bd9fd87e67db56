// The newest changes of the configuration at run time: who made each, when, and why.

import { byId, el, keyed, say } from "./dom.js";
import { moment } from "./format.js";
import { store } from "./store.js";

/** A revision as an item of a list. */
export function changeRow() {
  const [name, says, more] = [el("h4"), el("span"), el("small")];
  return {
    node: el("li", {}, name, says, more),
    update(of) {
      say(name, `Revision ${of.revision} by ${of.by}`);
      say(says, of.changed.join(", ") || "as the file");
      const when = moment(of.ts);
      say(more, of.why ? `${when}: ${of.why}` : when);
    },
  };
}

export function showChanges() {
  byId("changes-panel").hidden = store.changes.length === 0;
  keyed(byId("changes"), store.changes, (of) => String(of.revision), changeRow);
}
