// Requests to the service this page came from. A key lives in this tab's session and nowhere else.

const STORED = "bandit-key";
const POOL = "bandit-pool";
const waiting = new Set();

export class Failed extends Error {
  constructor(status, error, retryAfter = 0) {
    super(error.message);
    this.status = status;
    this.param = error.param ?? null;
    this.retryAfter = retryAfter;
  }
}

export function key() {
  return sessionStorage.getItem(STORED) ?? "";
}

export function setKey(given) {
  if (given) sessionStorage.setItem(STORED, given);
  else sessionStorage.removeItem(STORED);
}

/** The pool of tenants that this tab shows; "" for the default one. */
export function pool() {
  return sessionStorage.getItem(POOL) ?? "";
}

export function setPool(name) {
  if (name) sessionStorage.setItem(POOL, name);
  else sessionStorage.removeItem(POOL);
}

/** Go on with this key where that of this tab is good no more. */
export async function renewed(fresh) {
  const { status } = await fetch("v1/keys", { headers: headers(), cache: "no-store" });
  if (status === 401) setKey(fresh);
}

/** Call `then` where the service wants a key that this tab has not. */
export function onKeyNeeded(then) {
  waiting.add(then);
}

export function headers(more = {}) {
  const asked = pool() ? { "x-bandit-pool": pool() } : {};
  return key() ? { Authorization: `Bearer ${key()}`, ...asked, ...more } : { ...asked, ...more };
}

export async function failure(response) {
  let error = { message: `the service answered ${response.status}` };
  try {
    error = (await response.json()).error ?? error;
  } catch { /* no JSON: the status says enough */ }
  if (response.status === 401) for (const then of waiting) then(error.message);
  return new Failed(response.status, error, Number(response.headers.get("Retry-After") ?? 0));
}

export async function ask(method, path, body = undefined, more = {}) {
  const given = { method, headers: headers({ Accept: "application/json", ...more }), cache: "no-store" };
  if (body !== undefined) {
    given.body = JSON.stringify(body);
    given.headers["Content-Type"] = "application/json";
  }
  const response = await fetch(path, given);
  if (!response.ok) throw await failure(response);
  return response.json();
}
