// Series at equal interactivity: throughput, ratio to a baseline, cost, what is doubtful.
import type { Compare, Reading } from "../../generated/contract";
import { address, useAnswer } from "../answers";
import { download, toCsv, type Cell } from "../chart_files";
import { Go } from "../links";
import { Flags, Input, Scroll, Select, Waiting, type ViewProps } from "../parts";
import { Prices } from "../prices";
import { GroupSelect, priceParams, Rule, SeriesPicker, useSelection } from "../selection";
import { isStatic } from "../site";
import { between, numbers, percent, ratio, short, STATUS, throughput, usd } from "../text";
import { embedded, useQuery } from "../url";
import { FrontierChart } from "./frontier";

const CSV_NOTE = "Values of the table as the API gave them.";

export function CompareView({ meta }: ViewProps) {
  const query = useQuery();
  const selection = useSelection(meta);
  const asked = {
    ...selection.params,
    ...priceParams(query),
    baseline: query.get("baseline"),
    at: query.get("at"),
    every: query.get("every"),
    rule: query.get("rule"),
    output_weight: query.get("output_weight"),
  };
  const answered = useAnswer<Compare>(selection.params && "compare", asked);
  const names = answered.data?.comparison.series.map((each) => each.name) ?? selection.names;
  const targets = answered.data?.comparison.targets;
  return (
    <>
      {!embedded() && (
        <div class="bar">
          <GroupSelect meta={meta} />
          <SeriesPicker selection={selection} />
          <Select
            label="Baseline"
            name="baseline"
            value={answered.data?.comparison.baseline ?? query.get("baseline") ?? ""}
            options={names.map((each) => [each, each])}
          />
          <Input
            label="At tok/s/user"
            name="at"
            size={22}
            value={query.get("at") ?? ""}
            placeholder={targets?.map((each) => short(each)).join(", ") ?? "20, 30, 40"}
            read={(text) => numbers(text).join(",") || null}
          />
          <Rule rules={meta.rules} />
        </div>
      )}
      {!embedded() && <Prices meta={meta} weights />}
      <FrontierChart meta={meta} height={360} targets={targets} />
      {!(embedded() && query.get("chart") === "frontier") && (
        <Waiting on={answered}>{(compare) => <Comparison compare={compare} asked={asked} />}</Waiting>
      )}
    </>
  );
}

interface Line {
  label: string;
  texts: string[];
  strong?: boolean;
}

/** The lines of one target, as the terminal shows them; lines that no series has are left away. */
function lines(compare: Compare, index: number): Line[] {
  const { series, baseline } = compare.comparison;
  const show = (of: (reading: Reading) => string, ratios = false) =>
    series.map((each) => (ratios && each.name === baseline ? "" : of(each.at[index]!)));
  const maybe = <T,>(value: T | null | undefined, text: (value: T) => string) =>
    value === null || value === undefined ? "" : text(value);
  const all: Line[] = [
    { label: "tok/s/GPU", texts: show(value), strong: true },
    { label: "95 % interval", texts: show((each) => maybe(each.interval, (it) => between(it, throughput))) },
    { label: "ratio", texts: show((each) => maybe(each.ratio, ratio), true), strong: true },
    { label: "95 % of ratio", texts: show((each) => maybe(each.ratio_interval, (it) => between(it, ratio)), true) },
    {
      label: "by rule",
      texts: show((each) => maybe(each.rule_ratios, (it) => between(it as [number, number], ratio)), true),
    },
    { label: "$/M tokens", texts: show((each) => maybe(each.usd_per_million_tokens, usd)) },
    { label: "$/M input", texts: show((each) => maybe(each.usd_per_million_input, usd)) },
    { label: "$/M output", texts: show((each) => maybe(each.usd_per_million_output, usd)) },
    { label: "J/token", texts: show((each) => maybe(each.joules_per_token, (it) => short(it, 3))) },
  ];
  return all.filter((line, place) => place === 0 || line.texts.some(Boolean));
}

function value(reading: Reading): string {
  if (reading.tput_per_gpu === null) return STATUS[reading.status] ?? reading.status;
  const words = reading.status === "measured" ? "measured " : "";
  return `${words}${throughput(reading.tput_per_gpu)}${reading.segment === "end" ? "*" : ""}`;
}

function Comparison({ compare, asked }: { compare: Compare; asked: Parameters<typeof address>[1] }) {
  const { comparison, details, notes, warnings } = compare;
  const ends = comparison.series.some((each) =>
    each.at.some((reading) => reading.segment === "end" && reading.tput_per_gpu !== null),
  );
  const flags = comparison.series.flatMap((each) => [
    ...each.flags.map((flag) => ({ flag, where: each.name })),
    ...each.at.flatMap((reading) =>
      reading.flags.map((flag) => ({ flag, where: `${each.name} at ${short(reading.interactivity)}` })),
    ),
  ]);
  const about = {
    title: "Series at equal interactivity",
    notes: [...details.map((each) => `${each.name}: ${each.describe}`), ...notes, CSV_NOTE, `Link: ${location.href}`],
  };
  return (
    <section aria-label="Comparison">
      <div class="head">
        <h2>At equal interactivity</h2>
        <div class="chart-tools" role="group" aria-label="Take away: the comparison">
          <button
            type="button"
            class="quiet"
            onClick={() => download("compare.csv", toCsv(about, rows(compare)), "text/csv")}
          >
            CSV
          </button>
          <button
            type="button"
            class="quiet"
            onClick={() => download("compare.json", JSON.stringify(comparison, null, 2), "application/json")}
          >
            JSON
          </button>
          {!isStatic() &&
            [
              ["markdown", "Markdown"],
              ["latex", "LaTeX"],
            ].map(([format, text]) => (
              <a class="quiet" href={address("compare", { ...asked, format })} target="_blank" rel="noopener">
                {text}
              </a>
            ))}
        </div>
      </div>
      {warnings.map((each) => (
        <p class="warning">{each}</p>
      ))}
      <div class="compared">
        <Scroll label="Throughput, ratio and cost at each target">
          <table class="compare">
            <thead>
              <tr>
                <th class="n">tok/s/user</th>
                <td />
                {comparison.series.map((each) => (
                  <th class="n">
                    <Go to={{ view: "frontier", series: comparison.series.map((one) => one.name), only: each.name }}>
                      {each.name}
                    </Go>
                    {each.name === comparison.baseline && <small>baseline</small>}
                  </th>
                ))}
              </tr>
            </thead>
            {comparison.targets.map((target, index) => (
              <tbody data-target={target}>
                {lines(compare, index).map((line, place, all) => (
                  <tr class={line.strong ? "strong" : ""} data-line={line.label}>
                    {place === 0 && (
                      <th scope="rowgroup" rowSpan={all.length} class="n target">
                        {short(target)}
                      </th>
                    )}
                    <th scope="row">{line.label}</th>
                    {line.texts.map((text, column) => (
                      <td
                        class={`n${comparison.series[column]!.at[index]!.tput_per_gpu === null && place === 0 ? " muted" : ""}`}
                        data-series={comparison.series[column]!.name}
                      >
                        {text}
                      </td>
                    ))}
                  </tr>
                ))}
              </tbody>
            ))}
            <tbody>
              <tr data-line="area">
                <th class="n">all</th>
                <th scope="row">area ratio</th>
                {comparison.series.map((each) => (
                  <td class="n">{area(each.area)}</td>
                ))}
              </tr>
              {comparison.series.some((each) => each.noise_floor) && (
                <tr>
                  <td />
                  <th scope="row">noise floor, CV</th>
                  {comparison.series.map((each) => (
                    <td class="n">{noise(each.noise_floor)}</td>
                  ))}
                </tr>
              )}
            </tbody>
          </table>
        </Scroll>
        <div>
          <ul class="notes">
            {ends && <li>* in the first or last interval of its frontier, where the rule matters.</li>}
            {notes.map((each) => (
              <li>{each}</li>
            ))}
          </ul>
          <Flags of={flags} />
        </div>
      </div>
    </section>
  );
}

function area(of: Record<string, unknown> | null): string {
  return typeof of?.ratio === "number" ? ratio(of.ratio) : "";
}

function noise(of: Record<string, unknown> | null): string {
  return of ? `${percent(Number(of.variation)).slice(1)} (${of.runs} runs)` : "";
}

function rows(compare: Compare): Record<string, Cell>[] {
  return compare.comparison.series.flatMap((each) =>
    each.at.map((reading) => ({
      series: each.name,
      baseline: compare.comparison.baseline,
      interactivity: reading.interactivity,
      tput_per_gpu: reading.tput_per_gpu,
      status: reading.status,
      segment: reading.segment,
      low: reading.interval?.[0],
      high: reading.interval?.[1],
      ratio: reading.ratio,
      ratio_low: reading.ratio_interval?.[0],
      ratio_high: reading.ratio_interval?.[1],
      usd_per_million_tokens: reading.usd_per_million_tokens,
      usd_per_million_input: reading.usd_per_million_input,
      usd_per_million_output: reading.usd_per_million_output,
      joules_per_token: reading.joules_per_token,
      flags: reading.flags.map((flag) => flag.code).join(" "),
    })),
  );
}
