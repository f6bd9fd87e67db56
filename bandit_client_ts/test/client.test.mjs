/** The built client against a running service (BANDIT_URL), and against servers that fail. */

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";

import { Bandit, NoAnswer, NotReached, ServiceError } from "../dist/index.js";

const QUICK = { firstMs: 1, mostMs: 5 };

/** A server that answers by turns; what it was asked. */
async function answering(...answers) {
  const asked = [];
  const server = createServer(async (request, response) => {
    let text = "";
    for await (const part of request) text += part;
    asked.push({ ...request.headers, path: request.url, body: JSON.parse(text || "null") });
    const answer = answers.shift();
    if (answer === undefined) return request.socket.destroy();
    response.writeHead(answer.status, { "content-type": "application/json" });
    response.end(JSON.stringify(answer.body));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { asked, url: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}

const busy = { status: 429, body: { error: { message: "too much", code: "busy", param: null } } };
const done = { status: 200, body: { results: [{ status: "recorded" }] } };

test("decides, rewards, compares and reads what was recorded", async () => {
  const bandit = new Bandit();
  const decision = await bandit.decide({ query: "What is 17 * 23?", unit: "user-17" });
  assert.ok(decision.propensity > 0);
  await bandit.reward({ decision_id: decision.decision_id, quality: 1, cost_usd: 0.0004 });
  const { data } = await bandit.api.GET("/v1/decisions/{id}", {
    params: { path: { id: decision.decision_id } },
  });
  assert.equal(data.signals.quality, 1);
  const { data: arms } = await bandit.api.GET("/v1/arms");
  const [winner, loser] = arms.arms.map((arm) => arm.id);
  await bandit.compare({ query: "What is 17 * 23?", winner, loser });
  assert.ok((await bandit.explain({ query: "What is 17 * 23?" })).arms.length >= 2);
});

test("an error has the field, the code and the request's id", async () => {
  const bandit = new Bandit();
  const decision = await bandit.decide({ query: "What is 17 * 23?" });
  await assert.rejects(bandit.reward({ decision_id: decision.decision_id, quality: 7 }), (error) => {
    assert.ok(error instanceof ServiceError);
    assert.equal(error.name, "ServiceError");
    assert.deepEqual([error.code, error.field, error.status], ["invalid_value", "quality", 400]);
    assert.match(error.message, /from 0 to 1/);
    assert.ok(error.requestId);
    return true;
  });
});

test("what the service refused for a while is sent again", async () => {
  const server = await answering(busy, busy, { status: 200, body: { decision_id: "d", arm: "a" } });
  const bandit = new Bandit({ url: server.url, key: "bs_1", retries: QUICK });
  assert.equal((await bandit.decide({ query: "q" })).arm, "a");
  assert.equal(server.asked.length, 3);
  assert.equal(server.asked[0].authorization, "Bearer bs_1");
  assert.ok(Number(server.asked[0]["x-request-timeout"]) > 0);
  server.close();
});

test("a decide and an outcome without an answer are sent again, with one key", async () => {
  const server = await answering();
  const bandit = new Bandit({ url: server.url, retries: { ...QUICK, attempts: 3 } });
  await assert.rejects(bandit.decide({ query: "q" }), NoAnswer);
  assert.equal(server.asked.length, 3);
  const [first, ...others] = server.asked.map((each) => each["idempotency-key"]);
  assert.match(first, /^[0-9a-f-]{36}$/);
  assert.deepEqual(others, [first, first]);
  await assert.rejects(bandit.compare({ query: "q", winner: "a", loser: "b" }), NoAnswer);
  const keys = new Set(server.asked.slice(3).map((each) => each.body.idempotency_key));
  assert.equal(server.asked.length, 6);
  assert.equal(keys.size, 1);
  assert.match([...keys][0], /^[0-9a-f]{32}$/);
  server.close();
});

test("it waits no longer than its timeout", async () => {
  const slow = { ...busy, status: 503 };
  slow.body = { error: { message: "away", code: "unavailable", param: null } };
  const server = await answering(slow, done);
  const bandit = new Bandit({ url: server.url, timeoutMs: 50, retries: { firstMs: 1e6, mostMs: 1e9 } });
  await assert.rejects(bandit.reward({ decision_id: "d", quality: 1 }), ServiceError);
  assert.equal(server.asked.length, 1);
  server.close();
});

test("without a connection nothing was sent, and wrong options are told", async () => {
  const server = await answering();
  server.close();
  const bandit = new Bandit({ url: server.url, retries: { attempts: 1 } });
  await assert.rejects(bandit.decide({ query: "q" }), NotReached);
  assert.throws(() => new Bandit({ url: "localhost:8080" }), /url: must begin with http/);
  assert.throws(() => new Bandit({ timeoutMs: 0 }), /timeoutMs/);
  assert.throws(() => new Bandit({ retries: { attempts: 0 } }), /attempts/);
});
