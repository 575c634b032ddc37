// One glance: each model and workload, its best series at chosen interactivities, what moved.
import type { Change, Group, Overview, OverviewRow, TierReading } from "../../generated/contract";
import { useAnswer } from "../answers";
import { Go } from "../links";
import { Input, Paging, Scroll, Search, Select, Waiting, type ViewProps } from "../parts";
import { Prices } from "../prices";
import { priceParams } from "../selection";
import { isStatic } from "../site";
import { between, numbers, percent, plural, ratio, short, STATUS, throughput, usd, words } from "../text";
import { open, useQuery } from "../url";

const SIZE = 20;

export function OverviewView({ meta }: ViewProps) {
  const query = useQuery();
  const hardware = [...new Set(meta.groups.flatMap((each) => each.hardware))].sort();
  const answered = useAnswer<Overview>("overview", {
    tiers: query.get("tiers"),
    q: query.get("q"),
    hardware: query.get("hardware"),
    offset: query.get("offset"),
    ...priceParams(query),
  });
  return (
    <>
      <div class="lead">
        <p>
          {plural(meta.counts.series, "series")}, {plural(meta.counts.runs, "run")},{" "}
          {plural(meta.counts.points, "point")} in <code>{meta.store}</code>
          {meta.exported_at && ` as of ${meta.exported_at.slice(0, 10)}`}
        </p>
        {meta.presets.map((each) => (
          <a
            class="preset"
            href={`?${each.query}`}
            onClick={(event) => {
              if (event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
              event.preventDefault();
              open(`?${each.query}`);
            }}
          >
            {each.title}
          </a>
        ))}
      </div>
      {!isStatic() && (
        <>
          <div class="bar">
            <Search label="Find" name="q" also={{ offset: null }} />
            <Select
              label="Hardware"
              name="hardware"
              value={query.get("hardware") ?? ""}
              usual=""
              options={[["", "all"], ...hardware.map((each): [string, string] => [each, each])]}
              also={{ offset: null }}
            />
            <Input
              label="At tok/s/user"
              name="tiers"
              size={14}
              value={query.get("tiers") ?? ""}
              placeholder="20, 40, 60"
              read={(text) => numbers(text).join(",") || null}
            />
          </div>
          <Prices meta={meta} />
        </>
      )}
      <Waiting on={answered}>
        {(overview) => (
          <>
            <Scroll label="Best series of each model and workload">
              <table class="overview">
                <thead>
                  <tr>
                    <th>Model and workload</th>
                    {overview.tiers.map((tier) => (
                      <th class="tier">at {short(tier)} tok/s/user</th>
                    ))}
                    <th>Accuracy</th>
                  </tr>
                </thead>
                <tbody>
                  {overview.rows.map((row) => (
                    <Row row={row} />
                  ))}
                </tbody>
              </table>
            </Scroll>
            {overview.rows.length === 0 && <p class="muted">Nothing fits.</p>}
            <Paging total={overview.total} offset={overview.offset} size={SIZE} />
            <ul class="notes">
              {overview.assumptions.map((each) => (
                <li>{each}</li>
              ))}
            </ul>
          </>
        )}
      </Waiting>
    </>
  );
}

function Row({ row: { group, tiers, accuracy } }: { row: OverviewRow }) {
  return (
    <tr>
      <th scope="row" class="group">
        <Go to={{ view: "frontier", group: group.id, series: null, isl: null, osl: null, baseline: null, at: null }}>
          {group.model}
        </Go>
        <small>
          {group.isl.toLocaleString("en-US")} in / {group.osl.toLocaleString("en-US")} out
        </small>
        <small>{[...group.hardware, ...group.precisions].join(" · ")}</small>
        <small>
          {plural(group.series, "series")}, last {group.last_measured_on}
        </small>
      </th>
      {tiers.map((tier) => (
        <Tier tier={tier} group={group} />
      ))}
      <td data-label="Accuracy">
        {accuracy ? (
          <Go to={{ view: "accuracy", group: group.id }}>
            {accuracy.failed ? (
              <span class="bad">
                {accuracy.failed} of {accuracy.checked} failed
              </span>
            ) : (
              `${accuracy.checked} passed`
            )}
          </Go>
        ) : (
          <span class="muted">not measured</span>
        )}
      </td>
    </tr>
  );
}

function Tier({ tier, group }: { tier: TierReading; group: Group }) {
  const label = `at ${short(tier.interactivity)} tok/s/user`;
  if (tier.tput_per_gpu === null || tier.best === null)
    return (
      <td class="tier muted" data-label={label}>
        {tier.status ? STATUS[tier.status] : "unreachable or below range"}
      </td>
    );
  return (
    <td class="tier" data-label={label}>
      <div class="value">
        <b>
          {throughput(tier.tput_per_gpu)}
          {tier.segment === "end" ? "*" : ""}
        </b>
        <span>tok/s/GPU</span>
        {tier.usd_per_million_tokens !== null && <span>{usd(tier.usd_per_million_tokens)}/M</span>}
      </div>
      {tier.interval && <small>95 %: {between(tier.interval, throughput)}</small>}
      <small>
        {tier.best} on {tier.hardware}
      </small>
      {tier.change && <Moved change={tier.change} at={tier.interactivity} group={group} />}
      {tier.flags.length > 0 && (
        <small class="flagged" title={tier.flags.map((each) => each.text).join("\n")}>
          ⚑ {[...new Set(tier.flags.map((each) => words(each.code)))].join(", ")}
        </small>
      )}
    </td>
  );
}

const SIGN: Record<Change["verdict"], string> = {
  better: "▲",
  worse: "▼",
  "no change shown": "≈",
  "one run": "~",
  "not comparable": "∅",
};

function Moved({ change, at, group }: { change: Change; at: number; group: Group }) {
  const moved = change.ratio === null ? "" : change.ratio === "inf" ? "newly reached" : percent(change.ratio - 1);
  const kind = change.verdict === "better" ? "good" : change.verdict === "worse" ? "bad" : "muted";
  return (
    <small class={kind}>
      <Go
        to={{
          view: "compare",
          group: null,
          series: change.series,
          baseline: change.series[0],
          at: String(at),
          isl: group.isl,
          osl: group.osl,
        }}
      >
        {SIGN[change.verdict]} {moved}
      </Go>
      {change.ratio_interval && ` (${between(change.ratio_interval, ratio)})`} {change.verdict}, since {change.before}
    </small>
  );
}
