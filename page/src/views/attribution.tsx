// What each change is worth: a waterfall with intervals for every ablation of the store.
import * as Plot from "@observablehq/plot";
import { useMemo } from "preact/hooks";
import type { Attribution, Bar, OneAttribution } from "../../generated/contract";
import { useAnswer } from "../answers";
import { Chart } from "../chart";
import type { Drawing } from "../drawing";
import { Input, Scroll, Waiting, type ViewProps } from "../parts";
import { Prices } from "../prices";
import { GroupSelect, priceParams } from "../selection";
import { isStatic } from "../site";
import { between, numbers, short, throughput, tick } from "../text";
import { embedded, useQuery } from "../url";

export function AttributionView({ meta }: ViewProps) {
  const query = useQuery();
  const answered = useAnswer<Attribution>("attribution", {
    group: query.get("group"),
    at: query.get("at"),
    ...priceParams(query),
  });
  return (
    <>
      {!embedded() && (
        <div class="bar">
          <GroupSelect meta={meta} all="all" />
          {!isStatic() && (
            <Input
              label="At tok/s/user"
              name="at"
              size={14}
              value={query.get("at") ?? ""}
              placeholder="where all reach"
              read={(text) => numbers(text).join(",") || null}
            />
          )}
        </div>
      )}
      {!embedded() && <Prices meta={meta} />}
      <Waiting on={answered}>
        {({ items }) =>
          items.length ? (
            <>
              {items.map((each) => (
                <Ablation of={each} source={`Source: ${meta.store}, upcurve ${meta.version}.`} />
              ))}
            </>
          ) : (
            <section class="empty">
              <h2>No ablation here yet</h2>
              <p>
                An ablation measures switches of an engine in interleaved rounds and splits the move of the curve over
                them:
              </p>
              <pre tabIndex={0}>
                upcurve ablate recipes/qwen35-small-cpu.yaml --switch fused_norm,fused_topk --store {meta.store}
              </pre>
            </section>
          )
        }
      </Waiting>
    </>
  );
}

function Ablation({ of, source }: { of: OneAttribution; source: string }) {
  return (
    <section>
      <h2>{of.title}</h2>
      {of.ablation.targets.map((target, index) => (
        <Target of={of} index={index} at={target.interactivity} source={source} />
      ))}
      <ul class="notes">
        {general(of).map((each) => (
          <li>{each}</li>
        ))}
      </ul>
      {of.ablation.targets.length === 0 && <p class="muted">No target that every configuration reaches.</p>}
    </section>
  );
}

/** Notes that are of no single target. */
function general(of: OneAttribution): string[] {
  const { design, rounds, notes } = of.ablation;
  return [
    ...notes.filter((each) => !/^At [\d.]+ tok/.test(each)),
    `Design ${design}, ${rounds} rounds, measured ${of.measured_on}.`,
  ];
}

interface Estimate {
  mean: number;
  interval: [number, number] | null;
}

function Target({ of, index, at, source }: { of: OneAttribution; index: number; at: number; source: string }) {
  const bars = of.waterfalls[index] ?? [];
  const headline = of.headlines[index] ?? "";
  const drawing = useMemo(() => waterfall(bars), [bars]);
  const name = `attribution-${of.id}-${at}`;
  const query = useQuery();
  if (embedded() && query.has("chart") && query.get("chart") !== name) return null;
  const shares = of.ablation.targets[index]!.shares;
  const estimate = (value: unknown): Estimate | null => value as Estimate | null;
  if (!bars.length) return <p class="muted">{headline}</p>;
  return (
    <>
      <Chart
        name={name}
        title={headline}
        drawing={drawing}
        notes={of.ablation.notes
          .filter((each) => each.startsWith(`At ${short(at)} `))
          .map((each) => each.slice(each.indexOf(": ") + 2))}
        fileNotes={[...general(of), source]}
        rows={bars.map((bar) => ({
          bar: bar.name,
          start: bar.start,
          end: bar.end,
          factor: bar.level ? null : bar.end / bar.start,
          low: bar.low,
          high: bar.high,
          unit: "tok/s/GPU",
        }))}
      />
      {!embedded() && (
        <details class="more">
          <summary>Shares as a table</summary>
          <Scroll label={`Shares at ${at}`}>
            <table>
              <thead>
                <tr>
                  <th>Switch</th>
                  <th class="n">Factor</th>
                  <th class="n">95 % interval</th>
                  <th class="n">Alone</th>
                  <th class="n">Last</th>
                  <th class="n">$/M tokens</th>
                </tr>
              </thead>
              <tbody>
                {shares.map((share) => {
                  const log = estimate(share.log_ratio)!;
                  const [alone, last, usd] = [share.alone, share.last, share.usd].map(estimate);
                  return (
                    <tr>
                      <th scope="row">{share.switch ?? "three or more together"}</th>
                      <td class="n">{factor(log.mean)}</td>
                      <td class="n">{log.interval ? between(log.interval, factor) : "—"}</td>
                      <td class="n">{alone ? factor(alone.mean) : "—"}</td>
                      <td class="n">{last ? factor(last.mean) : "—"}</td>
                      <td class="n">{usd ? short(usd.mean, 3) : "—"}</td>
                    </tr>
                  );
                })}
              </tbody>
            </table>
          </Scroll>
        </details>
      )}
    </>
  );
}

const factor = (log: number): string => `${Math.exp(log).toFixed(3)}x`;

function waterfall(bars: Bar[]): Drawing {
  const text = (bar: Bar) => (bar.level ? throughput(bar.end) : `${(bar.end / bar.start).toFixed(3)}x`);
  const edges = bars.flatMap((bar) => [bar.start, bar.end, bar.low ?? bar.end, bar.high ?? bar.end]);
  const [low, high] = [Math.min(...edges), Math.max(...edges)];
  const room = (high / low) ** 0.12;
  return {
    options: (width, theme) => {
      const margin = Math.min(width * 0.36, 14 + 6.6 * Math.max(...bars.map((bar) => bar.name.length)));
      const fits = Math.floor((margin - 14) / 6.2);
      return {
        height: 56 + 30 * bars.length,
        marginLeft: margin,
        marginRight: 48,
        marginTop: 8,
        marginBottom: 40,
        x: {
          type: "log",
          domain: [low / room, high * room],
          label: "Throughput per GPU (tok/s/GPU, log scale)",
          grid: true,
          ticks: Math.max(3, Math.floor(width / 130)),
          tickFormat: (value: number) => tick(value),
          labelOffset: 36,
        },
        y: {
          type: "band",
          domain: bars.map((bar) => bar.name),
          label: null,
          padding: 0.35,
          tickSize: 0,
          tickFormat: (name: string) => (name.length > fits ? `${name.slice(0, fits - 1)}…` : name),
        },
        color: { type: "identity" },
        marks: [
          Plot.barX(
            bars.filter((bar) => !bar.level),
            {
              y: "name",
              x1: "start",
              x2: "end",
              fill: (bar: Bar) => (bar.end >= bar.start ? theme.good : theme.bad),
              fillOpacity: 0.85,
            },
          ),
          Plot.tickX(
            bars.filter((bar) => bar.level),
            { y: "name", x: "end", stroke: theme.text, strokeWidth: 3 },
          ),
          Plot.ruleY(
            bars.filter((bar) => bar.low !== null),
            { y: "name", x1: "low", x2: "high", stroke: theme.text, strokeWidth: 1.5, marker: "tick" },
          ),
          Plot.text(bars, {
            y: "name",
            x: (bar: Bar) => Math.max(bar.start, bar.end, bar.high ?? 0),
            text,
            textAnchor: "start",
            dx: 8,
            fill: theme.text,
          }),
        ],
      };
    },
    hits: (theme) =>
      bars.map((bar) => ({
        id: bar.name,
        x: bar.end,
        y: bar.name,
        colour: bar.level ? theme.text : bar.end >= bar.start ? theme.good : theme.bad,
        title: bar.name,
        rows: [
          [bar.level ? "Throughput" : "Factor", text(bar) + (bar.level ? " tok/s/GPU" : "")],
          ...(bar.level
            ? []
            : [["From, to", `${throughput(bar.start)} to ${throughput(bar.end)} tok/s/GPU`] as [string, string]]),
          [
            "95 % interval of the end",
            bar.low === null || bar.high === null ? "none" : between([bar.low, bar.high], throughput),
          ],
        ],
      })),
  };
}
