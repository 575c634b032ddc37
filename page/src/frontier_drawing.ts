// The frontier of several series as marks: bands, curves, points, changes, limits, targets.
import * as Plot from "@observablehq/plot";
import type { Axis, ChartPoint, ChartSeries, Frontier, Limit } from "../generated/contract";
import type { Drawing, Hit } from "./chart";
import type { Cell } from "./chart_files";
import { look, type Theme } from "./palette";
import { between, short, tick } from "./text";
import { webLink } from "./text";

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

type Named = ChartPoint & { name: string };

/** Series whose names are written at their curves; beyond, the legend has to do. */
const LABELLED = 8;

export const axisTitle = (axis: Axis): string => `${axis.label} (${axis.unit})`;

export function frontierDrawing(shown: Shown): Drawing {
  const { frontier, order, hidden } = shown;
  const series = frontier.series.filter((each) => !hidden.has(each.name));
  const style = (name: string, theme: Theme) => look(order.indexOf(name), theme);
  return {
    options: (width, theme) => options(shown, series, width, theme),
    swatches: (theme) => series.map(({ name }) => ({ name, colour: style(name, theme).colour })),
    hits: (theme) =>
      series.flatMap((each) => [
        ...each.frontier.map((point) => hit(frontier, each, point, style(each.name, theme).colour, "")),
        ...each.dominated.map((point) => hit(frontier, each, point, theme.muted, "dominated: ")),
        ...(shown.changes && series.length <= LABELLED && each.marker ? [changeHit(each, theme)] : []),
      ]),
  };
}

function options(shown: Shown, series: ChartSeries[], width: number, theme: Theme): Plot.PlotOptions {
  const { frontier, order } = shown;
  const style = new Map(series.map((each) => [each.name, look(order.indexOf(each.name), theme)]));
  const of = (name: string) => style.get(name)!;
  const bands = shown.bands ? series.filter((each) => each.band) : [];
  const points: Named[] = series.flatMap(({ name, frontier: own }) => own.map((point) => ({ name, ...point })));
  const dominated: Named[] = series.flatMap(({ name, dominated: own }) => own.map((point) => ({ name, ...point })));
  const marked = shown.changes && series.length <= LABELLED ? series.filter((each) => each.marker) : [];
  const labelled = series.length <= LABELLED ? series.filter((each) => each.frontier.length) : [];
  const narrow = width < 520;
  const limits = shown.limits.filter((each) => each.points.length);
  return {
    height: narrow ? Math.min(shown.height, 340) : shown.height,
    marginLeft: 52,
    marginRight: narrow ? 14 : 24,
    marginTop: 30,
    marginBottom: 40,
    insetTop: 12,
    x: axis(frontier.x, shown.log && frontier.x.name !== "interactivity", narrow ? 60 : 90),
    y: axis(frontier.y, shown.log, 60),
    color: { type: "identity" },
    symbol: { type: "identity" },
    marks: [
      Plot.gridX({ stroke: theme.text, strokeOpacity: 0.08 }),
      Plot.gridY({ stroke: theme.text, strokeOpacity: 0.08 }),
      Plot.ruleX(shown.targets, { stroke: theme.muted, strokeOpacity: 0.55, strokeDasharray: "2,4" }),
      Plot.text(shown.targets, { x: (d: number) => d, text: (d: number) => short(d), frameAnchor: "top", dy: -11, fill: theme.muted, fontSize: 10.5 }),
      ...bands.map((each) =>
        Plot.areaY(each.band!.x, {
          x: (_: number, index: number) => each.band!.x[index],
          y1: (_: number, index: number) => each.band!.low[index],
          y2: (_: number, index: number) => each.band!.high[index],
          fill: of(each.name).colour,
          fillOpacity: 0.16,
        }),
      ),
      ...limits.flatMap((each, index) => [
        Plot.line(each.points, { x: "x", y: "y", stroke: theme.muted, strokeWidth: 1.5, strokeDasharray: ["6,4", "2,3", "9,3,2,3"][index % 3] }),
        Plot.text(each.points.slice(-1), { x: "x", y: "y", text: () => `speed of light, ${each.hardware}`, fill: theme.muted, textAnchor: "end", dx: -6, dy: -8 }),
      ]),
      ...series.map((each) =>
        Plot.line(each.curve.x, {
          x: (_: number, index: number) => each.curve.x[index],
          y: (_: number, index: number) => each.curve.y[index],
          stroke: of(each.name).colour,
          strokeWidth: 2.25,
          strokeDasharray: of(each.name).dash,
        }),
      ),
      Plot.dot(dominated, { x: "x", y: "y", stroke: (d: Named) => of(d.name).colour, symbol: (d: Named) => of(d.name).symbol, r: 3, strokeOpacity: 0.6, strokeWidth: 1.2 }),
      ...(shown.bands
        ? [
            Plot.ruleX(points.filter((d) => d.y_interval), { x: "x", y1: (d: Named) => d.y_interval![0], y2: (d: Named) => d.y_interval![1], stroke: (d: Named) => of(d.name).colour, strokeWidth: 1.2 }),
            Plot.ruleY(points.filter((d) => d.x_interval), { y: "y", x1: (d: Named) => d.x_interval![0], x2: (d: Named) => d.x_interval![1], stroke: (d: Named) => of(d.name).colour, strokeWidth: 1.2 }),
          ]
        : []),
      Plot.dot(points, { x: "x", y: "y", fill: (d: Named) => of(d.name).colour, stroke: theme.background, strokeWidth: 0.8, symbol: (d: Named) => of(d.name).symbol, r: 4.2 }),
      Plot.text(labelled, {
        x: (d: ChartSeries) => top(d).x,
        y: (d: ChartSeries) => top(d).y,
        text: "name",
        fill: (d: ChartSeries) => of(d.name).colour,
        stroke: theme.background,
        strokeWidth: 3,
        fontWeight: 600,
        textAnchor: "start",
        dx: 9,
        dy: -7,
        textOverflow: "ellipsis",
        lineWidth: narrow ? 8 : 16,
      }),
      Plot.text(marked, { x: (d: ChartSeries) => d.marker!.x, y: (d: ChartSeries) => d.marker!.y, text: () => "▼", fill: (d: ChartSeries) => of(d.name).colour, dy: -13, fontSize: 9 }),
    ],
  };
}

/** The point of a curve that is highest: beside it its name is written. */
function top(series: ChartSeries): ChartPoint {
  return series.frontier.reduce((best, each) => (each.y > best.y ? each : best));
}

function axis(of: Axis, log: boolean, tickSpacing: number): Plot.ScaleOptions {
  return {
    label: axisTitle(of),
    type: log ? "log" : "linear",
    zero: !log,
    nice: true,
    tickFormat: (value: number) => tick(value),
    tickSpacing,
    labelOffset: 36,
  } as Plot.ScaleOptions;
}

function hit(frontier: Frontier, series: ChartSeries, point: ChartPoint, colour: string, kind: string): Hit {
  const value = (axis: Axis, at: number, interval: [number, number] | null): [string, string] => [
    axis.label,
    `${short(at)} ${axis.unit}${interval ? ` (${between(interval, short)})` : ""}`,
  ];
  const layout = point.gpus === point.tp ? `TP${point.tp}` : `TP${point.tp} on ${point.gpus} GPUs`;
  return {
    id: `${point.point}`,
    x: point.x,
    y: point.y,
    colour,
    title: `${kind}${series.name}`,
    rows: [
      value(frontier.x, point.x, point.x_interval),
      value(frontier.y, point.y, point.y_interval),
      ["Layout", `${layout}, concurrency ${point.concurrency}`],
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
  return frontier.series
    .filter((each) => !shown.hidden.has(each.name))
    .flatMap((series) =>
      (["frontier", "dominated"] as const).flatMap((kind) =>
        series[kind].map((point) => ({
          series: series.name,
          kind,
          [`${frontier.x.name} (${frontier.x.unit})`]: point.x,
          [`${frontier.y.name} (${frontier.y.unit})`]: point.y,
          x_low: point.x_interval?.[0],
          x_high: point.x_interval?.[1],
          y_low: point.y_interval?.[0],
          y_high: point.y_interval?.[1],
          tp: point.tp,
          gpus: point.gpus,
          concurrency: point.concurrency,
          repeats: point.repeats,
          measured_on: point.measured_on,
          hardware: series.hardware.join(" "),
          engine: series.engine,
          run: point.run,
        })),
      ),
    );
}
