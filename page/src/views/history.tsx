// A metric over builds: change points, alerts, what came between.
import { useMemo } from "preact/hooks";
import type { ChangePoint, History, Metric, OneHistory } from "../../generated/contract";
import { useAnswer } from "../answers";
import { Chart } from "../chart";
import { historyDrawing } from "../history_drawing";
import { ReferenceLink } from "../links";
import { Input, left, Scroll, Select, Toggle, Waiting, type ViewProps } from "../parts";
import { Prices } from "../prices";
import { GroupSelect, useSelection } from "../selection";
import { isStatic } from "../site";
import { between, changeText, measured, numbers, percent, webLink, words } from "../text";
import { embedded, useQuery } from "../url";

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
    at: concurrency ? null : query.get("at"),
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
          <Select
            label="Metric"
            name="metric"
            value={name}
            usual="tput"
            options={meta.metrics.map((each) => [each.name, `${metricName(each.name)} (${each.unit})`])}
          />
          <Input
            label="At tok/s/user"
            name="at"
            size={12}
            value={query.get("at") ?? ""}
            placeholder={isStatic() ? "" : "most builds"}
            read={(text) => numbers(text).join(",") || null}
            also={{ concurrency: null }}
          />
          {!isStatic() && (
            <>
              <Input label="Or at concurrency" name="concurrency" size={6} value={concurrency ?? ""} placeholder="32" />
              <Select
                label="One value a"
                name="by"
                value={query.get("by") ?? "build"}
                usual="build"
                options={[
                  ["build", "build"],
                  ["date", "day"],
                ]}
              />
            </>
          )}
          <div class="toggles">
            <Toggle label="From zero" name="zero" />
          </div>
        </div>
      )}
      {!embedded() && name === "usd_per_million" && <Prices meta={meta} />}
      <Waiting on={answered}>
        {({ history, left_off, notes }) => (
          <>
            {history.histories.map((each, index) => (
              <One
                of={each}
                metric={metric}
                unit={history.unit}
                name={`history-${index + 1}`}
                source={`Source: ${meta.store}, upcurve ${meta.version}.`}
              />
            ))}
            {history.histories.length === 0 && <p class="muted">No builds.</p>}
            <ul class="notes">
              {[...notes, left(left_off, "histories")].filter(Boolean).map((each) => (
                <li>{each}</li>
              ))}
            </ul>
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
  if (of.builds.every((each) => each.value === null)) {
    return (
      <p class="warning">
        No build of {of.history} has a value at {of.at}: choose another.
      </p>
    );
  }
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

/** What came between builds: at the change points, or everywhere where there are none. */
function Between({ of }: { of: OneHistory }) {
  const told = of.change_points.length
    ? of.change_points.map((each) => ({
        before: each.after_build,
        after: each.build,
        point: each as ChangePoint | null,
        changes: each.changes,
        differences: each.differences,
      }))
    : of.builds.slice(1).map((each, index) => ({
        before: of.builds[index]!.build,
        after: each.build,
        point: null,
        changes: each.changes,
        differences: each.differences,
      }));
  const useful = told.filter((each) => each.point || each.changes.length || each.differences.length);
  if (!useful.length) return null;
  return (
    <details class="more" open={of.change_points.length > 0 || of.builds.length <= 6}>
      <summary>{of.change_points.length ? "Change points" : "What came between builds"}</summary>
      <Scroll label={`Changes of ${of.history} at ${of.at}`}>
        <table>
          <thead>
            <tr>
              <th>From</th>
              <th>To</th>
              <th class="n">Change</th>
              <th class="n">95 % interval</th>
              <th class="n">p</th>
              <th>What came with it</th>
            </tr>
          </thead>
          <tbody>
            {useful.map(({ before, after, point, changes, differences }) => (
              <tr>
                <td>{before}</td>
                <td>{after}</td>
                <td class={`n ${point ? (point.direction === "improvement" ? "good" : "bad") : ""}`}>
                  {point ? percent(point.ratio - 1) : "—"}
                </td>
                <td class="n">{point ? between(point.interval, (it) => percent(it - 1)) : "—"}</td>
                <td class="n">{point ? (point.p_value < 0.001 ? "< 0.001" : point.p_value.toFixed(3)) : "—"}</td>
                <td class="wide">
                  <ul>
                    {changes.map((text) => (
                      <li>
                        <ReferenceLink of={{ text: changeText(text), url: webLink(text) ?? undefined }} />
                      </li>
                    ))}
                    {differences.map((text) => (
                      <li class="muted">{text}</li>
                    ))}
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
