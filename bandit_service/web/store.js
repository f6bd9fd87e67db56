// What the page knows: the newest event, the kept steps of time, and a colour for each arm.

const SLOTS = 10;

export const store = {
  now: 0, numbers: [], arms: [], feed: [], budgets: [], replicas: [], changes: [], routes: [], topics: false, totals: null, state: null, policy: "",
  fine: { step: 1, most: 600, rows: new Map() },
  coarse: { step: 30, most: 360, rows: new Map() },
  slots: new Map(),
};

function take(ring, given) {
  if (given.step_s) {
    ring.step = given.step_s;
    ring.most = given.most;
    ring.rows.clear();
  }
  for (const row of given.rows) ring.rows.set(row[0], row);
}

function forget(ring) {
  const oldest = store.now - ring.step * (ring.most + 1);
  for (const ts of ring.rows.keys()) {
    if (ts >= oldest) break;
    ring.rows.delete(ts);
  }
}

/** The arms of most traffic get a colour of their own, which they keep; the rest share one. */
function colour() {
  const wanting = store.arms.filter((arm) => !arm.retired && !store.slots.has(arm.id));
  wanting.sort((a, b) => b.decisions - a.decisions || (a.id < b.id ? -1 : 1));
  for (const arm of wanting) {
    if (store.slots.size >= SLOTS) break;
    store.slots.set(arm.id, store.slots.size);
  }
}

export function hear(kind, body) {
  const { fine, coarse, ...rest } = body;
  Object.assign(store, rest);
  take(store.fine, fine);
  take(store.coarse, coarse);
  forget(store.fine);
  forget(store.coarse);
  colour();
}

export function slotOf(arm) {
  return store.slots.get(arm);
}

/** The class that carries an arm's colour. */
export function dotOf(arm) {
  const slot = store.slots.get(arm);
  return slot === undefined ? "dot" : `dot s${slot}`;
}

export function colourOf(slot) {
  const name = slot === undefined ? "--rest" : `--c${slot}`;
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
