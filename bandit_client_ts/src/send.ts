/** One request until its answer, its error, or its timeout. */

import { BadAnswer, BanditError, NoAnswer, NotReached, ServiceError } from "./errors.js";
import { mayAgain, type Retries, waitMs } from "./retry.js";

/** Of Node's fetch, in `cause.code`: no byte of the request left. */
const UNSENT = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "UND_ERR_CONNECT_TIMEOUT",
]);

/** One failure, or those of each address that was tried. */
interface Cause {
  code?: string;
  errors?: Cause[];
}

export interface Sending {
  fetch: (request: Request) => Promise<Response>;
  timeoutMs: number;
  retries: Retries;
}

/** The answer to a request; a BanditError where the service refuses it or cannot be asked. */
export async function send(request: Request, how: Sending): Promise<Response> {
  const until = Date.now() + how.timeoutMs;
  if (isDecide(request) && !request.headers.has("idempotency-key")) {
    request.headers.set("idempotency-key", crypto.randomUUID());
  }
  const harmless = isHarmless(request);
  for (let failures = 1; ; failures++) {
    let error: BanditError;
    try {
      return await once(request.clone(), how, until);
    } catch (thrown) {
      if (!(thrown instanceof BanditError)) throw thrown;
      error = thrown;
    }
    if (failures >= how.retries.attempts || !mayAgain(error, harmless)) throw error;
    const wait = waitMs(how.retries, failures, error);
    if (Date.now() + wait >= until) throw error;
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

function isDecide(request: Request): boolean {
  return new URL(request.url).pathname.endsWith("/v1/decide");
}

/** Outcomes and arms are known again by what they name, decides by their key; a change would happen
 * twice. */
function isHarmless(request: Request): boolean {
  const path = new URL(request.url).pathname;
  if (request.method === "POST") return /\/v1\/(decide|rewards|comparisons|explain)$/.test(path);
  return request.method === "GET" || path.includes("/v1/arms/") || path.includes("/v1/units/");
}

async function once(request: Request, how: Sending, until: number): Promise<Response> {
  const left = Math.max(1, until - Date.now());
  const signal = AbortSignal.any([request.signal, AbortSignal.timeout(left)]);
  const timed = new Request(request, { signal });
  if (isDecide(request)) {
    // so that the service gives up first, and says that it decided nothing
    timed.headers.set("x-request-timeout", (left / 1000).toFixed(3));
  }
  let response: Response;
  try {
    response = await how.fetch(timed);
  } catch (thrown) {
    if (request.signal.aborted) throw thrown;
    throw unsent(thrown)
      ? new NotReached(`${new URL(request.url).origin} cannot be reached`, { cause: thrown })
      : new NoAnswer("the request was sent and no answer came", { cause: thrown });
  }
  if (!response.ok) throw await told(response);
  return response;
}

function unsent(thrown: unknown): boolean {
  const cause = thrown instanceof Error ? (thrown.cause as Cause | undefined) : undefined;
  return [cause, ...(cause?.errors ?? [])].some((each) => UNSENT.has(each?.code ?? ""));
}

/** The error that an answer tells. */
async function told(response: Response): Promise<BanditError> {
  const requestId = response.headers.get("x-request-id") ?? "";
  const after = Number.parseFloat(response.headers.get("retry-after") ?? "");
  const retryAfterS = Number.isFinite(after) ? after : null;
  let error: { message?: string; code?: string; param?: string | null } | undefined;
  try {
    error = ((await response.json()) as { error?: typeof error }).error;
  } catch {
    error = undefined;
  }
  if (!error && response.status < 500)
    return new BadAnswer(`an answer of status ${response.status} that no bandit-service gives`);
  return new ServiceError(
    error?.message ?? `the service answered ${response.status}`,
    error?.code ?? "",
    error?.param ?? null,
    response.status,
    requestId,
    retryAfterS,
  );
}
