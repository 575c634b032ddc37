// The requests of one point in time: queue, prefill, decode; and what the server said beside them.
import * as Plot from "@observablehq/plot";
import { useMemo } from "preact/hooks";
import type { Request, Timeline } from "../../generated/contract";
import { useAnswer } from "../answers";
import { Chart } from "../chart";
import type { Drawing } from "../drawing";
import type { Theme } from "../palette";
import { Paging, Waiting, type ViewProps } from "../parts";
import { ms, short } from "../text";
import { embedded, useQuery } from "../url";

const SIZE = 500;

export function TimelineOf({ point, meta }: { point: number } & ViewProps) {
  const query = useQuery();
  const answered = useAnswer<Timeline>(`points/${point}/timeline`, { offset: query.get("offset"), limit: SIZE });
  return <Waiting on={answered}>{(timeline) => <Drawn of={timeline} meta={meta} />}</Waiting>;
}

function Drawn({ of, meta }: { of: Timeline } & ViewProps) {
  const requests = useMemo(() => requestsDrawing(of.requests), [of]);
  const load = useMemo(() => of.load && loadDrawing(of.load), [of]);
  const chart = useQuery().get("chart");
  const failed = of.requests.filter((each) => each.failure).length;
  const { point } = of;
  const at = `concurrency ${point.concurrency}, ${point.layout}, ${point.isl.toLocaleString("en-US")} in / ${point.osl.toLocaleString("en-US")} out`;
  const source = `Source: ${meta.store}, run ${of.run}, ${at}, ${point.measured_at.slice(0, 10)}.`;
  const shown = (name: string) => !embedded() || !chart || chart === name;
  return (
    <>
      {shown("requests") && (
        <Chart
          name="requests"
          title={`Requests of ${of.series} at concurrency ${point.concurrency}`}
          drawing={requests}
          notes={[
            "Queue: due to sent, in the client. Prefill: sent to first token, the server's own queue included. Decode: first to last token.",
            failed ? `${failed} of these requests failed.` : "",
            source,
          ].filter(Boolean)}
          rows={of.requests.map((each) => ({ ...each }))}
          legend
        />
      )}
      {of.load && load && shown("load") && (
        <Chart
          name="load"
          title="Requests inside the server, as it reports them"
          drawing={load}
          notes={[source]}
          rows={of.load.at.map((time, index) => ({
            ms: time,
            running: of.load!.running[index],
            waiting: of.load!.waiting[index],
          }))}
        />
      )}
      {!embedded() && <Paging total={of.total} offset={of.offset} size={SIZE} />}
    </>
  );
}

const PHASES = ["queue", "prefill", "decode"] as const;
type Phase = (typeof PHASES)[number];

function colour(phase: Phase, theme: Theme): string {
  return { queue: theme.muted, prefill: theme.series[4]!, decode: theme.series[0]! }[phase];
}

function parts(
  request: Request,
  row: number,
): { row: number; phase: Phase; from: number; to: number; warm: boolean }[] {
  const first = request.first ?? request.ended;
  const all: [Phase, number, number][] = [
    ["queue", request.scheduled, request.sent],
    ["prefill", request.sent, first],
    ["decode", first, request.last ?? request.ended],
  ];
  return all
    .filter(([, from, to]) => to > from)
    .map(([phase, from, to]) => ({ row, phase, from, to, warm: request.warm_up }));
}

function requestsDrawing(requests: Request[]): Drawing {
  const bars = requests.flatMap(parts);
  const failures = requests.flatMap((each, row) => (each.failure ? [{ row, at: each.ended }] : []));
  return {
    swatches: (theme) => PHASES.map((name) => ({ name, colour: colour(name, theme) })),
    options: (_, theme) => ({
      height: Math.min(560, Math.max(140, 70 + 9 * requests.length)),
      marginLeft: 52,
      marginRight: 16,
      marginTop: 22,
      marginBottom: 40,
      x: { label: "Time from the first request (ms)", tickFormat: (value: number) => short(value), labelOffset: 36 },
      y: { label: "Request, in the order sent", domain: [requests.length, 0], ticks: 5, labelOffset: 36 },
      color: { type: "identity" },
      marks: [
        Plot.gridX({ stroke: theme.text, strokeOpacity: 0.08 }),
        Plot.rect(bars, {
          x1: "from",
          x2: "to",
          y1: (d) => d.row + 0.12,
          y2: (d) => d.row + 0.88,
          fill: (d) => colour(d.phase, theme),
          fillOpacity: (d) => (d.warm ? 0.35 : 0.9),
        }),
        Plot.text(failures, { x: "at", y: (d) => d.row + 0.5, text: () => "✗", fill: theme.bad, dx: 6 }),
      ],
    }),
    hits: (theme) =>
      requests.map((each, row) => ({
        id: `request:${each.index}:${each.stream}`,
        x: each.first ?? each.ended,
        y: row + 0.5,
        colour: colour("decode", theme),
        title: `Request ${row + 1}${each.warm_up ? ", warm-up" : ""}`,
        rows: [
          ["Queue", ms(Math.max(0, each.sent - each.scheduled))],
          ["Prefill", each.first === null ? "no token" : ms(each.first - each.sent)],
          ["Decode", each.first === null || each.last === null ? "—" : ms(each.last - each.first)],
          ["Tokens", `${each.input_tokens ?? "?"} in, ${each.output_tokens ?? "?"} out`],
          ["Stream", String(each.stream)],
          ...(each.failure ? [["Failure", each.failure] as [string, string]] : []),
        ],
      })),
  };
}

function loadDrawing(load: NonNullable<Timeline["load"]>): Drawing {
  const lines = (["running", "waiting"] as const).map((name) => ({
    name,
    values: load.at.flatMap((at, index) => (load[name][index] === null ? [] : [{ at, value: load[name][index]! }])),
  }));
  return {
    swatches: (theme) => lines.map(({ name }, index) => ({ name, colour: theme.series[index]! })),
    options: (_, theme) => ({
      height: 200,
      marginLeft: 52,
      marginRight: 60,
      marginTop: 22,
      marginBottom: 40,
      x: { label: "Time from the first request (ms)", tickFormat: (value: number) => short(value), labelOffset: 36 },
      y: { label: "Requests", zero: true, nice: true, ticks: 4, labelOffset: 36 },
      marks: [
        Plot.gridY({ stroke: theme.text, strokeOpacity: 0.08 }),
        ...lines.flatMap(({ name, values }, index) => [
          Plot.line(values, {
            x: "at",
            y: "value",
            stroke: theme.series[index],
            strokeWidth: 1.75,
            strokeDasharray: index ? "5,3" : undefined,
            curve: "step-after",
          }),
          Plot.text(values.slice(-1), {
            x: "at",
            y: "value",
            text: () => name,
            fill: theme.series[index],
            textAnchor: "start",
            dx: 6,
          }),
        ]),
      ],
    }),
    hits: (theme) =>
      lines.flatMap(({ name, values }, index) =>
        values.map((each) => ({
          id: `${name}:${each.at}`,
          x: each.at,
          y: each.value,
          colour: theme.series[index]!,
          title: name,
          rows: [
            ["At", ms(each.at)],
            ["Requests", short(each.value)],
          ],
        })),
      ),
  };
}
