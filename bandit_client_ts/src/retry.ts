/** When a request is sent again, and after how long: the rules of docs/client.md. */

import { BanditError, NoAnswer, NotReached, ServiceError } from "./errors.js";

/** The codes of the service after which the same request may succeed. */
const AGAIN = new Set([
  "busy",
  "rate_limited",
  "reward_share",
  "budget_exhausted",
  "no_credit",
  "unavailable",
]);
/** What something in front of the service answers; the service may have done it all the same. */
const OF_PROXIES = new Set([502, 503, 504]);

/**
 * Before attempt n it waits a random time from 0 to the smaller of `mostMs` and `firstMs`·2ⁿ, after
 * what `Retry-After` says. It never waits beyond the timeout of the call.
 */
export interface Retries {
  /** How often a request is sent in all; 1 never sends anything again. */
  attempts: number;
  firstMs: number;
  mostMs: number;
}

export const RETRIES: Retries = { attempts: 6, firstMs: 100, mostMs: 10_000 };

/** TypeError unless they can be meant. */
export function checked(retries: Retries): Retries {
  if (!Number.isInteger(retries.attempts) || retries.attempts < 1)
    throw new TypeError(`attempts: must be a whole number from 1, got ${retries.attempts}`);
  for (const name of ["firstMs", "mostMs"] as const)
    if (!(Number.isFinite(retries[name]) && retries[name] > 0))
      throw new TypeError(`${name}: must be milliseconds above 0, got ${retries[name]}`);
  return retries;
}

/**
 * Whether a request may be sent again. `harmless`: nothing happens by a second time. Otherwise only
 * what was certainly not done is: without a connection, or where the service itself refused.
 */
export function mayAgain(error: BanditError, harmless: boolean): boolean {
  if (error instanceof ServiceError)
    return AGAIN.has(error.code) || (harmless && !error.code && OF_PROXIES.has(error.status));
  return error instanceof NotReached || (harmless && error instanceof NoAnswer);
}

/** Milliseconds to wait after so many failures, of which this was the last. */
export function waitMs(retries: Retries, failures: number, error: BanditError): number {
  const said = error instanceof ServiceError ? (error.retryAfterS ?? 0) : 0;
  const widest = Math.min(retries.mostMs, retries.firstMs * 2 ** Math.min(failures - 1, 60));
  return said * 1000 + Math.random() * widest;
}
