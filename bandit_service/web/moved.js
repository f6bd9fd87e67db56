// Why an arm's chance moved between two weighings of one query, in one sentence. No elements.

import { number, percent } from "./format.js";

const LEAST = 0.0005;

/** The fewest digits, of those given, that tell the two apart. */
function digitsFor(a, b, choices, format = number) {
  return choices.find((n) => format(a, n) !== format(b, n)) ?? choices[0];
}

/** "rose from 0.71 to 0.74". */
export function went(was, is, format = number, choices = [2, 3]) {
  const n = digitsFor(was, is, choices, format);
  const [from, to] = [format(was, n), format(is, n)];
  return from === to ? `stayed at ${to}` : `${is > was ? "rose" : "fell"} from ${from} to ${to}`;
}

function rivalOf(arms, id) {
  return arms.reduce((best, arm) => (arm.id === id || (best && best.score >= arm.score) ? best : arm), null);
}

function widthOf(of) {
  return of.expected.low === undefined ? null : of.expected.high - of.expected.low;
}

function inParts(was, is) {
  return was.bonus !== undefined && is.bonus !== undefined;
}

function prior(was, is) {
  return was.expected.untried && !is.expected.untried ? " (a prior until now: it was untried)" : "";
}

function parts(was, is) {
  if (!inParts(was, is)) return [];
  return [
    `its value ${went(was.value, is.value)}${prior(was, is)}`,
    ...(was.bonus || is.bonus ? [`its bonus for being little known ${went(was.bonus, is.bonus)}`] : []),
    ...(Math.abs(is.cost - was.cost) >= LEAST ? [`what its cost takes off ${went(was.cost, is.cost)}`] : []),
  ];
}

/** The score, and where it stands beside the best other arm's. */
function score(was, is, old, rival) {
  const own = inParts(was, is) ? `in sum its score ${went(was.score, is.score)}` : `its score ${went(was.score, is.score)}${prior(was, is)}`;
  if (!rival) return `${own}, with no other arm to draw`;
  const n = digitsFor(is.score, rival.score, [2, 3, 4]);
  const [mine, other] = [number(is.score, n), number(rival.score, n)];
  const beside = mine === other ? "level with" : is.score > rival.score ? "above" : "below";
  const notes = [
    rival.expected.untried ? "untried" : "",
    old && number(old.score, n) !== other ? `before ${number(old.score, n)}` : "",
  ].filter(Boolean).join(", ");
  return `${own}, ${n > 2 ? `at ${mine} ` : ""}${beside} the ${other} of ${rival.id}${notes ? ` (${notes})` : ""}`;
}

/** What moved the chance where the scores do not say it: how sure the policy is, or exploration. */
function beyondScores(before, after, was, is, rival) {
  const first = rivalOf(before.arms, is.id);
  const lead = rival && first ? is.score - rival.score - (was.score - first.score) : 0;
  const change = is.propensity - was.propensity;
  if (Math.abs(change) < LEAST || (lead !== 0 && Math.sign(lead) === Math.sign(change))) return "";
  const [wide, now] = [widthOf(was), widthOf(is)];
  if (wide !== null && now !== null && Math.abs(wide - now) >= LEAST) {
    return `, its 95 % interval is ${number(now, 2)} wide and was ${number(wide, 2)}, which chances follow too`;
  }
  return ", and the share that is left to exploration changed";
}

/**
 * {against, was, is, text} of the arm `id` in two explanations of the same query, before and after
 * a reward of this quality; null where it is not in both. against: the chance went the other way
 * than the reward.
 */
export function moved(id, quality, before, after) {
  const [was, is, rival] = [...[before, after].map((each) => each.arms.find((arm) => arm.id === id)), rivalOf(after.arms, id)];
  if (!was || !is) return null;
  const change = is.propensity - was.propensity;
  const against = Math.abs(change) >= LEAST && (quality >= 0.5 ? change < 0 : change > 0);
  const word = quality === 1 ? "Good" : quality === 0 ? "Bad" : `Quality ${quality}`;
  const chance = `its chance ${went(was.propensity, is.propensity, percent, [0, 1, 2])}`;
  const found = { against, was, is };
  if (before.policy !== after.policy) {
    return { ...found, text: `${word}: ${chance}, as ${after.policy} decides now and not ${before.policy}, and their scores have no common unit.` };
  }
  const old = rival ? before.arms.find((arm) => arm.id === rival.id) : null;
  const first = parts(was, is);
  const sum = `${first.length ? "so " : ""}${score(was, is, old, rival)}${beyondScores(before, after, was, is, rival)}`;
  return { ...found, text: `${word}: ${[first.join("; "), sum].filter(Boolean).join(", ")}, and ${chance}.` };
}
