"""The demo's ratio, optimised over baseline, at each target, with its spread over the rounds.

    python benchmarks/demo_ratio.py [--repeats 3]

Runs `upcurve demo` into a folder that is thrown away and prints one table. Each round launches a
fresh engine for either series, in alternating order, so its ratio is paired.
"""

import argparse
import csv
import io
import subprocess
import sys
import tempfile
import time


def upcurve(*words):
    return subprocess.run(
        [sys.executable, "-m", "upcurve", *words], check=True, capture_output=True, text=True
    ).stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as store:
        started = time.perf_counter()
        upcurve("demo", "--repeats", str(arguments.repeats), "--store", store)
        seconds = time.perf_counter() - started
        series = ("baseline", "optimised", "--baseline", "baseline", "--store", store)
        rows = list(csv.DictReader(io.StringIO(upcurve("compare", *series, "--format", "csv"))))
    print(f"{arguments.repeats} rounds, {seconds:.0f} s")
    print("tok/s/user  baseline tok/s  optimised tok/s  ratio  by round")
    by_target = {}
    for row in rows:
        by_target.setdefault(float(row["interactivity"]), {})[row["series"]] = row
    for target, both in by_target.items():
        off, on = both["baseline"], both["optimised"]
        spread = "not every round reaches it"
        if on["round_ratio_min"]:
            low, high = float(on["round_ratio_min"]), float(on["round_ratio_max"])
            spread = f"{low:.2f} to {high:.2f}"
        values = [float(each["tput_per_gpu"]) for each in (off, on)]
        ratio = float(on["ratio"])
        print(f"{target:10g}  {values[0]:14.1f}  {values[1]:15.1f}  {ratio:5.2f}  {spread}")


if __name__ == "__main__":
    main()
