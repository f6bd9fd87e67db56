// Which route is meant, where there is more than the default one.

import { ask } from "./api.js";
import { el } from "./dom.js";

async function routes() {
  const { data } = await ask("GET", "v1/models");
  return data.filter((model) => model.route).map((model) => model.id).filter((id) => !id.startsWith("auto:"));
}

/** A choice among the routes, which is there only where there are several; `none` is what is first chosen. */
export function routePicker(id, label, none, chosen) {
  const select = el("select", { id, onchange: () => chosen(select.value) }, el("option", { value: "" }, none));
  const field = el("div", { class: "field", hidden: true }, el("label", { for: id }, label), select);
  routes().then((found) => {
    select.append(...found.map((name) => el("option", { value: name }, name)));
    field.hidden = found.length < 2;
  }, () => { field.hidden = true; }); // a key that may not decide sees no models
  return field;
}
