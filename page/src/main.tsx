// The shell: which view, which theme, what is going on in the store.
import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { ComponentType } from "preact";
import type { Event as StoreEvent, Meta } from "../generated/contract";
import { follow, useAnswer } from "./answers";
import { Go } from "./links";
import { useTheme } from "./palette";
import { Empty, Refusal, type ViewProps } from "./parts";
import { plural } from "./text";
import { embedded, go, useQuery } from "./url";
import { AccuracyView } from "./views/accuracy";
import { AttributionView } from "./views/attribution";
import { CompareView } from "./views/compare";
import { FrontierView } from "./views/frontier";
import { HardwareView } from "./views/hardware";
import { HistoryView } from "./views/history";
import { OverviewView } from "./views/overview";
import { RunView } from "./views/run";
import { RunsView } from "./views/runs";
import "./style.css";

const VIEWS: Record<string, [string, ComponentType<ViewProps>]> = {
  overview: ["Overview", OverviewView],
  frontier: ["Frontier", FrontierView],
  compare: ["Compare", CompareView],
  history: ["History", HistoryView],
  attribution: ["Attribution", AttributionView],
  accuracy: ["Accuracy", AccuracyView],
  runs: ["Runs", RunsView],
  hardware: ["Hardware and prices", HardwareView],
};

function App() {
  const query = useQuery();
  const theme = useTheme();
  const { data: meta, problem } = useAnswer<Meta>("meta");
  const asked = query.get("view") ?? "overview";
  const [title, View] = asked === "run" ? (["Run", RunView] as const) : (VIEWS[asked] ?? VIEWS.overview!);
  useEffect(() => {
    document.documentElement.dataset.theme = theme.name;
    document.documentElement.classList.toggle("embedded", embedded());
  }, [theme]);
  useEffect(() => {
    document.title = `${title} · Upcurve`;
  }, [title]);
  if (problem && !meta)
    return (
      <main>
        <Refusal of={problem} />
      </main>
    );
  if (!meta)
    return (
      <main>
        <p class="waiting" aria-busy="true">
          Reading the store…
        </p>
      </main>
    );
  const body = meta.counts.points || asked === "hardware" ? <View meta={meta} key={asked} /> : <Empty meta={meta} />;
  if (embedded()) {
    return (
      <main>
        {body}
        <p class="credit">
          <Go to={{ embed: null }}>Upcurve {meta.version}</Go>
        </p>
      </main>
    );
  }
  return (
    <>
      <a class="skip" href="#content">
        Skip to content
      </a>
      <header>
        <Go to={{ view: "overview" }} class="brand">
          <img src="icon.svg" alt="" width="20" height="20" /> Upcurve
        </Go>
        <nav aria-label="Views">
          {Object.entries(VIEWS).map(([name, [text]]) => (
            <Go to={{ view: name }} current={name === asked || (asked === "run" && name === "runs")}>
              {text}
            </Go>
          ))}
        </nav>
        <Live meta={meta} />
        <button
          type="button"
          class="quiet"
          aria-label={theme.name === "dark" ? "Light theme" : "Dark theme"}
          onClick={() => go({ theme: theme.name === "dark" ? "light" : "dark" }, true)}
        >
          {theme.name === "dark" ? "☀" : "☾"}
        </button>
      </header>
      <main id="content" tabIndex={-1}>
        {asked !== "run" && <h1 class={asked === "overview" ? "spoken" : ""}>{title}</h1>}
        {body}
      </main>
      <footer>
        Upcurve {meta.version}
        {meta.live && (
          <>
            {" "}
            · <a href="api/docs">API</a>
          </>
        )}
        {meta.exported_at && (
          <>
            {" "}
            · exported {meta.exported_at.slice(0, 16).replace("T", " ")} UTC; live points, other prices and rules need{" "}
            <code>upcurve dashboard</code>
          </>
        )}
        {" · "}
        <a href="licences.txt">Licences</a>
      </footer>
    </>
  );
}

/** What arrives while the page is open, and what is being measured. */
function Live({ meta }: ViewProps) {
  const [event, setEvent] = useState<StoreEvent | "lost" | null>(null);
  useEffect(() => (meta.live ? follow(setEvent) : undefined), [meta.live]);
  if (!meta.live) return <span class="live muted">static export</span>;
  if (event === "lost")
    return (
      <span class="live bad" role="status">
        not connected
      </span>
    );
  const running = event?.running.map((each) => each.series) ?? [];
  const fresh = event?.points.length ?? 0;
  return (
    <span class="live" role="status">
      <span class={running.length ? "dot on" : "dot"} aria-hidden="true" />
      {running.length > 0 ? `measuring ${[...new Set(running)].slice(0, 2).join(", ")}` : "live"}
      {fresh > 0 && <b> · {plural(fresh, "new point")}</b>}
    </span>
  );
}

render(<App />, document.getElementById("app")!);
