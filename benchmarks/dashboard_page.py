"""The dashboard's page in a browser: how long until it is there, and until it shows what is asked.

    python benchmarks/dashboard_page.py

First contentful paint and time to interactive are of a fresh browser window on the published data
and on a store of 5,000 series and 200,000 points; interactive is when the view is drawn and nothing
more changes. Redraws are from the click to the frame after the new chart, answers of the API
included: `first` where nobody asked before, `again` where the page or the server knows the answer.
CPU is the page's main thread's, for each redraw: what another load of the machine does not change.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dashboard_store
from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.table import Table

import upcurve.dashboard

STATIC = Path(upcurve.dashboard.__file__).parent / "static"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
QUIET_MS = 400

WATCH = """
window.changed = 0;
addEventListener("DOMContentLoaded", () => new MutationObserver(() => {
  window.changed = performance.now();
}).observe(document.body, {childList: true, subtree: true, attributes: true}));
"""

REDRAW = """
async (steps) => {
  const took = [];
  for (const [selector, value] of steps) {
    const element = selector && document.querySelector(selector);
    const place = document.querySelector(".plot-place");
    const before = place.dataset.drawn;
    const started = performance.now();
    const redrawn = new Promise((resolve) => {
      const observer = new MutationObserver(() => {
        const now = document.querySelector(".plot-place");
        if (now && (now !== place || now.dataset.drawn !== before)) {
          observer.disconnect();
          requestAnimationFrame(() => requestAnimationFrame(resolve));
        }
      });
      observer.observe(document.body, {childList: true, subtree: true, attributes: true});
    });
    if (!selector) {
      history.pushState(null, "", value);
      dispatchEvent(new PopStateEvent("popstate"));
    } else if (value === null) element.click();
    else {
      element.value = value;
      element.dispatchEvent(new Event("change", {bubbles: true}));
    }
    await redrawn;
    took.push(performance.now() - started);
    await new Promise((resolve) => setTimeout(resolve, 60));
  }
  return took;
}
"""


@contextmanager
def dashboard(store: Path) -> Iterator[tuple[str, float]]:
    """Yield the address of a dashboard, and the seconds from launch to its first answer."""
    command = [sys.executable, "-m", "upcurve", "dashboard", "--port", "0", "--json"]
    started = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--store", str(store)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout
    url = json.loads(process.stdout.readline())["url"]
    took = time.perf_counter() - started
    try:
        yield url, took
    finally:
        process.terminate()
        process.wait()


def opened(page: Page, url: str) -> tuple[float, float]:
    """Return first contentful paint and time to interactive of an address, in ms."""
    page.goto(url)
    page.wait_for_selector("main")
    page.wait_for_selector("[aria-busy=true]", state="detached", timeout=60_000)
    while page.evaluate("performance.now() - window.changed") < QUIET_MS:
        page.wait_for_timeout(50)
    paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    return page.evaluate(paint), page.evaluate("window.changed")


def redraws(page: Page, url: str) -> dict[str, tuple[list[float], float]]:
    """Return ms from each kind of click to its redraw, and CPU ms of the page's main thread."""
    found: dict[str, tuple[list[float], float]] = {}
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def cpu_ms() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(1000 * each["value"] for each in metrics if each["name"] == "TaskDuration")

    def measure(name: str, steps: Sequence[tuple[str, str | None]]) -> None:
        before = cpu_ms()
        times = page.evaluate(REDRAW, steps)
        found[name] = times, (cpu_ms() - before) / len(steps)

    opened(page, f"{url}?view=frontier")
    groups: list[str] = page.eval_on_selector_all(
        ".bar .field:first-child option", "all => all.map(each => each.value)"
    )
    group = ".bar .field:first-child select"
    chosen = groups[1:11]
    measure("model and workload, first", [(group, each) for each in chosen])
    measure("model and workload, again", [(group, each) for each in chosen])
    answer = page.request.get(f"{url}api/v1/series?group={groups[0]}&limit=20").json()
    query = f"?view=frontier&group={groups[0]}"
    adding = []
    for item in answer["items"]:
        query += f"&series={item['name']}"
        adding.append(("", query))
    page.evaluate(REDRAW, [("", f"?view=frontier&group={groups[11]}")])
    measure("one more series, up to 20, first", adding)
    measure("one more series, up to 20, again", adding)
    page.evaluate(REDRAW, [("", f"?view=frontier&group={groups[0]}")])
    hide, show = ".legend .entry", ".legend-head button"
    measure("legend: hide and show", [(hide, None), (show, None)] * 10)
    axis = "label.field:has(option[value=joules]) select"
    vertical = [(axis, each) for each in ("cost", "input", "total")]
    measure("vertical axis, first", vertical)
    measure("vertical axis, again", vertical * 3)
    toggle = ".toggles label:nth-child({}) input"
    measure("log scale, intervals", [(toggle.format(5), None), (toggle.format(1), None)] * 5)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    arguments = parser.parse_args()
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        published, big = Path(folder) / "published", Path(folder) / "big"
        command = [sys.executable, "-m", "upcurve", "import", "published:mi355x-qwen35"]
        subprocess.run([*command, "--store", published], check=True, capture_output=True)
        dashboard_store.make(big).close()
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=FLAGS)
        table = Table("page", "first contentful paint, ms", "interactive, ms", "start, s")
        preset = "?view=compare&series=feb&series=apr&series=may&baseline=feb&at=20,30,40,50,60"
        redrawn: dict[str, tuple[list[float], float]] = {}
        for name, store, query in [
            ("published, overview", published, ""),
            ("published, the MI355X story", published, preset),
            ("5,000 series, overview", big, ""),
            ("5,000 series, frontier", big, "?view=frontier"),
        ]:
            with dashboard(store) as (url, start):
                times: list[tuple[float, float]] = []
                for _ in range(arguments.repeats):
                    context = browser.new_context()
                    page = context.new_page()
                    page.add_init_script(WATCH)
                    times.append(opened(page, url + query))
                    context.close()
                if name == "5,000 series, frontier":
                    page = browser.new_page(viewport={"width": 1280, "height": 900})
                    page.add_init_script(WATCH)
                    redrawn = redraws(page, url)
            columns = [_spread([each[index] for each in times]) for index in (0, 1)]
            table.add_row(name, *columns, f"{start:.2f}")
        browser.close()
    console.print(table)
    table = Table("from click to redraw", "times", "median, ms", "p95, ms", "worst, ms", "CPU, ms")
    for name, (each, cpu) in redrawn.items():
        ranked = sorted(each)
        p95 = ranked[min(len(ranked) - 1, int(0.95 * len(ranked)))]
        middle = statistics.median(each)
        figures = (middle, p95, ranked[-1], cpu)
        table.add_row(name, str(len(each)), *(f"{figure:.0f}" for figure in figures))
    console.print(table)
    table = Table("page weight", "bytes", "compressed")
    names = ["index.html", "app.js", "app.css", "icon.svg"]
    contents = [(STATIC / name).read_bytes() for name in names]
    sizes = [(len(each), len(gzip.compress(each))) for each in contents]
    sizes.append((sum(each for each, _ in sizes), sum(each for _, each in sizes)))
    for name, (plain, packed) in zip([*names, "all"], sizes, strict=True):
        table.add_row(name, f"{plain:,}", f"{packed:,}")
    console.print(table)


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


if __name__ == "__main__":
    main()
