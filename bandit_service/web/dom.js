// Elements from data. Text is only ever set as text, so that a name of an arm stays a name.

const SVG = "http://www.w3.org/2000/svg";

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

export function byId(id) {
  return document.getElementById(id);
}

/** A table that scrolls where it is too wide, and becomes cards on a phone. name: aria-label or aria-labelledby. */
export function table(name, heads, rows, { id = null, caption = null, cards = true } = {}) {
  return el("div", { class: "scroll", tabindex: "0", role: "region", ...name },
    el("table", { id, role: "table", class: cards && "cards", ...name },
      caption && el("caption", {}, caption),
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, heads.map((head) => el("th", { role: "columnheader", scope: "col" }, head)))),
      el("tbody", { role: "rowgroup" }, rows)));
}

/** A button that copies the text of an element, and what says so. A browser gives a clipboard to https and to its own machine alone; elsewhere the text is selected. */
export function copying(source, label, more = {}) {
  const told = el("span", { class: "muted", role: "status" });
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(source.textContent);
      say(told, "Copied.");
    } catch {
      getSelection().selectAllChildren(source);
      say(told, "Selected; copy it by keyboard.");
    }
  };
  return [el("button", { type: "button", class: "quiet", onclick: copy, ...more }, label), told];
}

/** Set the text only where it is another one, so that nothing is selected away or read out again. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Keep one child per key, in order; `make(item)` gives {node, update}. */
export function keyed(parent, items, keyOf, make) {
  const kept = parent.kept ?? (parent.kept = new Map());
  const seen = new Set();
  let at = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    seen.add(key);
    let row = kept.get(key);
    if (!row) kept.set(key, (row = make(item)));
    row.update(item);
    if (row.node === at) at = at.nextSibling;
    else parent.insertBefore(row.node, at);
  }
  for (const [key, row] of kept) {
    if (!seen.has(key)) { row.node.remove(); kept.delete(key); }
  }
}
