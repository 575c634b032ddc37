import subprocess
import sys

from upcurve.records.store import Store


def upcurve(*words, timeout=100):
    return subprocess.run(
        [sys.executable, "-m", "upcurve", *words],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def test_the_demo_serves_sweeps_compares_and_shows(tmp_path):
    store = tmp_path / "results"
    done = upcurve("demo", "--concurrency", "1,2", "--repeats", "1", "--store", str(store))
    assert done.returncode == 0, done.stderr
    for step in range(1, 6):
        assert f"[{step}/5]" in done.stderr
    for text in ("baseline", "optimised", "19.0x", "unreachable", "tokens/s per CPU"):
        assert text in done.stdout
    page = (store / "reports" / "demo.html").read_text()
    assert "may gives 3.86x to 19.0x the throughput of feb at 20 to 40 tokens/s per user" in page
    with Store.open(store, create=False) as opened:
        summaries = {each.name: each for each in opened.series()}
        assert {name: each.points for name, each in summaries.items()} == {
            "baseline": 2,
            "optimised": 2,
            "feb": 5,
            "apr": 8,
            "may": 8,
        }
        off, on = (summaries[name].fingerprints for name in ("baseline", "optimised"))
        assert len(off) == len(on) == 1
        assert off != on
    again = upcurve("compare", "baseline", "optimised", "--json", "--store", str(store))
    assert again.returncode == 0, again.stderr


def test_a_store_that_is_no_folder_is_refused_before_any_work(tmp_path):
    done = upcurve("demo", "--store", "postgresql://localhost/none")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("upcurve: error: store: ")
