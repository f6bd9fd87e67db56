// The API reference, made of openapi.json; every text in it is set as text.

import { byId, el, say } from "./dom.js";

const SCOPES = {
  "": "no key needed", stream: "scope decide or reward, by message", metrics: "scope read, unless metrics are open",
  totals: "scope read, of a key for all tenants",
};
const DEEPEST = 6;

function resolved(schema, whole) {
  let found = schema;
  while (found.$ref) {
    const named = found.$ref.split("/").slice(1).reduce((at, name) => at[name], whole);
    found = { ...named, ...Object.fromEntries(Object.entries(found).filter(([key]) => key !== "$ref")) };
  }
  return found;
}

/** The schema of an object behind lists, maps and alternatives, or null. */
function inside(schema, whole) {
  const at = resolved(schema, whole);
  if (at.properties && Object.keys(at.properties).length) return at;
  if (at.items) return inside(at.items, whole);
  if (typeof at.additionalProperties === "object") return inside(at.additionalProperties, whole);
  for (const one of at.anyOf ?? at.oneOf ?? []) {
    const found = inside(one, whole);
    if (found) return found;
  }
  return null;
}

function typeOf(schema, whole) {
  const at = resolved(schema, whole);
  if (at.const !== undefined) return JSON.stringify(at.const);
  if (at.enum) return at.enum.map((one) => JSON.stringify(one)).join(" or ");
  const options = at.anyOf ?? at.oneOf;
  if (options) return options.map((one) => typeOf(one, whole)).join(" or ");
  const types = [at.type ?? "any"].flat();
  return types.map((type) => {
    if (type === "array" && at.items) return `list of ${typeOf(at.items, whole)}`;
    if (type === "object" && typeof at.additionalProperties === "object") {
      return `map of ${typeOf(at.additionalProperties, whole)}`;
    }
    return type;
  }).join(" or ");
}

function bounds(schema) {
  const told = [];
  for (const at of [schema, ...(schema.anyOf ?? [])]) {
    if (at.minimum !== undefined) told.push(`at least ${at.minimum}`);
    if (at.exclusiveMinimum !== undefined) told.push(`above ${at.exclusiveMinimum}`);
    if (at.maximum !== undefined) told.push(`at most ${at.maximum}`);
    if (at.maxLength !== undefined) told.push(`at most ${at.maxLength} characters`);
  }
  if (schema.default !== undefined && schema.default !== null) told.push(`default ${JSON.stringify(schema.default)}`);
  return told.join(", ");
}

function field(name, schema, needed, whole, depth) {
  const nested = depth < DEEPEST ? inside(schema, whole) : null;
  const example = schema.examples?.[0];
  const limits = bounds(schema);
  return el("li", {},
    el("code", { class: "name" }, name), " ",
    el("span", { class: "muted" }, typeOf(schema, whole) + (limits ? `; ${limits}` : "")),
    needed ? el("span", { class: "needed" }, " required") : null,
    schema.description ? el("p", {}, schema.description) : null,
    nested || example === undefined ? null : el("p", { class: "muted" }, "Example: ", el("code", {}, JSON.stringify(example))),
    nested ? later(`Fields of ${name}`, () => fields(nested, whole, depth + 1)) : null);
}

function fields(schema, whole, depth = 0) {
  const needed = new Set(schema.required ?? []);
  return el("ul", { class: "fields" },
    Object.entries(schema.properties).map(([name, each]) => field(name, each, needed.has(name), whole, depth)));
}

/** Details whose inside is made when they are first opened: the whole would be tens of thousands of nodes. */
function later(title, make) {
  const made = el("details", {}, el("summary", {}, title));
  made.addEventListener("toggle", () => { if (made.children.length === 1) made.append(make()); }, { once: true });
  return made;
}

function body(title, content, whole) {
  const told = content["application/json"];
  if (!told?.schema) return null;
  const schema = inside(told.schema, whole);
  const about = resolved(told.schema, whole).description ?? schema?.description;
  return [
    el("h3", {}, title),
    about ? el("p", {}, about) : null,
    told.example === undefined ? null : el("pre", { "aria-label": "Example" }, JSON.stringify(told.example, null, 2)),
    schema ? fields(schema, whole) : null,
  ];
}

function parameters(given) {
  if (!given?.length) return null;
  return [
    el("h3", {}, "Parameters"),
    el("ul", { class: "fields" }, given.map((each) => el("li", {},
      el("code", { class: "name" }, each.name), " ",
      el("span", { class: "muted" }, `${each.schema.type} in the ${each.in}`),
      each.required ? el("span", { class: "needed" }, " required") : null,
      el("p", {}, each.description),
      el("p", { class: "muted" }, "Example: ", el("code", {}, String(each.example)))))),
  ];
}

function answers(responses, whole) {
  const good = Object.entries(responses).filter(([status]) => status < "400");
  const bad = Object.keys(responses).filter((status) => status >= "400");
  return [
    good.map(([status, answer]) => body(`Answer ${status}`, answer.content ?? {}, whole)
      ?? [el("h3", {}, `Answer ${status}`), el("p", {}, answer.description)]),
    bad.length ? el("p", { class: "muted" }, `Errors: ${bad.join(", ")}, each with a code and a reason.`) : null,
  ];
}

function idOf(method, path) {
  return `${method}${path}`.replaceAll(/[^a-z0-9]+/gi, "-").replace(/-$/, "");
}

function entry(method, path, operation, whole) {
  const id = idOf(method, path);
  const scope = SCOPES[operation["x-scope"]] ?? `scope ${operation["x-scope"]}`;
  const made = el("details", { class: "path panel", id },
    el("summary", {},
      el("span", { class: "method" }, method.toUpperCase()), el("h2", {}, path),
      el("span", { class: "scope" }, scope), el("span", { class: "muted" }, operation.summary)));
  made.addEventListener("toggle", () => {
    made.append(el("div", {},
      el("p", {}, operation.description),
      parameters(operation.parameters),
      operation.requestBody ? body("Request", operation.requestBody.content, whole) : null,
      answers(operation.responses, whole)));
  }, { once: true });
  return made;
}

/** The words by which an entry is found: its path and summary, and the names of its fields. */
function words(path, operation, whole) {
  const names = new Set();
  const walk = (schema, depth) => {
    const at = depth < DEEPEST ? inside(schema, whole) : null;
    for (const [name, each] of Object.entries(at?.properties ?? {})) {
      names.add(name);
      walk(each, depth + 1);
    }
  };
  const contents = [operation.requestBody, ...Object.values(operation.responses)].map((one) => one?.content ?? {});
  for (const content of contents) if (content["application/json"]?.schema) walk(content["application/json"].schema, 0);
  return [path, operation.summary, ...names].join(" ").toLowerCase();
}

function openNamed() {
  const named = byId(location.hash.slice(1));
  if (named?.classList.contains("path")) { named.open = true; named.scrollIntoView(); }
}

async function begin() {
  const response = await fetch("openapi.json", { cache: "no-cache" });
  if (!response.ok) throw new Error(`openapi.json: status ${response.status}`);
  const whole = await response.json();
  say(byId("version"), `bandit-service ${whole.info.version}`);
  const all = [];
  for (const [path, methods] of Object.entries(whole.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const node = entry(method, path, operation, whole);
      const link = el("a", { href: `#${node.id}` }, `${method.toUpperCase()} ${path}`);
      all.push({ node, link, words: words(path, operation, whole) });
    }
  }
  byId("paths").append(...all.map((one) => one.node));
  byId("contents").append(...all.map((one) => one.link));
  const find = () => {
    const sought = byId("find").value.trim().toLowerCase();
    for (const { node, link, words: known } of all) node.hidden = link.hidden = !known.includes(sought);
    say(byId("found"), `${all.filter((one) => !one.node.hidden).length} of ${all.length} paths`);
  };
  byId("find").addEventListener("input", find);
  find();
  addEventListener("hashchange", openNamed);
  openNamed();
}

begin().catch((error) => say(byId("version"), `The reference could not be loaded: ${error.message}`));
