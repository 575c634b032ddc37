// What the API answers, asked for once and again when the store changes.
import { useEffect, useState } from "preact/hooks";
import type { Event as StoreEvent, Problem } from "../generated/contract";
import { isStatic, staticAnswer } from "./site";

export type Params = Record<string, string | string[] | number | boolean | null | undefined>;

export interface Answered<T> {
  data: T | undefined;
  problem: Problem | undefined;
  /** What `data` answers: not yet what is asked now while it is loading. */
  params: Params;
  loading: boolean;
}

const KEPT = 60;
const cache = new Map<string, Promise<unknown>>();
const listeners = new Set<() => void>();
let version = 0;

export function address(path: string, params: Params): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value === null || value === undefined || value === "" || value === false) continue;
    for (const each of Array.isArray(value) ? value : [String(value)]) query.append(name, each);
  }
  const text = query.toString();
  return `api/v1/${path}${text ? `?${text}` : ""}`;
}

function refusal(problem: string, mend: string): Problem {
  return { error: `${problem}; ${mend}`, field: "", problem, mend };
}

async function ask(path: string, params: Params): Promise<unknown> {
  if (isStatic()) return staticAnswer(path, params);
  let response: Response;
  try {
    response = await fetch(address(path, params), { cache: "no-cache" });
  } catch {
    throw refusal("the dashboard does not answer", "see whether `upcurve dashboard` still runs");
  }
  const body: unknown = await response.json().catch(() => null);
  if (response.ok && body) return body;
  throw (body as Problem | null) ?? refusal(`status ${response.status}`, "see the dashboard's log");
}

function answer(path: string, params: Params): Promise<unknown> {
  const key = address(path, params);
  const known = cache.get(key);
  if (known) {
    cache.delete(key);
    cache.set(key, known);
    return known;
  }
  const asked = ask(path, params);
  asked.catch(() => cache.delete(key));
  cache.set(key, asked);
  const oldest = cache.keys().next();
  if (cache.size > KEPT && !oldest.done) cache.delete(oldest.value);
  return asked;
}

/** The answer to a question; until a new one is there the old one stays. A null path asks nothing. */
export function useAnswer<T>(path: string | null, params: Params = {}): Answered<T> {
  const key = path === null ? null : address(path, params);
  const [asked, setAsked] = useState(version);
  const [state, setState] = useState<{ key: string | null } & Answered<T>>({
    key: null,
    data: undefined,
    problem: undefined,
    params,
    loading: true,
  });
  useEffect(() => {
    const listener = () => setAsked(version);
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }, []);
  useEffect(() => {
    if (path === null) return;
    let dropped = false;
    answer(path, params).then(
      (data) => dropped || setState({ key, data: data as T, problem: undefined, params, loading: false }),
      (problem: Problem) => dropped || setState({ key, data: undefined, problem, params, loading: false }),
    );
    return () => void (dropped = true);
  }, [key, asked]);
  return { ...state, loading: state.key !== key };
}

/** Follow the store: while the page is seen, new points make every question be asked again. */
export function follow(told: (event: StoreEvent | "lost") => void): () => void {
  let source: EventSource | null = null;
  const start = () => {
    source = new EventSource("api/v1/events");
    source.addEventListener("store", (message) => {
      const event = JSON.parse((message as MessageEvent<string>).data) as StoreEvent;
      if (event.points.length) refresh();
      told(event);
    });
    // The browser tries again by itself, and is told the store's state when it is back.
    source.onerror = () => told("lost");
  };
  // A browser opens six connections to a host: hidden tabs must not hold them.
  const seen = () => {
    source?.close();
    source = null;
    if (document.hidden) return;
    refresh();
    start();
  };
  document.addEventListener("visibilitychange", seen);
  if (!document.hidden) start();
  return () => {
    document.removeEventListener("visibilitychange", seen);
    source?.close();
  };
}

function refresh(): void {
  cache.clear();
  version += 1;
  listeners.forEach((each) => each());
}
