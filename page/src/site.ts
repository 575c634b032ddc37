// A static export: answers are script files, because a page from file:// may fetch nothing.
import type {
  Compare,
  Frontier,
  Histories,
  History,
  Meta,
  RunDetail,
  RunList,
  SeriesList,
} from "../generated/contract";
import type { Params } from "./answers";

interface Site {
  grid: Record<string, number[]>;
  baselines: Record<string, string[]>;
  frontier: Record<string, string[]>;
  metrics: string[];
  runs_per_file: number;
  timelines: number[];
}

declare global {
  interface Window {
    upcurveAnswer: (name: string, answer: unknown) => void;
  }
}

const arrived = new Map<string, unknown>();
window.upcurveAnswer = (name, answer) => void arrived.set(name, answer);

export const isStatic = (): boolean => document.documentElement.dataset.mode === "static";

function load<T>(name: string): Promise<T> {
  if (arrived.has(name)) return Promise.resolve(arrived.get(name) as T);
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = `data/${name.split("/").map(encodeURIComponent).join("/")}.js`;
    script.onload = () => {
      script.remove();
      resolve(arrived.get(name) as T);
    };
    script.onerror = () => {
      script.remove();
      reject(lacking("this page was exported without it"));
    };
    document.head.append(script);
  });
}

const site = (): Promise<Site> => load<Site>("site");

function lacking(problem: string) {
  const mend = "open the store with `upcurve dashboard`";
  return { error: `${problem}; ${mend}`, field: "", problem, mend };
}

const PRICES = ["price", "on", "as_hardware", "kw", "usd_per_kwh", "pue", "output_weight"];

function list(value: Params[string]): string[] {
  return Array.isArray(value) ? value : value ? [String(value)] : [];
}

/** The group that a question is about: named, or the one that holds all series asked for. */
async function groupOf(params: Params): Promise<string> {
  if (params.group) return String(params.group);
  const names = list(params.series ?? params.pattern);
  const [meta, all] = await Promise.all([load<Meta>("meta"), load<SeriesList>("series")]);
  const found = meta.groups.find(
    (group) =>
      (!params.isl || group.isl === Number(params.isl)) &&
      (!params.osl || group.osl === Number(params.osl)) &&
      names.every((name) => all.items.some((each) => each.name === name && each.groups.includes(group.id))),
  );
  if (!found) throw lacking("these series share no model and workload");
  return found.id;
}

function page<T>(items: T[], params: Params, usual: number): { total: number; offset: number; items: T[] } {
  const offset = Number(params.offset ?? 0);
  return { total: items.length, offset, items: items.slice(offset, offset + Number(params.limit ?? usual)) };
}

const has = (text: string, part: Params[string]): boolean =>
  !part || text.toLowerCase().includes(String(part).toLowerCase());

async function frontier(params: Params): Promise<Frontier> {
  const group = await groupOf(params);
  const x = String(params.x ?? "interactivity");
  const y = String(params.y ?? "total");
  if (!(await site()).frontier[x]?.includes(y)) throw lacking(`${y} against ${x} was not exported`);
  const answer = await load<Frontier>(`frontier/${group}/${x}.${y}`);
  const series = chosen(answer.series, params);
  return { ...answer, series: params.dominated ? series : series.map((each) => ({ ...each, dominated: [] })) };
}

function chosen<T extends { name: string }>(all: T[], params: Params): T[] {
  const names = list(params.series);
  if (!names.length) return all;
  return names.flatMap((name) => all.filter((each) => each.name === name));
}

async function compare(params: Params): Promise<Compare> {
  const group = await groupOf(params);
  const { baselines, grid } = await site();
  const names = list(params.series);
  // Ratios over a few series are there: unasked, over the first of them.
  const known = baselines[group] ?? [];
  const baseline = String(params.baseline || names.find((each) => known.includes(each)) || known[0] || "");
  const place = known.indexOf(baseline);
  if (place < 0) throw lacking(`ratios over ${baseline} were not exported`);
  const answer = await load<Compare>(`compare/${group}/${place}`);
  const asked = params.at ? String(params.at).split(",").map(Number) : (grid[group] ?? []);
  const off = asked.filter((each) => !answer.comparison.targets.includes(each));
  if (off.length) throw lacking(`targets of this export are ${(grid[group] ?? []).join(", ")}`);
  const at = asked.map((each) => answer.comparison.targets.indexOf(each));
  const kept = names.length && !names.includes(baseline) ? [baseline, ...names] : names;
  return {
    ...answer,
    details: chosen(answer.details, { series: kept }),
    comparison: {
      ...answer.comparison,
      targets: asked,
      series: chosen(answer.comparison.series, { series: kept }).map((each) => ({
        ...each,
        at: at.map((index) => each.at[index]!),
      })),
    },
  };
}

async function history(params: Params): Promise<History> {
  const group = await groupOf(params);
  const { metrics } = await site();
  const metric = String(params.metric ?? "tput");
  if (!metrics.includes(metric)) throw lacking(`${metric} was not exported`);
  if (params.by === "date" || params.concurrency) throw lacking("only builds at an interactivity were exported");
  const answer = await load<History>(`history/${group}/${metric}`);
  const grid = (await site()).grid[group] ?? [];
  const at = params.at ? String(params.at).split(",").map(Number) : [grid[Math.floor(grid.length / 2)]];
  const asked = at.map((each) => `${each} tok/s/user`);
  const histories: Histories["histories"] = answer.history.histories.filter((each) => asked.includes(each.at));
  if (!histories.length) throw lacking("this target was not exported");
  return { ...answer, history: { ...answer.history, histories } };
}

async function run(id: string): Promise<RunDetail> {
  const [all, { runs_per_file: size }] = await Promise.all([load<RunList>("runs"), site()]);
  const place = all.items.findIndex((each) => each.id === id);
  if (place < 0) throw lacking(`there is no run ${id}`);
  const found = (await load<Record<string, RunDetail>>(`runs/${Math.floor(place / size)}`))[id];
  if (!found) throw lacking(`there is no run ${id}`);
  return found;
}

export async function staticAnswer(path: string, params: Params): Promise<unknown> {
  const priced = PRICES.filter((name) => list(params[name]).length);
  if (priced.length || (params.tier && params.tier !== "hyperscaler")) {
    throw lacking("an export has its own prices only");
  }
  if (params.rule && params.rule !== "published") throw lacking("other rules were not exported");
  if (path === "frontier") return frontier(params);
  if (path === "compare") return compare(params);
  if (path === "history") return history(params);
  if (path === "limit") {
    const group = await groupOf(params);
    return load(`limit/${group}/${params.hardware}.${params.x ?? "interactivity"}.${params.y ?? "total"}`);
  }
  if (path === "accuracy") return load(`accuracy/${await groupOf(params)}`);
  if (path === "series") {
    const all = await load<SeriesList>("series");
    const items = all.items.filter(
      (each) => has(each.name, params.q) && (!params.group || each.groups.includes(String(params.group))),
    );
    return { ...all, ...page(items, params, 50) };
  }
  if (path === "runs") {
    const all = await load<RunList>("runs");
    const names = list(params.series);
    const items = all.items.filter(
      (each) =>
        (!names.length || names.includes(each.series)) &&
        (!params.status || each.status === params.status) &&
        [each.id, each.series, each.model, each.hardware, each.engine].some((text) => has(text, params.q)),
    );
    return { ...all, ...page(items, params, 50) };
  }
  if (path.startsWith("runs/")) return run(decodeURIComponent(path.slice(5)));
  const timeline = /^points\/(\d+)\/timeline$/.exec(path);
  if (timeline) return load(`timeline/${timeline[1]}`);
  if (path === "attribution" && params.at) throw lacking("other targets were not exported");
  return load(path);
}
