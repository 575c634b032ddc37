// The frontier of several series as marks: bands, curves, points, changes, limits, targets.
import * as Plot from "@observablehq/plot";
import type { Axis, ChartPoint, ChartSeries, Limit } from "../generated/contract";
import type { Drawing } from "./drawing";
import { axisTitle, frontierHits, LABELLED, reach, type Shown } from "./frontier_points";
import { look, type Theme } from "./palette";
import { short, tick } from "./text";

type Named = ChartPoint & { name: string };

export function frontierDrawing(shown: Shown): Drawing {
  const series = shown.frontier.series.filter((each) => !shown.hidden.has(each.name));
  return {
    options: (width, theme) => options(shown, series, width, theme),
    swatches: (theme) => series.map(({ name }) => ({ name, colour: look(shown.order.indexOf(name), theme).colour })),
    hits: (theme) => frontierHits(shown, series, theme),
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
  const narrow = width < 520;
  const limits = shown.limits.filter((each) => each.points.length);
  const right = reach(shown, series);
  const widest = Math.max(...points.map((each) => each.x));
  const within = (each: Limit) => each.points.filter((point) => point.x <= right);
  const heights = [...points, ...dominated, ...limits.flatMap(within)].map((each) => each.y).filter((each) => each > 0);
  const log = shown.log && heights.length > 0;
  const ticks = log ? decades(heights) : [];
  const labelled =
    series.length <= LABELLED
      ? apart(
          series.filter((each) => each.frontier.length),
          shown.log,
          heights,
        )
      : [];
  return {
    height: narrow ? Math.min(shown.height, 340) : shown.height,
    marginLeft: 52,
    marginRight: narrow ? 14 : 24,
    marginTop: 30,
    marginBottom: 40,
    insetTop: 12,
    x: {
      ...axis(frontier.x, shown.log && frontier.x.name !== "interactivity", narrow ? 60 : 90),
      ...(limits.length && !(shown.log && frontier.x.name !== "interactivity") ? { domain: [0, right] } : {}),
    },
    y: {
      ...axis(frontier.y, shown.log, 60),
      ...(log ? { domain: [ticks[0]!, ticks.at(-1)!], ticks, axis: null, nice: false } : {}),
    },
    color: { type: "identity" },
    symbol: { type: "identity" },
    marks: [
      // Plot labels a logarithmic axis at some of its ticks only.
      Plot.text(ticks, {
        y: (d: number) => d,
        text: (d: number) => tick(d),
        frameAnchor: "left",
        textAnchor: "end",
        dx: -8,
      }),
      Plot.text(log ? [axisTitle(frontier.y)] : [], {
        text: (d: string) => `↑ ${d}`,
        frameAnchor: "top-left",
        textAnchor: "start",
        dx: -36,
        dy: -24,
      }),
      Plot.ruleX(shown.targets, { stroke: theme.muted, strokeOpacity: 0.55, strokeDasharray: "2,4" }),
      Plot.text(shown.targets, {
        x: (d: number) => d,
        text: (d: number) => short(d),
        frameAnchor: "top",
        dy: -11,
        fill: theme.muted,
        fontSize: 10.5,
      }),
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
        Plot.line(within(each), {
          x: "x",
          y: "y",
          stroke: theme.muted,
          strokeWidth: 1.5,
          strokeDasharray: ["6,4", "2,3", "9,3,2,3"][index % 3],
        }),
        Plot.text(within(each).slice(0, 1), {
          x: "x",
          y: "y",
          text: () => `speed of light, ${each.hardware}`,
          fill: theme.muted,
          textAnchor: "start",
          dy: -10,
        }),
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
      Plot.dot(dominated, {
        x: "x",
        y: "y",
        stroke: (d: Named) => of(d.name).colour,
        symbol: (d: Named) => of(d.name).symbol,
        r: 3,
        strokeOpacity: 0.6,
        strokeWidth: 1.2,
      }),
      ...(shown.bands
        ? [
            Plot.ruleX(
              points.filter((d) => d.y_interval),
              {
                x: "x",
                y1: (d: Named) => d.y_interval![0],
                y2: (d: Named) => d.y_interval![1],
                stroke: (d: Named) => of(d.name).colour,
                strokeWidth: 1.2,
              },
            ),
            Plot.ruleY(
              points.filter((d) => d.x_interval),
              {
                y: "y",
                x1: (d: Named) => d.x_interval![0],
                x2: (d: Named) => d.x_interval![1],
                stroke: (d: Named) => of(d.name).colour,
                strokeWidth: 1.2,
              },
            ),
          ]
        : []),
      Plot.dot(points, {
        x: "x",
        y: "y",
        fill: (d: Named) => of(d.name).colour,
        stroke: theme.background,
        strokeWidth: 0.8,
        symbol: (d: Named) => of(d.name).symbol,
        r: 4.2,
      }),
      ...(["start", "end"] as const).map((textAnchor) =>
        Plot.text(
          labelled.filter((each) => (top(each).x > 0.6 * widest ? "end" : "start") === textAnchor),
          {
            x: (d: ChartSeries) => top(d).x,
            y: (d: ChartSeries) => top(d).y,
            text: "name",
            fill: (d: ChartSeries) => of(d.name).colour,
            stroke: theme.background,
            strokeWidth: 3,
            fontWeight: 600,
            textAnchor,
            dx: textAnchor === "start" ? 9 : -9,
            dy: -7,
            textOverflow: "ellipsis",
            lineWidth: narrow ? 8 : 16,
          },
        ),
      ),
      Plot.text(
        points.filter((each) => each.accuracy_passed === false),
        {
          x: "x",
          y: "y",
          text: () => "✗",
          fill: theme.bad,
          stroke: theme.background,
          strokeWidth: 2,
          fontWeight: 700,
          dx: 8,
          dy: 7,
        },
      ),
      Plot.text(marked, {
        x: (d: ChartSeries) => d.marker!.x,
        y: (d: ChartSeries) => d.marker!.y,
        text: () => "▼",
        fill: (d: ChartSeries) => of(d.name).colour,
        dy: -13,
        fontSize: 9,
      }),
    ],
  };
}

/** Ticks of a logarithmic axis: 1, 2 and 5 times each power of ten, around all values. */
function decades(values: number[]): number[] {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const powers = Array.from({ length: 24 }, (_, index) => 10 ** (index - 10));
  const all = powers.flatMap((power) => [1, 2, 5].map((each) => Number((each * power).toPrecision(1))));
  const first = all.findLastIndex((each) => each <= low);
  const last = all.findIndex((each) => each >= high);
  return all.slice(first, last + 1);
}

/** Series whose names do not fall on one another, where the axis of `y` goes over some values. */
function apart(series: ChartSeries[], log: boolean, values: number[]): ChartSeries[] {
  const wide = Math.max(...series.map((each) => top(each).x));
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const far = (a: number, b: number) =>
    log ? Math.abs(Math.log(a / b)) / Math.log(high / low) : Math.abs(a - b) / high;
  const kept: ChartSeries[] = [];
  for (const each of series) {
    const [x, y] = [top(each).x, top(each).y];
    const free = kept.every((one) => far(top(one).y, y) > 0.05 || Math.abs(top(one).x - x) > 0.4 * wide);
    if (free) kept.push(each);
  }
  return kept;
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
    grid: true,
    tickFormat: (value: number) => tick(value),
    tickSpacing,
    labelOffset: 36,
  } as Plot.ScaleOptions;
}
