// Which series are shown: the group, the names in it, their legend.
import { useState } from "preact/hooks";
import type { ChartSeries, Group, Meta, SeriesList } from "../generated/contract";
import { useAnswer, type Params } from "./answers";
import { look, OUTLINES, useTheme } from "./palette";
import { groupName, Select } from "./parts";
import { isStatic } from "./site";
import { plural } from "./text";
import { go, useQuery } from "./url";

export interface Selection {
  /** What the API is asked: names, or the whole group; null until it is known. */
  params: Params | null;
  /** Names that were chosen by hand. */
  names: string[];
  group: Group | undefined;
  /** Whether only the newest series of the group are shown. */
  newest: boolean;
}

/** Series of a group that are shown unasked: more curves than these nobody can tell apart. */
const NEWEST = 8;
/** Series that one chart can be asked for. */
const MOST = 50;

export function useSelection(meta: Meta): Selection {
  const query = useQuery();
  const names = query.getAll("series");
  const isl = query.get("isl");
  const osl = query.get("osl");
  const wanted = query.get("group");
  const group = meta.groups.find((each) => each.id === wanted) ?? (names.length || wanted ? undefined : meta.groups[0]);
  const newest = !names.length && !!group && group.series > NEWEST && query.get("all") !== "1";
  const listed = useAnswer<SeriesList>(newest ? "series" : null, { group: group?.id, limit: NEWEST });
  const workload = { isl: isl ?? group?.isl, osl: osl ?? group?.osl };
  if (names.length) return { params: { series: names, ...workload }, names, group, newest };
  if (!newest) return { params: { group: wanted ?? group?.id }, names, group, newest };
  if (!listed.data || listed.loading) return { params: null, names, group, newest };
  // Oldest first: the first is the baseline of a comparison.
  const found = listed.data.items.map((each) => each.name).reverse();
  return { params: { series: found, ...workload }, names, group, newest };
}

export const PRICE_NAMES = ["tier", "on", "price", "as_hardware", "kw", "usd_per_kwh", "pue"];

/** The prices of the URL, as every endpoint with costs takes them. */
export function priceParams(query: URLSearchParams): Params {
  return Object.fromEntries(
    PRICE_NAMES.map((name) => {
      const given = query.getAll(name);
      return [name, given.length ? given : null];
    }),
  );
}

/** How curves go between their points; an export has one way only. */
export function Rule({ rules }: { rules: string[] }) {
  const value = useQuery().get("rule") ?? "published";
  if (isStatic()) return null;
  const options = rules.map((each): [string, string] => [each, each.replaceAll("_", " ")]);
  return <Select label="Between points" name="rule" value={value} usual="published" options={options} />;
}

export function GroupSelect({ meta, all }: { meta: Meta; all?: string }) {
  const query = useQuery();
  const chosen = query.get("group") ?? (all || query.has("series") ? "" : (meta.groups[0]?.id ?? ""));
  const options: [string, string][] = meta.groups.map((each) => [each.id, groupName(each)]);
  if (all || query.has("series")) options.unshift(["", all ?? "series by name"]);
  return (
    <Select
      label="Model and workload"
      name="group"
      value={chosen}
      options={options}
      also={{
        series: null,
        isl: null,
        osl: null,
        baseline: null,
        hide: null,
        only: null,
        all: null,
        offset: null,
        at: null,
      }}
    />
  );
}

/** The series shown, each to be taken out, and a search for more. */
export function SeriesPicker({ selection, whole }: { selection: Selection; whole?: boolean }) {
  const [typed, setTyped] = useState("");
  const [open, setOpen] = useState(false);
  const query = useQuery();
  const found = useAnswer<SeriesList>(open ? "series" : null, {
    q: typed,
    group: selection.group?.id ?? query.get("group"),
    limit: 20,
  });
  const choose = (names: string[]) =>
    go({
      series: names,
      hide: null,
      only: null,
      pin: null,
      baseline: names.includes(query.get("baseline") ?? "") ? query.get("baseline") : null,
    });
  return (
    <div class="picker">
      {selection.names.length > 0 && (
        <ul class="chips" aria-label="Series chosen">
          {selection.names.map((name) => (
            <li class="chip">
              <span>{name}</span>
              <button
                type="button"
                aria-label={`Remove ${name}`}
                onClick={() => choose(selection.names.filter((each) => each !== name))}
              >
                ×
              </button>
            </li>
          ))}
          {selection.group && (
            <li>
              <button type="button" class="quiet" onClick={() => choose([])}>
                whole group
              </button>
            </li>
          )}
        </ul>
      )}
      {selection.newest && !whole && (
        <span class="muted">
          newest {NEWEST} of {selection.group!.series}
          {selection.group!.series <= MOST && (
            <button type="button" class="quiet" onClick={() => go({ all: "1" })}>
              show all
            </button>
          )}
        </span>
      )}
      <div
        class="finder"
        onFocusOut={(event) => {
          if (!event.currentTarget.contains(event.relatedTarget as Node | null)) setOpen(false);
        }}
      >
        <input
          type="search"
          aria-label="Choose series by name"
          placeholder={selection.names.length ? "Add a series…" : "Choose series…"}
          value={typed}
          onFocus={() => setOpen(true)}
          onInput={(event) => setTyped(event.currentTarget.value)}
          onKeyDown={(event) => event.key === "Escape" && setOpen(false)}
        />
        {open && found.data && (
          <ul class="found" aria-label="Series found">
            {found.data.items
              .filter((each) => !selection.names.includes(each.name))
              .map((each) => (
                <li>
                  <button
                    type="button"
                    onClick={() => {
                      choose([...selection.names, each.name]);
                      setOpen(false);
                      setTyped("");
                    }}
                  >
                    <b>{each.name}</b>
                    <span class="muted">
                      {each.hardware.join(", ")} · {each.engines.slice(0, 2).join(", ")} · {each.last_measured_on}
                    </span>
                  </button>
                </li>
              ))}
            {found.data.items.length === 0 && <li class="muted">None found.</li>}
            {found.data.total > 20 && <li class="muted">{found.data.total - 20} more: type part of a name</li>}
          </ul>
        )}
      </div>
    </div>
  );
}

/** Names that the legend switched off: one by one, or all but one. */
export function useHidden(order: string[]): Set<string> {
  const query = useQuery();
  const only = query.get("only");
  return new Set(only === null ? query.getAll("hide") : order.filter((name) => name !== only));
}

/** One entry a series: a click hides or shows it, "only" leaves it alone, "all" restores. */
export function Legend({ series, order }: { series: ChartSeries[]; order: string[] }) {
  const theme = useTheme();
  const hidden = useHidden(order);
  const hide = (names: string[]) => go({ hide: names, only: null, pin: null });
  return (
    <div class="legend">
      <div class="legend-head">
        <h2>Series</h2>
        <button type="button" class="quiet" disabled={!hidden.size} onClick={() => hide([])}>
          Show all
        </button>
      </div>
      <ul>
        {series.map((each) => {
          const own = look(order.indexOf(each.name), theme);
          const off = hidden.has(each.name);
          return (
            <li class={off ? "off" : ""}>
              <button
                type="button"
                class="entry"
                aria-pressed={!off}
                title={each.describe}
                onClick={() => hide(off ? [...hidden].filter((name) => name !== each.name) : [...hidden, each.name])}
              >
                <svg width="26" height="12" aria-hidden="true">
                  <line
                    x1="0"
                    y1="6"
                    x2="26"
                    y2="6"
                    stroke={own.colour}
                    stroke-width="2.5"
                    stroke-dasharray={own.dash}
                  />
                  <path d={OUTLINES[own.symbol]} transform="translate(13,6)" fill={own.colour} />
                </svg>
                <span class="entry-name">{each.name}</span>
              </button>
              <button
                type="button"
                class="quiet"
                aria-label={`Show only ${each.name}`}
                onClick={() => go({ only: each.name, hide: null, pin: null })}
              >
                only
              </button>
              <small>
                {each.reason ??
                  [
                    each.hardware.join(", "),
                    each.engine,
                    plural(each.frontier.length, "point") +
                      (each.dominated_count ? ` + ${each.dominated_count} dominated` : ""),
                  ].join(" · ")}
              </small>
            </li>
          );
        })}
      </ul>
    </div>
  );
}
