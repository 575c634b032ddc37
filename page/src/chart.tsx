// One chart: drawn by Observable Plot, read by pointer and keyboard, taken away as a file.
import * as Plot from "@observablehq/plot";
import { useId, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { ComponentChildren } from "preact";
import { download, toCsv, toPng, toSvg, type Cell } from "./chart_files";
import { FONT, LIGHT, useTheme, type Theme } from "./palette";
import { embedded, go, href, useQuery, type Changes } from "./url";

export interface Reference {
  text: string;
  /** A view of this page. */
  to?: Changes;
  /** A page elsewhere. */
  url?: string;
}

/** A place of a chart that can be pointed at: by mouse, finger or arrow keys. */
export interface Hit {
  id: string;
  x: number | string | Date;
  y: number | string;
  colour: string;
  title: string;
  rows: [string, string][];
  links?: Reference[];
}

export interface Swatch {
  name: string;
  colour: string;
}

export interface Drawing {
  /** The marks and scales at a width in pixels. */
  options: (width: number, theme: Theme) => Plot.PlotOptions;
  hits: (theme: Theme) => Hit[];
  swatches?: (theme: Theme) => Swatch[];
}

interface Props {
  /** Of the files, and of the chart when embedded. */
  name: string;
  title: string;
  drawing: Drawing;
  /** Source, date and assumptions: under the chart and in every file. */
  notes: string[];
  /** What stands elsewhere on the page, and must be in every file too. */
  fileNotes?: string[];
  /** Whether the colours are named above the chart. */
  legend?: boolean;
  rows: Record<string, Cell>[];
  children?: ComponentChildren;
}

const REACH = 28;

export function draw(drawing: Drawing, width: number, theme: Theme): (SVGSVGElement | HTMLElement) & Plot.Plot {
  return Plot.plot({
    width,
    className: "plot",
    style: { color: theme.text, background: "transparent", fontSize: "12px", fontFamily: FONT },
    ...drawing.options(width, theme),
  });
}

/** Pixels of a place, from the scales of the chart as drawn; bands by their middle. */
function pixels(plot: Plot.Plot, hit: Hit): [number, number] {
  const of = (name: "x" | "y", value: Hit["x"]) => {
    const scale = plot.scale(name);
    return scale ? Number(scale.apply(value)) + (scale.bandwidth ?? 0) / 2 : NaN;
  };
  return [of("x", hit.x), of("y", hit.y)];
}

export function Chart({ name, title, drawing, notes, fileNotes = [], legend, rows, children }: Props) {
  const theme = useTheme();
  const query = useQuery();
  const id = useId();
  const place = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  const [spots, setSpots] = useState<[number, number][]>([]);
  const [active, setActive] = useState<number | null>(null);
  const hits = useMemo(() => drawing.hits(theme), [drawing, theme]);
  const pinned = hits.findIndex((hit) => hit.id === query.get("pin"));
  const shown = active ?? (pinned >= 0 ? pinned : null);

  useLayoutEffect(() => {
    const element = place.current!;
    const measure = () => setWidth(Math.floor(element.clientWidth));
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    measure();
    return () => observer.disconnect();
  }, []);

  useLayoutEffect(() => {
    if (!width) return;
    const plot = draw(drawing, width, theme);
    // Plot brings its rules as a style element, which the page's policy forbids; style.css has them.
    plot.querySelectorAll("style").forEach((each) => each.remove());
    plot.setAttribute("aria-hidden", "true");
    place.current!.replaceChildren(plot);
    place.current!.dataset.drawn = String(Number(place.current!.dataset.drawn ?? 0) + 1);
    setSpots(hits.map((hit) => pixels(plot, hit)));
    setActive(null);
  }, [drawing, width, theme, hits]);

  const nearest = (event: PointerEvent | MouseEvent): number | null => {
    const box = place.current!.getBoundingClientRect();
    let best: number | null = null;
    let least = REACH ** 2;
    spots.forEach(([x, y], index) => {
      const distance = (x - (event.clientX - box.left)) ** 2 + (y - (event.clientY - box.top)) ** 2;
      if (distance < least) [best, least] = [index, distance];
    });
    return best;
  };

  const pin = (index: number | null) => {
    go({ pin: index === null ? null : hits[index]!.id }, true);
    setActive(null);
  };

  const key = (event: KeyboardEvent) => {
    const steps: Record<string, number> = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    const step = steps[event.key];
    if (step && hits.length) {
      setActive(((shown ?? (step > 0 ? -1 : 0)) + step + hits.length) % hits.length);
    } else if (event.key === "Home" && hits.length) setActive(0);
    else if (event.key === "End" && hits.length) setActive(hits.length - 1);
    else if (event.key === "Enter" && active !== null) pin(active);
    else if (event.key === "Escape") pin(null);
    else return;
    event.preventDefault();
  };

  const hit = shown === null ? undefined : hits[shown];
  const spot = shown === null ? undefined : spots[shown];
  const about = { title, notes: [...notes, ...fileNotes, `Link: ${location.href}`] };
  const file = (type: string) => `${name}.${type}`;
  const save = {
    CSV: () => download(file("csv"), toCsv(about, rows), "text/csv"),
    SVG: () => download(file("svg"), toSvg(about, drawing, LIGHT), "image/svg+xml"),
    PNG: () => void toPng(about, drawing, LIGHT).then((blob) => download(file("png"), blob)),
  };

  return (
    <figure class="chart" aria-labelledby={`${id}-title`} data-chart={name}>
      <div class="chart-head">
        <figcaption id={`${id}-title`}>{title}</figcaption>
        <div class="chart-tools" role="group" aria-label={`Take away: ${title}`}>
          {Object.entries(save).map(([type, run]) => (
            <button type="button" class="quiet" onClick={run}>{type}</button>
          ))}
          {embedded() ? (
            <a class="quiet" href={href({ embed: null, chart: null })} target="_blank" rel="noopener">Open</a>
          ) : (
            <a class="quiet" href={embedAddress(name)} target="_blank" rel="noopener">Embed</a>
          )}
        </div>
      </div>
      {children}
      {legend && (
        <ul class="swatches">
          {drawing.swatches?.(theme).map((each) => (
            <li><span class="swatch" style={{ background: each.colour }} />{each.name}</li>
          ))}
        </ul>
      )}
      <div
        class="plot-box"
        role="application"
        tabIndex={0}
        aria-label={`${title}: ${hits.length} points. Arrow keys go from point to point, Enter pins one, Escape lets go.`}
        onKeyDown={key}
        onPointerMove={(event) => setActive(nearest(event))}
        onPointerLeave={() => setActive(null)}
        onBlur={() => setActive(null)}
        onClick={(event) => pin(nearest(event))}
      >
        <div ref={place} class="plot-place" />
        {spot && hit && <Ring at={spot} colour={hit.colour} />}
        {spot && hit && (
          <Tip hit={hit} at={spot} width={width} pinned={shown === pinned} close={() => pin(null)} />
        )}
      </div>
      <p class="spoken" role="status">
        {active !== null && hit ? `${hit.title}. ${hit.rows.map((row) => row.join(" ")).join(", ")}` : ""}
      </p>
      {notes.length > 0 && (
        <ul class="notes">{notes.map((note) => <li>{note}</li>)}</ul>
      )}
    </figure>
  );
}

function embedAddress(name: string): string {
  const search = href({ chart: name, pin: null });
  if (document.documentElement.dataset.mode === "static") return href({ chart: name, pin: null, embed: "1" });
  return `embed${search}`;
}

function Ring({ at, colour }: { at: [number, number]; colour: string }) {
  return (
    <svg class="ring" style={{ left: `${at[0] - 9}px`, top: `${at[1] - 9}px` }} width="18" height="18" aria-hidden="true">
      <circle cx="9" cy="9" r="7" fill="none" stroke={colour} stroke-width="2" />
    </svg>
  );
}

interface TipProps {
  hit: Hit;
  at: [number, number];
  width: number;
  pinned: boolean;
  close: () => void;
}

function Tip({ hit, at, width, pinned, close }: TipProps) {
  const box = useRef<HTMLDivElement>(null);
  const [[left, top], place] = useState([0, 0]);
  useLayoutEffect(() => {
    const { offsetWidth: wide, offsetHeight: high, parentElement } = box.current!;
    const right = at[0] + 14;
    // Beside the point, and above it in the lower half: the rest of the curve stays in sight.
    place([
      right + wide <= width ? right : Math.max(0, at[0] - wide - 14),
      at[1] > parentElement!.offsetHeight / 2 ? at[1] - high - 10 : at[1] + 10,
    ]);
  }, [at[0], at[1], width, hit, pinned]);
  return (
    <div
      ref={box}
      class={pinned ? "tip pinned" : "tip"}
      style={{ left: `${left}px`, top: `${top}px` }}
      onClick={(event) => event.stopPropagation()}
    >
      <div class="tip-head">
        <span class="swatch" style={{ background: hit.colour }} aria-hidden="true" />
        <strong>{hit.title}</strong>
        {pinned && (
          <button type="button" class="quiet" aria-label="Unpin" onClick={close}>×</button>
        )}
      </div>
      <dl>
        {hit.rows.map(([label, value]) => (
          <div><dt>{label}</dt><dd>{value}</dd></div>
        ))}
      </dl>
      {hit.links && hit.links.length > 0 && pinned && (
        <ul>{hit.links.map((each) => <li><ReferenceLink of={each} /></li>)}</ul>
      )}
      {!pinned && <p class="hint">Click or Enter pins{hit.links?.length ? " and shows links" : ""}</p>}
    </div>
  );
}

export function ReferenceLink({ of }: { of: Reference }) {
  if (of.url) return <a href={of.url} target="_blank" rel="noopener noreferrer">{of.text}</a>;
  if (of.to) return <Go to={of.to}>{of.text}</Go>;
  return <>{of.text}</>;
}

interface GoProps {
  to: Changes;
  class?: string;
  current?: boolean;
  children: ComponentChildren;
}

/** A link to another state of the page. */
export function Go({ to, class: name, current, children }: GoProps) {
  return (
    <a
      href={href(to)}
      class={name}
      aria-current={current ? "page" : undefined}
      target={embedded() ? "_blank" : undefined}
      onClick={(event) => {
        if (event.button || event.metaKey || event.ctrlKey || event.shiftKey || embedded()) return;
        event.preventDefault();
        go(to);
        scrollTo(0, 0);
      }}
    >
      {children}
    </a>
  );
}
