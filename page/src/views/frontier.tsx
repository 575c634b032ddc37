// The frontier: throughput, cost or energy against what a user feels.
import { useMemo } from "preact/hooks";
import type { Frontier, Limit } from "../../generated/contract";
import { useAnswer } from "../answers";
import { Chart } from "../chart";
import { frontierDrawing } from "../frontier_drawing";
import { axisTitle, frontierRows, type Shown } from "../frontier_points";
import { Flags, left, Scroll, Select, Toggle, Waiting, type ViewProps } from "../parts";
import { Prices } from "../prices";
import { GroupSelect, Legend, priceParams, Rule, SeriesPicker, useHidden, useSelection } from "../selection";
import { between, numbers, short } from "../text";
import { embedded, useQuery } from "../url";

export function FrontierView({ meta }: ViewProps) {
  const query = useQuery();
  const selection = useSelection(meta);
  const x = query.get("x") ?? "interactivity";
  const y = query.get("y") ?? "total";
  const options = (axes: Frontier["x"][]): [string, string][] => axes.map((each) => [each.name, each.label]);
  return (
    <>
      {!embedded() && (
        <div class="bar">
          <GroupSelect meta={meta} />
          <SeriesPicker selection={selection} />
          <Select label="Vertical" name="y" value={y} usual="total" options={options(meta.y_axes)} />
          <Select label="Horizontal" name="x" value={x} usual="interactivity" options={options(meta.x_axes)} />
          <Rule rules={meta.rules} />
          <div class="toggles" role="group" aria-label="Show">
            <Toggle label="Intervals" name="bands" usual />
            <Toggle label="Dominated points" name="dominated" />
            <Toggle label="Changes" name="changes" usual />
            <Toggle label="Speed of light" name="limit" />
            <Toggle label="Log scale" name="log" usual={query.get("limit") === "1"} />
          </div>
        </div>
      )}
      {!embedded() && <Prices meta={meta} />}
      <FrontierChart meta={meta} height={480} table />
    </>
  );
}

interface Props extends ViewProps {
  height: number;
  targets?: number[];
  /** Whether the points follow as a table. */
  table?: boolean;
}

export function FrontierChart({ meta, height, targets, table }: Props) {
  const query = useQuery();
  const selection = useSelection(meta);
  const x = query.get("x") ?? "interactivity";
  const y = query.get("y") ?? "total";
  const answered = useAnswer<Frontier>(selection.params && "frontier", {
    ...selection.params,
    ...priceParams(query),
    x,
    y,
    rule: query.get("rule"),
    dominated: query.get("dominated") === "1" ? true : null,
  });
  return (
    <Waiting on={answered}>
      {(frontier) => (
        <Drawn
          meta={meta}
          frontier={ordered(frontier, "group" in answered.params)}
          height={height}
          targets={targets}
          table={table}
        />
      )}
    </Waiting>
  );
}

const reversed = new WeakMap<Frontier, Frontier>();

/** Oldest first, as a comparison has them: a whole group comes newest first. */
function ordered(frontier: Frontier, group: boolean): Frontier {
  if (!group) return frontier;
  const known = reversed.get(frontier) ?? { ...frontier, series: frontier.series.toReversed() };
  reversed.set(frontier, known);
  return known;
}

function Drawn({ meta, frontier, height, targets, table }: Props & { frontier: Frontier }) {
  const query = useQuery();
  const order = useMemo(() => frontier.series.map((each) => each.name), [frontier]);
  const hidden = useHidden(order);
  const limits = useLimits(frontier, query.get("limit") === "1");
  const kept = query.get("at") ?? "";
  const hiding = [...hidden].join("\n");
  const settings = ["bands", "changes", "log", "limit"].map((name) => query.get(name)).join();
  const shown: Shown = useMemo(
    () => ({
      frontier,
      limits,
      order,
      hidden,
      bands: query.get("bands") !== "0",
      changes: query.get("changes") !== "0",
      log: (query.get("log") ?? query.get("limit")) === "1",
      targets: frontier.x.name === "interactivity" ? (targets ?? numbers(kept)) : [],
      height,
    }),
    [frontier, limits, hiding, settings, kept, height, targets?.join()],
  );
  const drawing = useMemo(() => frontierDrawing(shown), [shown]);
  const series = frontier.series.filter((each) => !hidden.has(each.name));
  const dates = series.map((each) => each.describe.split(", ").at(-1));
  const described =
    series.length <= 6
      ? series.map((each) => `${each.name}: ${each.describe}`)
      : [`${series.length} series, ${dates[0]} to ${dates.at(-1)}`];
  const notes = [
    ...described,
    ...frontier.assumptions,
    ...limits.flatMap((each) =>
      each.reason ? [`No speed of light of ${each.hardware}: ${each.reason}.`] : each.assumptions,
    ),
    left(frontier.left_off, "series"),
    `Source: ${meta.store}, upcurve ${meta.version}${meta.exported_at ? `, exported ${meta.exported_at.slice(0, 10)}` : ""}.`,
  ].filter(Boolean);
  const reasons = new Set(frontier.series.map((each) => each.reason ?? "it has no points"));
  const drawn = frontier.series.some((each) => each.frontier.length + each.dominated.length);
  return (
    <div class={embedded() ? "" : "beside"}>
      <div>
        {!drawn && <p class="warning">Nothing to draw: {[...reasons].join("; ") || "no series"}.</p>}
        {drawn && (
          <Chart
            name="frontier"
            title={`${frontier.y.label} against ${frontier.x.label.toLowerCase()}`}
            drawing={drawing}
            notes={notes}
            rows={frontierRows(shown)}
          />
        )}
        {drawn && table && !embedded() && <PointTable shown={shown} />}
      </div>
      {!embedded() && (
        <aside aria-label="Series of the chart">
          <Legend series={frontier.series} order={order} />
          <Flags
            of={frontier.series.flatMap((each) =>
              // What a price assumes stands under the chart.
              each.flags.filter((flag) => flag.code !== "price_assumption").map((flag) => ({ flag, where: each.name })),
            )}
          />
        </aside>
      )}
    </div>
  );
}

/** The speed-of-light lines of the first hardware kinds shown: hooks are called in a fixed number. */
function useLimits(frontier: Frontier, on: boolean): Limit[] {
  const query = useQuery();
  const first = frontier.series[0];
  const kinds = [...new Set(frontier.series.flatMap((each) => each.hardware))].slice(0, 3);
  const ask = (index: number) => {
    const asked = on && first && kinds[index];
    const { data } = useAnswer<Limit>(asked ? "limit" : null, {
      group: first?.group,
      hardware: kinds[index],
      precision: frontier.series.find((each) => each.hardware.includes(kinds[index] ?? ""))?.precisions[0],
      x: frontier.x.name,
      y: frontier.y.name,
      ...priceParams(query),
    });
    return asked ? data : undefined;
  };
  const answers = [ask(0), ask(1), ask(2)];
  return useMemo(() => answers.filter((each) => each !== undefined), answers);
}

function PointTable({ shown: { frontier, hidden } }: { shown: Shown }) {
  const series = frontier.series.filter((each) => !hidden.has(each.name));
  return (
    <details class="more">
      <summary>Points as a table</summary>
      <Scroll label="Points of the chart">
        <table>
          <thead>
            <tr>
              <th>Series</th>
              <th class="n">{axisTitle(frontier.x)}</th>
              <th class="n">{axisTitle(frontier.y)}</th>
              <th class="n">95 % interval</th>
              <th class="n">Concurrency</th>
              <th>Layout</th>
              <th class="n">GPUs</th>
              <th class="n">Repeats</th>
              <th>Measured</th>
            </tr>
          </thead>
          <tbody>
            {series.flatMap((each) =>
              [...each.frontier, ...each.dominated].map((point, index) => (
                <tr class={index < each.frontier.length ? "" : "muted"}>
                  <th scope="row">
                    {each.name}
                    {index < each.frontier.length ? "" : " (dominated)"}
                  </th>
                  <td class="n">{short(point.x)}</td>
                  <td class="n">{short(point.y)}</td>
                  <td class="n">{point.y_interval ? between(point.y_interval, short) : "—"}</td>
                  <td class="n">{point.concurrency}</td>
                  <td>{point.layout}</td>
                  <td class="n">{point.gpus}</td>
                  <td class="n">{point.repeats}</td>
                  <td>{point.measured_on}</td>
                </tr>
              )),
            )}
          </tbody>
        </table>
      </Scroll>
    </details>
  );
}
