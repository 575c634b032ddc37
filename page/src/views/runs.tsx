// Every record of the store, newest first.
import type { RunList } from "../../generated/contract";
import { useAnswer } from "../answers";
import { Go } from "../links";
import { ChangeLink, Paging, Scroll, Search, Select, Waiting, type ViewProps } from "../parts";
import { minute, plural } from "../text";
import { go, useQuery } from "../url";

const SIZE = 50;
const STATUSES = ["running", "complete", "interrupted", "failed"];

export function RunsView(_: ViewProps) {
  const query = useQuery();
  const series = query.getAll("series");
  const answered = useAnswer<RunList>("runs", {
    series,
    group: series.length ? null : query.get("group"),
    status: query.get("status"),
    q: query.get("q"),
    offset: query.get("offset"),
    limit: SIZE,
  });
  const filtered = series.length > 0 || query.has("group");
  return (
    <>
      <div class="bar">
        <Search label="Find" name="q" also={{ offset: null }} />
        <Select
          label="Status"
          name="status"
          value={query.get("status") ?? ""}
          usual=""
          options={[["", "all"], ...STATUSES.map((each): [string, string] => [each, each])]}
          also={{ offset: null }}
        />
        {filtered && (
          <button type="button" onClick={() => go({ series: null, group: null, offset: null })}>
            {series.length
              ? `Not only ${series.slice(0, 3).join(", ")}${series.length > 3 ? " and more" : ""}`
              : "Not only this group"}
          </button>
        )}
      </div>
      <Waiting on={answered}>
        {({ items, total, offset }) => (
          <>
            <p class="muted">{plural(total, "run")}</p>
            <Scroll label="Runs">
              <table>
                <thead>
                  <tr>
                    <th>Started</th>
                    <th>Series</th>
                    <th>Status</th>
                    <th>Model</th>
                    <th>Hardware</th>
                    <th>Engine</th>
                    <th class="n">Points</th>
                    <th>Source</th>
                    <th>Change</th>
                  </tr>
                </thead>
                <tbody>
                  {items.map((each) => (
                    <tr>
                      <td class="fixed">
                        <Go to={{ view: "run", run: each.id, point: null }}>{minute(each.started_at)}</Go>
                      </td>
                      <th scope="row">{each.series}</th>
                      <td class={`status ${each.status}`} title={each.note ?? undefined}>
                        {each.status}
                      </td>
                      <td>{each.model}</td>
                      <td>
                        {each.hardware} {each.precision}
                      </td>
                      <td>
                        {each.engine} {each.engine_version}
                      </td>
                      <td class="n">{each.points}</td>
                      <td>{each.source}</td>
                      <td>{each.change ? <ChangeLink of={each.change} /> : ""}</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </Scroll>
            <Paging total={total} offset={offset} size={SIZE} />
          </>
        )}
      </Waiting>
    </>
  );
}
