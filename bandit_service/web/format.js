// Numbers for people. What is not known says so and is never a zero.

export const NONE = "not enough data";

export function percent(value, digits = 0) {
  return value === null || value === undefined ? NONE : `${(100 * value).toFixed(digits)} %`;
}

export function number(value, digits = 3) {
  return value === null || value === undefined ? NONE : value.toFixed(digits).replace(/^-(?=[0.]*$)/, "").replace("-", "−");
}

export function signed(value, digits = 3) {
  return value === null || value === undefined ? NONE : (value >= 0 ? "+" : "") + number(value, digits);
}

export function count(value) {
  return value.toLocaleString("en-GB");
}

/** USD with two digits or more that say something: $123, $1.23, $0.0123, $0.000123. */
export function usd(value) {
  if (value === null || value === undefined) return NONE;
  const size = Math.abs(value);
  const digits = size >= 100 ? 0 : size >= 0.1 ? 2 : size >= 0.001 ? 4 : 6;
  return `${value < 0 ? "−" : ""}$${size.toLocaleString("en-GB", { minimumFractionDigits: digits, maximumFractionDigits: digits })}`;
}

export function seconds(value) {
  if (value === null || value === undefined) return NONE;
  return value < 1 ? `${(1000 * value).toFixed(value < 0.01 ? 1 : 0)} ms` : `${value.toFixed(2)} s`;
}

/** What is expected of an arm, {value, low, high, n, untried}: "0.74 (0.60 to 0.88), n = 12". */
export function expectedOf(of) {
  if (of.untried) return "untried";
  const n = of.n === null || of.n === undefined ? "" : `, n = ${weight(of.n)}`;
  if (of.value === null || of.value === undefined) return `none by this policy${n}`;
  return `${number(of.value, 2)}${of.low === undefined ? "" : ` (${number(of.low, 2)} to ${number(of.high, 2)})`}${n}`;
}

/** Outcomes by weight: whole, or with one digit. */
export function weight(n) {
  return n > 0 && n < 0.1 ? "under 0.1" : String(Number(n.toFixed(1)));
}

export function clock(ts, withSeconds = true) {
  const shown = { hour: "2-digit", minute: "2-digit", hour12: false };
  if (withSeconds) shown.second = "2-digit";
  return new Date(1000 * ts).toLocaleTimeString("en-GB", shown);
}

/** A day and a time. */
export function moment(ts) {
  return new Date(1000 * ts).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}

/** The words of a text, which commas part. */
export function words(text) {
  return text.split(",").map((word) => word.trim()).filter(Boolean);
}

/** "0.812 ± 0.02" of {n, mean, low, high}. */
export function interval(of, format = number) {
  if (!of || of.mean === null || of.mean === undefined) return NONE;
  if (of.low === null) return format(of.mean);
  return `${format(of.mean)} (${format(of.low)} to ${format(of.high)})`;
}
