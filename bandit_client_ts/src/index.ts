/** A typed client of bandit-service; the types are those of its OpenAPI document. */

import createClient, { type Client } from "openapi-fetch";

import { BadAnswer } from "./errors.js";
import { checked, RETRIES, type Retries } from "./retry.js";
import type { components, paths } from "./schema.js";
import { send } from "./send.js";

export * from "./errors.js";
export type { Retries } from "./retry.js";
export type { components, paths } from "./schema.js";

type Body<Path extends "/v1/decide" | "/v1/explain" | "/v1/rewards" | "/v1/comparisons"> =
  paths[Path]["post"] extends { requestBody: { content: { "application/json": infer B } } }
    ? B
    : never;
type One<T> = Exclude<T, readonly unknown[]>;

export type Query = Body<"/v1/decide">;
export type Reward = One<Body<"/v1/rewards">>;
export type Comparison = One<Body<"/v1/comparisons">>;
export type Decision = components["schemas"]["Decision"];

export interface Options {
  /** Of the service; by default BANDIT_URL of the environment, or http://127.0.0.1:8080. */
  url?: string;
  /** One of the service's keys; by default BANDIT_KEY of the environment, or none. */
  key?: string;
  /** How long a call may take with all of its attempts. */
  timeoutMs?: number;
  retries?: Partial<Retries>;
  /** Instead of the platform's. */
  fetch?: (request: Request) => Promise<Response>;
}

/**
 * Which arm should answer, and how it turned out.
 *
 *     const bandit = new Bandit();
 *     const decision = await bandit.decide({ query: "What is 17 * 23?" });
 *     await bandit.reward({ decision_id: decision.decision_id, quality: 1 });
 *
 * A call that fails throws a `BanditError`. It is sent again as docs/client.md says: a decide only
 * where none was made, an outcome also where no answer came, since the service knows it again.
 */
export class Bandit {
  /** Every path of the service, typed: `bandit.api.GET("/v1/arms")`. */
  readonly api: Client<paths>;

  constructor(options: Options = {}) {
    const environment = globalThis.process?.env ?? {};
    const url = options.url ?? environment["BANDIT_URL"] ?? "http://127.0.0.1:8080";
    if (!/^https?:$/.test(protocolOf(url)))
      throw new TypeError(`url: must begin with http:// or https://, got ${JSON.stringify(url)}`);
    const key = options.key ?? environment["BANDIT_KEY"];
    const timeoutMs = options.timeoutMs ?? 30_000;
    if (!(Number.isFinite(timeoutMs) && timeoutMs > 0))
      throw new TypeError(`timeoutMs: must be milliseconds above 0, got ${timeoutMs}`);
    const how = {
      fetch: options.fetch ?? ((request: Request) => globalThis.fetch(request)),
      timeoutMs,
      retries: checked({ ...RETRIES, ...options.retries }),
    };
    this.api = createClient<paths>({
      baseUrl: url.replace(/\/+$/, ""),
      headers: key ? { authorization: `Bearer ${key}` } : {},
      fetch: (request) => send(request, how),
    });
  }

  /** Draw the arm that should answer a query. */
  async decide(query: Query): Promise<Decision> {
    return given((await this.api.POST("/v1/decide", { body: query })).data);
  }

  /** What `decide` would say, recording nothing. */
  async explain(query: Body<"/v1/explain">) {
    return given((await this.api.POST("/v1/explain", { body: query })).data);
  }

  /** How a decision turned out. Returns when it is on the service's disk. */
  async reward(outcome: Reward) {
    return given((await this.api.POST("/v1/rewards", { body: known(outcome) })).data);
  }

  /** Which of two answers was better. */
  async compare(comparison: Comparison) {
    return given((await this.api.POST("/v1/comparisons", { body: known(comparison) })).data);
  }
}

interface Named {
  decision_id?: unknown;
  correction?: unknown;
  idempotency_key?: unknown;
}

/** With a key where a second sending would not be known again: without a decision, or corrected. */
function known<T extends object>(outcome: T): T {
  const named: Named = outcome;
  if (named.idempotency_key || (named.decision_id && !named.correction)) return outcome;
  return { ...outcome, idempotency_key: crypto.randomUUID().replaceAll("-", "") };
}

function given<T>(data: T | undefined): T {
  if (data === undefined) throw new BadAnswer("an answer without a body");
  return data;
}

function protocolOf(url: string): string {
  try {
    return new URL(url).protocol;
  } catch {
    return "";
  }
}
