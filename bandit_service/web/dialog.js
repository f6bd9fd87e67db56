// One dialog for all: a question with fields, sent when it is confirmed.

import { byId, el, say } from "./dom.js";

/** Ask; `send(given)` is what a confirmation does, once at a time. Gives its answer, or null; also
 * where the dialog was closed meanwhile, since what was sent may have happened. */
export function confirmed(title, text, fields, send) {
  const dialog = byId("dialog");
  const told = el("p", { class: "result", role: "alert" });
  return new Promise((settle) => {
    const controls = fields.map(({ name, label, ...rest }) => ({ name, label, control: el("input", { id: `dialog-${name}`, autocomplete: "off", ...rest }) }));
    let sending = false;
    const closed = () => { if (!sending) settle(null); };
    const end = (answer) => {
      if (dialog.onclose === closed) { dialog.onclose = null; dialog.close(); } // and no later one
      settle(answer);
    };
    dialog.replaceChildren(el("form", {
      async onsubmit(event) {
        event.preventDefault();
        if (sending) return;
        sending = true;
        try {
          end((await send(Object.fromEntries(controls.map(({ name, control }) => [name, control.value])))) ?? true);
        } catch (error) {
          say(told, error.message);
          if (!told.isConnected || !dialog.open) settle(null);
        } finally {
          sending = false;
        }
      },
    },
    el("h2", { id: "dialog-title" }, title), el("p", { class: "field muted" }, text),
    controls.map(({ label, control }) => el("div", { class: "field" }, el("label", { for: control.id }, label), control)),
    told,
    el("div", { class: "row" }, el("button", { type: "submit" }, "Confirm"), el("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Cancel"))));
    dialog.onclose = closed;
    if (!dialog.open) dialog.showModal();
  });
}
