// A history as marks: values with intervals, levels, change points.
import * as Plot from "@observablehq/plot";
import type { ChangePoint, OneHistory } from "../generated/contract";
import type { Drawing } from "./drawing";
import type { Theme } from "./palette";
import { between, changeText, day, percent, short, tick, webLink, words } from "./text";

export function historyDrawing(of: OneHistory, name: string, unit: string, zero: boolean): Drawing {
  const builds = of.builds.map((each, index) => ({ ...each, index }));
  const known = builds.filter((each) => each.value !== null);
  const place = new Map(of.builds.map((each, index) => [each.build, index]));
  const better = (point: ChangePoint) => point.direction === "improvement";
  const colour = (each: { stray: boolean }, theme: Theme) => (each.stray ? theme.muted : theme.series[0]!);
  return {
    options: (width, theme) => {
      const every = Math.max(1, Math.ceil(builds.length / Math.max(1, Math.floor((width - 70) / 112))));
      const changes = of.change_points.map((each) => ({ ...each, index: place.get(each.build) ?? 0 }));
      const edges = [0, ...changes.map((each) => each.index), builds.length];
      const levels = changes.flatMap((each, index) => [
        ...(index === 0 ? [{ from: 0, to: each.index - 1, value: each.before }] : []),
        { from: each.index, to: edges[index + 2]! - 1, value: each.after },
      ]);
      return {
        height: 280,
        marginLeft: 52,
        marginRight: 24,
        marginTop: 32,
        marginBottom: 34,
        x: {
          domain: [-0.5, builds.length - 0.5],
          label: null,
          ticks: builds.filter((each) => each.index % every === 0).map((each) => each.index),
          tickFormat: (index: number) => shortened(builds[index]?.build ?? ""),
        },
        y: {
          zero,
          nice: true,
          insetTop: 14,
          insetBottom: zero ? 0 : 14,
          label: `${name} (${unit})`,
          tickFormat: (value: number) => tick(value),
          tickSpacing: 50,
          labelOffset: 36,
        },
        color: { type: "identity" },
        marks: [
          Plot.gridY({ stroke: theme.text, strokeOpacity: 0.08 }),
          Plot.ruleX(changes, {
            x: (d) => d.index - 0.5,
            stroke: (d) => (better(d) ? theme.good : theme.bad),
            strokeDasharray: "4,3",
          }),
          Plot.text(changes, {
            x: (d) => d.index - 0.5,
            text: (d) => `${better(d) ? "▲" : "▼"} ${percent(d.ratio - 1)}`,
            fill: (d) => (better(d) ? theme.good : theme.bad),
            frameAnchor: "top",
            dy: -14,
            textAnchor: "middle",
            fontWeight: 600,
          }),
          Plot.link(levels, {
            x1: (d) => d.from - 0.4,
            x2: (d) => d.to + 0.4,
            y1: "value",
            y2: "value",
            stroke: theme.muted,
            strokeWidth: 5,
            strokeOpacity: 0.28,
          }),
          Plot.line(
            known.filter((each) => !each.stray),
            { x: "index", y: "value", stroke: theme.series[0], strokeWidth: 1.5, strokeOpacity: 0.6 },
          ),
          Plot.ruleX(
            known.filter((each) => each.interval),
            {
              x: "index",
              y1: (d) => d.interval[0],
              y2: (d) => d.interval[1],
              stroke: (d) => colour(d, theme),
              strokeWidth: 1.5,
            },
          ),
          Plot.dot(known, {
            x: "index",
            y: "value",
            fill: (d) => (d.stray ? theme.background : theme.series[0]),
            stroke: (d) => colour(d, theme),
            r: 4,
          }),
        ],
      };
    },
    hits: (theme) =>
      known.map((each) => ({
        id: `${of.at}:${each.build}`,
        x: each.index,
        y: each.value!,
        colour: theme.series[0]!,
        title: each.build,
        rows: [
          [name, `${short(each.value!)} ${unit}`],
          ["95 % interval", each.interval ? between(each.interval, short) : "none"],
          ["First measured", day(each.first_measured_at)],
          ["Rounds", String(each.rounds)],
          ["Status", words(each.status) + (each.stray ? ", stray" : "")],
        ],
        links: [
          {
            text: "Its frontier",
            to: { view: "frontier", series: each.series, group: null, isl: of.isl, osl: of.osl, pin: null },
          },
          ...each.changes.map((text) => ({ text: changeText(text), url: webLink(text) ?? undefined })),
        ],
      })),
  };
}

const shortened = (label: string): string => (label.length > 14 ? `${label.slice(0, 13)}…` : label);
