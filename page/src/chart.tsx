// One chart: drawn by Observable Plot, read by pointer and keyboard, taken away as a file.
import type { ComponentChildren } from "preact";
import { useId, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { download, toCsv, toPng, toSvg, type Cell } from "./chart_files";
import { draw, pixels, type Drawing } from "./drawing";
import { LIGHT, useTheme } from "./palette";
import { Ring, Tip } from "./tip";
import { embedded, go, href, useQuery } from "./url";

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
            <button type="button" class="quiet" onClick={run}>
              {type}
            </button>
          ))}
          {embedded() ? (
            <a class="quiet" href={href({ embed: null, chart: null })} target="_blank" rel="noopener">
              Open
            </a>
          ) : (
            <a class="quiet" href={embedAddress(name)} target="_blank" rel="noopener">
              Embed
            </a>
          )}
        </div>
      </div>
      {children}
      {legend && (
        <ul class="swatches">
          {drawing.swatches?.(theme).map((each) => (
            <li>
              <span class="swatch" style={{ background: each.colour }} />
              {each.name}
            </li>
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
        {spot && hit && <Tip hit={hit} at={spot} width={width} pinned={shown === pinned} close={() => pin(null)} />}
      </div>
      <p class="spoken" role="status">
        {active !== null && hit ? `${hit.title}. ${hit.rows.map((row) => row.join(" ")).join(", ")}` : ""}
      </p>
      {notes.length > 0 && (
        <ul class="notes">
          {notes.map((note) => (
            <li>{note}</li>
          ))}
        </ul>
      )}
    </figure>
  );
}

function embedAddress(name: string): string {
  const search = href({ chart: name, pin: null });
  if (document.documentElement.dataset.mode === "static") return href({ chart: name, pin: null, embed: "1" });
  return `embed${search}`;
}
