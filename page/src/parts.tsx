// Small things that every view uses.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Flag, Group, Link, Meta, Problem } from "../generated/contract";
import type { Answered } from "./answers";
import { ReferenceLink } from "./links";
import { plural, words } from "./text";
import { go, useQuery, type Changes } from "./url";

export interface ViewProps {
  meta: Meta;
}

/** What an answer shows: the refusal in its own words, or the view; the old one while it waits. */
export function Waiting<T>({ on, children }: { on: Answered<T>; children: (data: T) => ComponentChildren }) {
  if (on.problem) return <Refusal of={on.problem} />;
  if (!on.data)
    return (
      <p class="waiting" aria-busy="true">
        Reading the store…
      </p>
    );
  return <div aria-busy={on.loading}>{children(on.data)}</div>;
}

export function Refusal({ of }: { of: Problem }) {
  return (
    <div class="refusal" role="alert">
      <strong>
        {of.field ? `${words(of.field)}: ` : ""}
        {of.problem}
      </strong>
      <span>{of.mend}</span>
    </div>
  );
}

interface SelectProps {
  label: string;
  name: string;
  options: [string, string][];
  value: string;
  usual?: string;
  also?: Changes;
}

/** A choice that is kept in the URL; the usual one needs no parameter. */
export function Select({ label, name, options, value, usual, also }: SelectProps) {
  return (
    <label class="field">
      <span>{label}</span>
      <select
        value={value}
        onChange={(event) => {
          const chosen = event.currentTarget.value;
          go({ ...also, pin: null, [name]: chosen === usual ? null : chosen });
        }}
      >
        {options.map(([each, text]) => (
          <option value={each}>{text}</option>
        ))}
      </select>
    </label>
  );
}

export function Toggle({ label, name, usual = false }: { label: string; name: string; usual?: boolean }) {
  const given = useQuery().get(name);
  const on = given === null ? usual : given !== "0";
  return (
    <label class="toggle">
      <input type="checkbox" checked={on} onChange={() => go({ [name]: !on === usual ? null : on ? "0" : "1" })} />
      <span>{label}</span>
    </label>
  );
}

interface InputProps {
  label: string;
  name: string;
  value: string;
  placeholder?: string;
  size?: number;
  type?: "text" | "date";
  /** What the URL keeps of what was typed. */
  read?: (text: string) => string | null;
  also?: Changes;
}

/** A text that goes to the URL when it is left or Enter is pressed. */
export function Input({ label, name, value, placeholder, size, type = "text", read, also }: InputProps) {
  const box = useRef<HTMLInputElement>(null);
  useEffect(() => void (box.current!.value = value), [value]);
  return (
    <label class="field">
      <span>{label}</span>
      <input
        ref={box}
        type={type as "text"}
        size={size}
        defaultValue={value}
        placeholder={placeholder}
        spellcheck={false}
        autocomplete="off"
        onKeyDown={(event) => event.key === "Enter" && event.currentTarget.blur()}
        onChange={(event) => {
          const typed = event.currentTarget.value.trim();
          const kept = read ? read(typed) : typed;
          event.currentTarget.value = kept ?? "";
          if ((kept ?? "") !== value) go({ ...also, [name]: kept });
        }}
      />
    </label>
  );
}

/** A search that follows typing. */
export function Search({ label, name, also }: { label: string; name: string; also?: Changes }) {
  const value = useQuery().get(name) ?? "";
  const [typed, setTyped] = useState(value);
  useEffect(() => setTyped(value), [value]);
  useEffect(() => {
    if (typed === value) return;
    const timer = setTimeout(() => go({ ...also, [name]: typed }, true), 150);
    return () => clearTimeout(timer);
  }, [typed]);
  return (
    <label class="field">
      <span>{label}</span>
      <input type="search" value={typed} onInput={(event) => setTyped(event.currentTarget.value)} spellcheck={false} />
    </label>
  );
}

/** A table that scrolls by itself where it is wider than the page. */
export function Scroll({ label, children }: { label: string; children: ComponentChildren }) {
  return (
    <div class="scroll" role="region" aria-label={label} tabIndex={0}>
      {children}
    </div>
  );
}

export function Paging({ total, offset, size }: { total: number; offset: number; size: number }) {
  if (total <= size && !offset) return null;
  const step = (to: number) => () => go({ offset: to || null });
  return (
    <nav class="paging" aria-label="Pages">
      <button type="button" disabled={offset <= 0} onClick={step(Math.max(0, offset - size))}>
        Previous
      </button>
      <span>
        {(offset + 1).toLocaleString("en-US")} to {Math.min(total, offset + size).toLocaleString("en-US")} of{" "}
        {total.toLocaleString("en-US")}
      </span>
      <button type="button" disabled={offset + size >= total} onClick={step(offset + size)}>
        Next
      </button>
    </nav>
  );
}

export function groupName(group: Group): string {
  return `${group.model}, ${group.isl.toLocaleString("en-US")} in / ${group.osl.toLocaleString("en-US")} out`;
}

/** Texts of one kind of flag that are shown at once; more stand behind a click. */
const SHOWN = 3;

/** Flags with the same words told once, with the places they hold at. */
export function Flags({ of }: { of: { flag: Flag; where?: string }[] }) {
  const kinds = new Map<string, Map<string, string[]>>();
  for (const { flag, where } of of) {
    const texts = kinds.get(flag.code) ?? new Map<string, string[]>();
    texts.set(flag.text, [...(texts.get(flag.text) ?? []), ...(where ? [where] : [])]);
    kinds.set(flag.code, texts);
  }
  if (!kinds.size) return null;
  const said = ([text, where]: [string, string[]]) => (
    <>
      {text}
      {where.length > 0 && <span class="muted"> ({places(where)})</span>}
    </>
  );
  return (
    <ul class="flags">
      {[...kinds].flatMap(([code, texts]) =>
        texts.size <= SHOWN ? (
          [...texts].map((each) => (
            <li>
              <b>{words(code)}</b> {said(each)}
            </li>
          ))
        ) : (
          <li>
            <details>
              <summary>
                <b>{words(code)}</b> <span class="muted">{plural(texts.size, "note")}</span>
              </summary>
              <ul>
                {[...texts].map((each) => (
                  <li>{said(each)}</li>
                ))}
              </ul>
            </details>
          </li>
        ),
      )}
    </ul>
  );
}

/** "feb at 20", "feb at 40", "apr at 20" as "feb at 20, 40; apr at 20"; many are counted. */
function places(where: string[]): string {
  const bySeries = new Map<string, string[]>();
  for (const each of where) {
    const at = each.lastIndexOf(" at ");
    const [name, target] = at < 0 ? [each, ""] : [each.slice(0, at), each.slice(at + 4)];
    bySeries.set(name, [...(bySeries.get(name) ?? []), target]);
  }
  const texts = [...bySeries].map(([name, targets]) => (targets[0] ? `${name} at ${targets.join(", ")}` : name));
  return texts.length > 6 ? `${texts.slice(0, 5).join("; ")} and ${texts.length - 5} more series` : texts.join("; ");
}

export function ChangeLink({ of }: { of: Link }) {
  return <ReferenceLink of={{ text: of.text, url: of.url ?? undefined }} />;
}

export function Facts({ of }: { of: Record<string, unknown> | null | undefined }) {
  const entries = Object.entries(of ?? {}).filter(([, value]) => value !== null && value !== "");
  if (!entries.length) return <p class="muted">Not recorded.</p>;
  return (
    <dl class="facts">
      {entries.map(([name, value]) => (
        <div>
          <dt>{words(name)}</dt>
          <dd>{typeof value === "object" ? JSON.stringify(value) : String(value)}</dd>
        </div>
      ))}
    </dl>
  );
}

export function Empty({ meta }: { meta: Meta }) {
  return (
    <section class="empty">
      <h1>This store is empty</h1>
      <p>
        Nothing was measured or imported into <code>{meta.store}</code> yet. Bring in the published curves:
      </p>
      <pre tabIndex={0}>upcurve import published:mi355x-qwen35 --store {meta.store}</pre>
      <p>or measure a recipe, and watch its points appear here:</p>
      <pre tabIndex={0}>upcurve sweep recipes/qwen35-small-cpu.yaml --store {meta.store}</pre>
    </section>
  );
}

export const left = (count: number, noun: string): string => (count ? `${plural(count, noun)} left off.` : "");
