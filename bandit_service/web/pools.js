// Which pool of tenants the page shows, where the service has several.

import { headers, pool, setPool } from "./api.js";
import { byId, el } from "./dom.js";

/** Offer the pools of this process. One that is not there any more is forgotten; one that is closed cannot be chosen. */
export async function showPools() {
  const own = { ...headers(), "x-bandit-pool": "" };
  const response = await fetch("v1/pools", { headers: own, cache: "no-store" }).catch(() => null);
  if (!response) return; // who follows the service says that it cannot be reached
  const rows = response.ok ? (await response.json()).pools.filter((row) => row.state !== "elsewhere") : [];
  if (!rows.some((row) => row.name === pool() && row.engine)) setPool("");
  const chosen = pool() || rows.find((row) => row.default)?.name;
  const list = byId("pool");
  list.replaceChildren(...rows.map((row) => {
    const closed = !row.engine;
    const option = el("option", { value: row.name, title: row.why }, closed ? `${row.name} (closed)` : row.name);
    option.disabled = closed;
    option.selected = row.name === chosen;
    return option;
  }));
  list.hidden = rows.length < 2;
}

byId("pool").addEventListener("change", () => {
  setPool(byId("pool").value);
  location.reload(); // nothing of the one before is shown
});
