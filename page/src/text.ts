// Figures as short texts: the rules of upcurve/frontier/text.py, so that page and terminal agree.

const whole = new Intl.NumberFormat("en-US", {
  maximumFractionDigits: 0,
  // Python rounds halves to even.
  roundingMode: "halfEven",
} as Intl.NumberFormatOptions);

/** Whole from 100 up, three significant digits below. */
export function throughput(value: number): string {
  return value >= 99.95 ? whole.format(value) : value.toPrecision(3);
}

export function ratio(value: number | "inf"): string {
  if (value === "inf" || value === Infinity) return "inf";
  if (value < 9.995) return `${value.toFixed(2)}x`;
  return `${value.toLocaleString("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 })}x`;
}

export function usd(value: number): string {
  return value >= 999.5 ? `$${whole.format(value)}` : `$${value.toPrecision(3)}`;
}

/** A number of any size in at most `digits` significant digits, without trailing zeros. */
export function short(value: number, digits = 4): string {
  if (Math.abs(value) >= 10 ** (digits - 1)) return whole.format(value);
  return value.toLocaleString("en-US", { maximumSignificantDigits: digits });
}

/** A tick of an axis: 12,000 as 12k where space is short. */
export function tick(value: number): string {
  const size = Math.abs(value);
  if (size >= 1e6) return `${short(value / 1e6, 3)}M`;
  if (size >= 1e4) return `${short(value / 1e3, 3)}k`;
  return short(value, 4);
}

export function percent(value: number, digits = 1): string {
  const text = `${(value * 100).toFixed(digits)} %`;
  return value > 0 ? `+${text}` : text.replace("-", "−");
}

export function ms(value: number): string {
  if (value >= 60_000) return `${short(value / 60_000, 3)} min`;
  return value >= 1000 ? `${short(value / 1000, 3)} s` : `${short(value, 3)} ms`;
}

export function between(interval: readonly [number, number], show: (value: number) => string): string {
  return `${show(interval[0])} to ${show(interval[1])}`;
}

export const STATUS: Record<string, string> = {
  measured: "measured",
  interpolated: "interpolated",
  unreachable: "unreachable",
  below_range: "below range",
};

export const day = (iso: string): string => iso.slice(0, 10);
export const minute = (iso: string): string => `${iso.slice(0, 10)} ${iso.slice(11, 16)}`;
/** "Measured 2026-06-01 to 2026-06-12.", of days or times in any order. */
export function measured(times: string[]): string {
  const days = times.map(day).sort();
  const [first, last] = [days[0], days.at(-1)];
  return first === undefined ? "" : `Measured ${first === last ? first : `${first} to ${last}`}.`;
}

export const words = (code: string): string => code.replaceAll("_", " ");
export const plural = (count: number, noun: string): string =>
  `${count.toLocaleString("en-US")} ${noun}${count === 1 || noun.endsWith("s") ? "" : "s"}`;

/** Numbers of "20, 30;40": what cannot be read is left away. */
export function numbers(text: string): number[] {
  return text
    .split(/[\s,;]+/)
    .filter(Boolean)
    .map(Number)
    .filter((each) => each > 0 && isFinite(each));
}

/** A change in words: the address of a pull request as its short name. */
export function changeText(text: string): string {
  return text.replace(/https?:\/\/github\.com\/[\w.-]+\/([\w.-]+)\/pull\/(\d+)/, "$1#$2");
}

/** Links of a change: the text of a pull request or commit, where it is an http or https one. */
export function webLink(text: string): string | null {
  const found = /https?:\/\/[^\s)]+/.exec(text);
  return found ? found[0] : null;
}
