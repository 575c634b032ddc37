// The state of the page is its query string: nothing else has to be kept, shared or restored.
import { useEffect, useState } from "preact/hooks";

export type Changes = Record<string, string | string[] | number | boolean | null | undefined>;

/** What every view understands; the rest belongs to one view and ends with it. */
const SHARED = [
  "group",
  "series",
  "isl",
  "osl",
  "baseline",
  "at",
  "rule",
  "tier",
  "on",
  "price",
  "as_hardware",
  "kw",
  "usd_per_kwh",
  "pue",
  "theme",
  "embed",
];

const listeners = new Set<() => void>();
let current = new URLSearchParams(location.search);

function changed(): void {
  current = new URLSearchParams(location.search);
  listeners.forEach((each) => each());
}
addEventListener("popstate", changed);

export function query(): URLSearchParams {
  return current;
}

/** The query string after changes: null, undefined, false, "" and [] take a parameter away. */
export function href(changes: Changes): string {
  const switches = "view" in changes && changes.view !== current.get("view");
  const next = new URLSearchParams();
  for (const [name, value] of current) {
    if (!(name in changes) && (!switches || SHARED.includes(name))) next.append(name, value);
  }
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === undefined || value === false || value === "") continue;
    for (const each of Array.isArray(value) ? value : [value === true ? "1" : String(value)]) {
      next.append(name, each);
    }
  }
  // Commas and colons are plain text in a query: links stay readable.
  return "?" + next.toString().replaceAll("%2C", ",").replaceAll("%3A", ":");
}

export function go(changes: Changes, replace = false): void {
  open(href(changes), replace);
}

export function open(search: string, replace = false): void {
  const target = search === "?" ? location.pathname : search;
  if (replace) history.replaceState(null, "", target);
  else history.pushState(null, "", target);
  changed();
}

export function useQuery(): URLSearchParams {
  const [, redraw] = useState(current);
  useEffect(() => {
    const listener = () => redraw(current);
    listeners.add(listener);
    listener();
    return () => void listeners.delete(listener);
  }, []);
  return current;
}

export const embedded = (): boolean => /\/embed\/?$/.test(location.pathname) || current.get("embed") === "1";
