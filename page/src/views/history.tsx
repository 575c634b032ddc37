// A metric over builds: change points, alerts, what came between.
import * as Plot from "@observablehq/plot";
import { useMemo } from "preact/hooks";
import type { ChangePoint, History, Metric, OneHistory } from "../../generated/contract";
import { useAnswer } from "../answers";
import { Chart, ReferenceLink, type Drawing } from "../chart";
import type { Theme } from "../palette";
import { Input, left, Scroll, Select, Toggle, Waiting, type ViewProps } from "../parts";
import { Prices } from "../prices";
import { GroupSelect, useSelection } from "../selection";
import { isStatic } from "../site";
import { between, changeText, day, measured, numbers, percent, short, tick, webLink, words } from "../text";
import { embedded, useQuery } from "../url";

const USUAL_AT = "40";

const NAMES: Record<string, string> = {
  tput: "Throughput per GPU",
  interactivity: "Interactivity",
  ttft_ms: "Median TTFT",
  tpot_ms: "Median TPOT",
  usd_per_million: "Cost",
  joules_per_token: "Energy",
};
const metricName = (name: string): string => NAMES[name] ?? words(name);

export function HistoryView({ meta }: ViewProps) {
  const query = useQuery();
  const selection = useSelection(meta);
  const name = query.get("metric") ?? "tput";
  const metric = meta.metrics.find((each) => each.name === name);
  const concurrency = query.get("concurrency");
  const prices = query.getAll("price")[0]?.split("=").at(-1);
  const answered = useAnswer<History>("history", {
    ...(selection.names.length ? { pattern: selection.names, join: true } : { group: selection.group?.id }),
    metric: query.get("metric"),
    by: query.get("by"),
    at: concurrency ? null : (query.get("at") ?? (isStatic() ? null : USUAL_AT)),
    concurrency,
    price: name === "usd_per_million" ? prices : null,
    tier: query.get("tier"),
    isl: query.get("isl"),
    osl: query.get("osl"),
  });
  return (
    <>
      {!embedded() && (
        <div class="bar">
          <GroupSelect meta={meta} />
          <Select label="Metric" name="metric" value={name} usual="tput" options={meta.metrics.map((each) => [each.name, `${metricName(each.name)} (${each.unit})`])} />
          <Input label="At tok/s/user" name="at" size={12} value={query.get("at") ?? ""} placeholder={isStatic() ? "" : USUAL_AT} read={(text) => numbers(text).join(",") || null} also={{ concurrency: null }} />
          {!isStatic() && (
            <>
              <Input label="Or at concurrency" name="concurrency" size={6} value={concurrency ?? ""} placeholder="32" />
              <Select label="One value a" name="by" value={query.get("by") ?? "build"} usual="build" options={[["build", "build"], ["date", "day"]]} />
            </>
          )}
          <div class="toggles"><Toggle label="From zero" name="zero" /></div>
        </div>
      )}
      {!embedded() && name === "usd_per_million" && <Prices meta={meta} />}
      <Waiting on={answered}>
        {({ history, left_off, notes }) => (
          <>
            {history.histories.map((each, index) => (
              <One of={each} metric={metric} unit={history.unit} name={`history-${index + 1}`} source={`Source: ${meta.store}, upcurve ${meta.version}.`} />
            ))}
            {history.histories.length === 0 && <p class="muted">No builds.</p>}
            <ul class="notes">{[...notes, left(left_off, "histories")].filter(Boolean).map((each) => <li>{each}</li>)}</ul>
          </>
        )}
      </Waiting>
    </>
  );
}

const STATE: Record<OneHistory["state"], [string, string]> = {
  regression: ["bad", "▼ regression"],
  improvement: ["good", "▲ improvement"],
  "no change": ["muted", "≈ no change"],
  "insufficient data": ["muted", "insufficient data"],
};

interface Props {
  of: OneHistory;
  metric: Metric | undefined;
  unit: string;
  name: string;
  source: string;
}

function One({ of, metric, unit, name, source }: Props) {
  const query = useQuery();
  const zero = query.get("zero") === "1";
  const label = metricName(metric?.name ?? "value");
  const drawing = useMemo(() => historyDrawing(of, label, unit, zero), [of, label, unit, zero]);
  if (embedded() && query.has("chart") && query.get("chart") !== name) return null;
  const [kind, state] = STATE[of.state];
  const notes = [
    of.reason.replace(/\.?$/, "."),
    ...of.notes,
    of.price ? `Price of all builds: ${of.price}.` : "",
    of.noise !== null ? `Noise of one build: ${percent(of.noise).slice(1)}.` : "",
    measured(of.builds.map((each) => each.first_measured_at)),
    source,
  ].filter(Boolean);
  return (
    <section>
      <Chart
        name={name}
        title={`${label} at ${of.at}: ${of.history}`}
        drawing={drawing}
        notes={notes}
        rows={of.builds.map((each) => ({
          build: each.build,
          first_measured_at: each.first_measured_at,
          value: each.value,
          unit,
          low: each.interval?.[0],
          high: each.interval?.[1],
          rounds: each.rounds,
          status: each.status,
          stray: each.stray,
        }))}
      >
        <p class={`state ${kind}`}>{state}</p>
      </Chart>
      {!embedded() && <Between of={of} />}
    </section>
  );
}

function historyDrawing(of: OneHistory, name: string, unit: string, zero: boolean): Drawing {
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
        x: { domain: [-0.5, builds.length - 0.5], label: null, ticks: builds.filter((each) => each.index % every === 0).map((each) => each.index), tickFormat: (index: number) => shortened(builds[index]?.build ?? "") },
        y: { zero, nice: true, insetTop: 14, insetBottom: zero ? 0 : 14, label: `${name} (${unit})`, tickFormat: (value: number) => tick(value), tickSpacing: 50, labelOffset: 36 },
        color: { type: "identity" },
        marks: [
          Plot.gridY({ stroke: theme.text, strokeOpacity: 0.08 }),
          Plot.ruleX(changes, { x: (d) => d.index - 0.5, stroke: (d) => (better(d) ? theme.good : theme.bad), strokeDasharray: "4,3" }),
          Plot.text(changes, { x: (d) => d.index - 0.5, text: (d) => `${better(d) ? "▲" : "▼"} ${percent(d.ratio - 1)}`, fill: (d) => (better(d) ? theme.good : theme.bad), frameAnchor: "top", dy: -14, textAnchor: "middle", fontWeight: 600 }),
          Plot.link(levels, { x1: (d) => d.from - 0.4, x2: (d) => d.to + 0.4, y1: "value", y2: "value", stroke: theme.muted, strokeWidth: 5, strokeOpacity: 0.28 }),
          Plot.line(known.filter((each) => !each.stray), { x: "index", y: "value", stroke: theme.series[0], strokeWidth: 1.5, strokeOpacity: 0.6 }),
          Plot.ruleX(known.filter((each) => each.interval), { x: "index", y1: (d) => d.interval[0], y2: (d) => d.interval[1], stroke: (d) => colour(d, theme), strokeWidth: 1.5 }),
          Plot.dot(known, { x: "index", y: "value", fill: (d) => (d.stray ? theme.background : theme.series[0]), stroke: (d) => colour(d, theme), r: 4 }),
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
          { text: "Its frontier", to: { view: "frontier", series: each.series, group: null, isl: of.isl, osl: of.osl, pin: null } },
          ...each.changes.map((text) => ({ text: changeText(text), url: webLink(text) ?? undefined })),
        ],
      })),
  };
}

const shortened = (label: string): string => (label.length > 14 ? `${label.slice(0, 13)}…` : label);

/** What came between builds: at the change points, or everywhere where there are none. */
function Between({ of }: { of: OneHistory }) {
  const told = of.change_points.length
    ? of.change_points.map((each) => ({ before: each.after_build, after: each.build, point: each as ChangePoint | null, changes: each.changes, differences: each.differences }))
    : of.builds.slice(1).map((each, index) => ({ before: of.builds[index]!.build, after: each.build, point: null, changes: each.changes, differences: each.differences }));
  const useful = told.filter((each) => each.point || each.changes.length || each.differences.length);
  if (!useful.length) return null;
  return (
    <details class="more" open={of.change_points.length > 0 || of.builds.length <= 6}>
      <summary>{of.change_points.length ? "Change points" : "What came between builds"}</summary>
      <Scroll label={`Changes of ${of.history} at ${of.at}`}>
        <table>
          <thead><tr><th>From</th><th>To</th><th class="n">Change</th><th class="n">95 % interval</th><th class="n">p</th><th>What came with it</th></tr></thead>
          <tbody>
            {useful.map(({ before, after, point, changes, differences }) => (
              <tr>
                <td>{before}</td>
                <td>{after}</td>
                <td class={`n ${point ? (point.direction === "improvement" ? "good" : "bad") : ""}`}>{point ? percent(point.ratio - 1) : "—"}</td>
                <td class="n">{point ? between(point.interval, (it) => percent(it - 1)) : "—"}</td>
                <td class="n">{point ? (point.p_value < 0.001 ? "< 0.001" : point.p_value.toFixed(3)) : "—"}</td>
                <td class="wide">
                  <ul>
                    {changes.map((text) => <li><ReferenceLink of={{ text: changeText(text), url: webLink(text) ?? undefined }} /></li>)}
                    {differences.map((text) => <li class="muted">{text}</li>)}
                    {!changes.length && !differences.length && <li class="muted">nothing recorded differs</li>}
                  </ul>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </details>
  );
}
