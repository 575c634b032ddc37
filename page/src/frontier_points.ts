// The points of a frontier: as places to point at, and as rows of a file.
import type { Axis, ChartPoint, ChartSeries, Frontier, Limit } from "../generated/contract";
import type { Cell } from "./chart_files";
import type { Hit } from "./drawing";
import { look, type Theme } from "./palette";
import { between, short, webLink } from "./text";

export interface Shown {
  frontier: Frontier;
  limits: Limit[];
  /** Names in the order that gives them their colours; hidden ones keep theirs. */
  order: string[];
  hidden: Set<string>;
  bands: boolean;
  changes: boolean;
  log: boolean;
  targets: number[];
  height: number;
}

/** Series whose names are written at their curves; beyond, the legend has to do. */
export const LABELLED = 8;

export const axisTitle = (axis: Axis): string => `${axis.label} (${axis.unit})`;

/** How far the chart goes where a limit, which has no end, is on it. */
export function reach(shown: Shown, series: ChartSeries[]): number {
  const all = series.flatMap((each) => each.frontier.map((point) => point.x));
  return all.length
    ? 1.6 * Math.max(...all)
    : Math.max(...shown.limits.flatMap((each) => each.points.map((point) => point.x)));
}

/** Every place of the chart that can be pointed at. */
export function frontierHits(shown: Shown, series: ChartSeries[], theme: Theme): Hit[] {
  const { frontier, order } = shown;
  const changes = shown.changes && series.length <= LABELLED;
  const right = reach(shown, series);
  return series
    .flatMap((each) => {
      const { colour } = look(order.indexOf(each.name), theme);
      return [
        ...each.frontier.map((point) => hit(frontier, each, point, colour, "")),
        ...each.dominated.map((point) => hit(frontier, each, point, theme.muted, "dominated: ")),
        ...(changes && each.marker ? [changeHit(each, theme)] : []),
      ];
    })
    .concat(shown.limits.flatMap((each) => limitHits(frontier, each, right, theme)));
}

function hit(frontier: Frontier, series: ChartSeries, point: ChartPoint, colour: string, kind: string): Hit {
  const value = (axis: Axis, at: number, interval: [number, number] | null): [string, string] => [
    axis.label,
    `${short(at)} ${axis.unit}${interval ? ` (${between(interval, short)})` : ""}`,
  ];
  return {
    id: `${point.point}`,
    x: point.x,
    y: point.y,
    colour,
    title: `${kind}${series.name}`,
    rows: [
      value(frontier.x, point.x, point.x_interval),
      value(frontier.y, point.y, point.y_interval),
      ["Layout", `${point.layout}, concurrency ${point.concurrency}`],
      ["Engine", series.engine],
      ["Hardware", series.hardware.join(" and ")],
      ["Measured", `${point.measured_on}${point.repeats > 1 ? `, ${point.repeats} repeats` : ", once"}`],
      ["Accuracy", point.accuracy_passed === null ? "not measured" : point.accuracy_passed ? "passed" : "failed"],
    ],
    links: [
      { text: "Its run", to: { view: "run", run: point.run, pin: null } },
      { text: "Its requests", to: { view: "run", run: point.run, point: point.point, pin: null } },
    ],
  };
}

function limitHits(frontier: Frontier, limit: Limit, right: number, theme: Theme): Hit[] {
  return limit.points
    .filter((each) => each.x <= right)
    .map((each) => ({
      id: `limit:${limit.hardware}:${each.gpus}:${each.batch}`,
      x: each.x,
      y: each.y,
      colour: theme.muted,
      title: `Speed of light, ${limit.hardware} ${limit.precision}`,
      rows: [
        [frontier.x.label, `${short(each.x)} ${frontier.x.unit}`],
        [frontier.y.label, `${short(each.y)} ${frontier.y.unit}`],
        ["Batch", `${each.batch} on ${each.gpus} GPU${each.gpus === 1 ? "" : "s"}`],
        ["Step", `${short(each.step_ms)} ms, bound by ${each.bound}`],
      ],
    }));
}

function changeHit(series: ChartSeries, theme: Theme): Hit {
  return {
    id: `change:${series.name}`,
    x: series.marker!.x,
    y: series.marker!.y,
    colour: theme.muted,
    title: `What came with ${series.name}`,
    rows: [["Changes", String(series.marker!.links.length)]],
    links: series.marker!.links.map((each) => ({
      text: each.text,
      url: (each.url && webLink(each.url)) ?? undefined,
    })),
  };
}

/** One row for each point: what the chart's CSV holds. */
export function frontierRows(shown: Shown): Record<string, Cell>[] {
  const { frontier } = shown;
  const [x, y] = [`${frontier.x.name} (${frontier.x.unit})`, `${frontier.y.name} (${frontier.y.unit})`];
  const limits = shown.limits.flatMap((limit) =>
    limit.points.map((point) => ({
      series: "speed of light",
      kind: point.bound,
      [x]: point.x,
      [y]: point.y,
      gpus: point.gpus,
      concurrency: point.batch,
      hardware: limit.hardware,
    })),
  );
  const measured = frontier.series
    .filter((each) => !shown.hidden.has(each.name))
    .flatMap((series) =>
      (["frontier", "dominated"] as const).flatMap((kind) =>
        series[kind].map((point) => ({
          series: series.name,
          kind,
          [x]: point.x,
          [y]: point.y,
          x_low: point.x_interval?.[0],
          x_high: point.x_interval?.[1],
          y_low: point.y_interval?.[0],
          y_high: point.y_interval?.[1],
          layout: point.layout,
          tp: point.tp,
          ep: point.ep,
          dp: point.dp,
          gpus: point.gpus,
          prefill_gpus: point.prefill_gpus,
          concurrency: point.concurrency,
          repeats: point.repeats,
          measured_on: point.measured_on,
          hardware: series.hardware.join(" "),
          engine: series.engine,
          run: point.run,
        })),
      ),
    );
  return [...measured, ...limits];
}
