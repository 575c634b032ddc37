// Scores with intervals at the very operating points that are compared.
import * as Plot from "@observablehq/plot";
import { useMemo } from "preact/hooks";
import type { Accuracy, AccuracyPoint } from "../../generated/contract";
import { useAnswer } from "../answers";
import { Chart } from "../chart";
import type { Drawing } from "../drawing";
import { Go } from "../links";
import { look } from "../palette";
import { Scroll, Waiting, type ViewProps } from "../parts";
import { GroupSelect, SeriesPicker, useSelection } from "../selection";
import { between, measured, plural, short, throughput } from "../text";
import { embedded, useQuery } from "../url";

export function AccuracyView({ meta }: ViewProps) {
  const query = useQuery();
  const selection = useSelection(meta);
  const answered = useAnswer<Accuracy>("accuracy", {
    group: selection.names.length ? null : (query.get("group") ?? selection.group?.id),
    series: selection.names,
  });
  return (
    <>
      {!embedded() && (
        <div class="bar">
          <GroupSelect meta={meta} />
          <SeriesPicker selection={selection} whole />
        </div>
      )}
      <Waiting on={answered}>
        {({ items, unchecked, total }) => (
          <>
            {[...new Set(items.map((each) => each.task))].map((task) => (
              <Task
                task={task}
                points={items.filter((each) => each.task === task)}
                source={`Source: ${meta.store}, upcurve ${meta.version}.`}
              />
            ))}
            {items.length === 0 && (
              <section class="empty">
                <h2>No accuracy was measured here</h2>
                <p>
                  A faster curve of a model that answers worse is no gain: measure both at the same operating point.
                </p>
              </section>
            )}
            {total > items.length && <p class="muted">{plural(total - items.length, "older point")} left off.</p>}
            {unchecked.length > 0 && <p class="warning">No accuracy for {unchecked.join(", ")}.</p>}
          </>
        )}
      </Waiting>
    </>
  );
}

const score = (value: number): string => value.toFixed(3);

function Task({ task, points, source }: { task: string; points: AccuracyPoint[]; source: string }) {
  const drawing = useMemo(() => accuracyDrawing(points), [points]);
  const name = `accuracy-${task}`;
  const query = useQuery();
  if (embedded() && query.has("chart") && query.get("chart") !== name) return null;
  const thresholds = [...new Set(points.flatMap((each) => (each.threshold === null ? [] : [each.threshold])))];
  return (
    <section>
      <Chart
        name={name}
        title={`Score of ${task} by operating point`}
        drawing={drawing}
        legend
        notes={[
          "Intervals are 95 %: as recorded, else Wilson's.",
          ...(thresholds.length ? [`Threshold: ${thresholds.map(score).join(", ")}.`] : []),
          measured(points.map((each) => each.measured_on)),
          source,
        ]}
        rows={points.map(({ recorded: _, interval, ...each }) => ({
          ...each,
          low: interval?.[0],
          high: interval?.[1],
        }))}
      />
      {!embedded() && (
        <details class="more" open={points.length <= 12}>
          <summary>Points as a table</summary>
          <Scroll label={`Scores of ${task}`}>
            <table>
              <thead>
                <tr>
                  <th>Series</th>
                  <th class="n">Concurrency</th>
                  <th>Layout</th>
                  <th class="n">tok/s/user</th>
                  <th class="n">tok/s/GPU</th>
                  <th class="n">Score</th>
                  <th class="n">95 % interval</th>
                  <th class="n">Items</th>
                  <th>Outcome</th>
                  <th>Measured</th>
                </tr>
              </thead>
              <tbody>
                {points.map((each) => (
                  <tr>
                    <th scope="row">
                      <Go to={{ view: "run", run: each.run }}>{each.series}</Go>
                    </th>
                    <td class="n">{each.concurrency}</td>
                    <td>{each.layout}</td>
                    <td class="n">{short(each.interactivity)}</td>
                    <td class="n">{throughput(each.tput_per_gpu)}</td>
                    <td class="n">{each.score === null ? "—" : score(each.score)}</td>
                    <td class="n">{each.interval ? between(each.interval, score) : "—"}</td>
                    <td class="n">{each.items ?? "—"}</td>
                    <td>
                      {each.passed === null ? (
                        "—"
                      ) : each.passed ? (
                        <span class="good">✓ passed</span>
                      ) : (
                        <span class="bad">✗ failed</span>
                      )}
                    </td>
                    <td>{each.measured_on}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </Scroll>
        </details>
      )}
    </section>
  );
}

function accuracyDrawing(points: AccuracyPoint[]): Drawing {
  const order = [...new Set(points.map((each) => each.series))];
  const scored = points.filter((each) => each.score !== null);
  const thresholds = [...new Set(points.flatMap((each) => (each.threshold === null ? [] : [each.threshold])))];
  return {
    swatches: (theme) => order.map((name, index) => ({ name, colour: look(index, theme).colour })),
    options: (_, theme) => {
      const of = (each: AccuracyPoint) => look(order.indexOf(each.series), theme);
      return {
        height: 300,
        marginLeft: 52,
        marginRight: 24,
        marginTop: 28,
        marginBottom: 40,
        x: { label: "Interactivity (tok/s/user)", nice: true, zero: true, tickSpacing: 90, labelOffset: 36 },
        y: { label: "Score", nice: true, tickSpacing: 45, tickFormat: score, labelOffset: 36 },
        color: { type: "identity" },
        symbol: { type: "identity" },
        marks: [
          Plot.gridY({ stroke: theme.text, strokeOpacity: 0.08 }),
          Plot.ruleY(thresholds, { stroke: theme.bad, strokeDasharray: "5,4" }),
          Plot.text(thresholds, {
            y: (d: number) => d,
            text: () => "threshold",
            frameAnchor: "right",
            dy: 9,
            fill: theme.bad,
          }),
          Plot.ruleX(
            scored.filter((each) => each.interval),
            {
              x: "interactivity",
              y1: (d: AccuracyPoint) => d.interval![0],
              y2: (d: AccuracyPoint) => d.interval![1],
              stroke: (d: AccuracyPoint) => of(d).colour,
              strokeWidth: 1.5,
            },
          ),
          Plot.dot(scored, {
            x: "interactivity",
            y: "score",
            symbol: (d: AccuracyPoint) => of(d).symbol,
            stroke: (d: AccuracyPoint) => of(d).colour,
            fill: (d: AccuracyPoint) => (d.passed === false ? theme.background : of(d).colour),
            r: 4.5,
          }),
        ],
      };
    },
    hits: (theme) =>
      scored.map((each) => ({
        id: String(each.point),
        x: each.interactivity,
        y: each.score!,
        colour: look(order.indexOf(each.series), theme).colour,
        title: each.series,
        rows: [
          ["Score", score(each.score!) + (each.interval ? ` (${between(each.interval, score)})` : "")],
          ["Outcome", each.passed === null ? "no threshold" : each.passed ? "passed" : "failed"],
          ["Items", String(each.items ?? "not recorded")],
          ["At", `${short(each.interactivity)} tok/s/user, ${throughput(each.tput_per_gpu)} tok/s/GPU`],
          ["Layout", `${each.layout}, concurrency ${each.concurrency}`],
        ],
        links: [{ text: "Its run", to: { view: "run", run: each.run, point: null, pin: null } }],
      })),
  };
}
