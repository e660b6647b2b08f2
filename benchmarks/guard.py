"""Guard against regressions that does not trust absolute times.

    python -m benchmarks.guard RUN.json [AGAIN.json ...] [--results DIR]

The ratio time(kdops) / time(baseline), the fastest rounds of one run (what else runs on a machine
disturbs them least), is compared with the same case's ratio in the committed results, a full or a
--quick run. Of several runs of the same code the best ratio counts: what was slow once was
disturbed. Past 1.3 times it warns, past 2 times it fails (exit status 1). Cases below 50 us and the
training iterations, which are mostly convolution, only warn. What is in only one of the two, or was
committed for other thread counts only, is named and decides nothing. Results of other processors
only, whose BLAS may be worth more or less, let nothing fail.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.records import Groups, load, ours

WARN, FAIL = 1.3, 2.0
TINY = 50e-6
RESULTS = Path(__file__).parent / "results"


def ratios(groups: Groups) -> dict[tuple[str, int | None], tuple[float, bool]]:
    """(group, threads) -> (time of kdops over that of the baseline, whether it may fail)."""
    found = {}
    for group, rows in groups.items():
        mine = ours(rows)
        base = next((r for r in rows if r.provider == r.info.get("baseline")), None)
        if mine is None or base is None or mine is base:
            continue
        firm = mine.least >= TINY and mine.info.get("op") not in ("iteration", "overhead")
        found[group, mine.info.get("threads")] = (mine.least / base.least, firm)
    return found


def processor(record: dict[str, Any]) -> tuple[Any, ...]:
    """Vendor, family and model of the CPU of a record."""
    cpu = record.get("machine_info", {}).get("cpu", {})
    return tuple(cpu.get(name) for name in ("vendor_id_raw", "family", "model"))


def best_known(committed: list[Groups]) -> dict[tuple[str, int | None], float]:
    """The largest ratio of each case in all committed results."""
    known: dict[tuple[str, int | None], float] = {}
    for groups in committed:
        for key, (ratio, _) in ratios(groups).items():
            known[key] = max(ratio, known.get(key, 0.0))
    return known


def best_measured(runs: list[Groups]) -> dict[tuple[str, int | None], tuple[float, bool]]:
    """The smallest ratio of each case in all runs."""
    best: dict[tuple[str, int | None], tuple[float, bool]] = {}
    for run in runs:
        for key, found in ratios(run).items():
            best[key] = min(found, best.get(key, found))
    return best


def compare(runs: list[Groups], committed: list[Groups]) -> tuple[list[str], list[str], int]:
    """(warnings, failures, number of cases compared)."""
    known = best_known(committed)
    warnings, failures, count = [], [], 0
    for key, (ratio, firm) in best_measured(runs).items():
        if key not in known:
            continue
        count += 1
        growth = ratio / known[key]
        if growth > WARN:
            text = f"{key[0]}: kdops/baseline {ratio:.4f}, committed {known[key]:.4f}"
            bad = growth > FAIL and firm
            (failures if bad else warnings).append(f"{text} ({growth:.2f} times)")
    return warnings, failures, count


def one_sided(runs: list[Groups], committed: list[Groups]) -> list[str]:
    """Lines that name the cases only the run has, and the quick ones only the results have."""
    known, measured = best_known(committed), best_measured(runs)
    quick = {
        group
        for groups in committed
        for group, rows in groups.items()
        if (mine := ours(rows)) is not None and mine.info.get("slow") is False
    }
    new = [group for group, threads in measured if (group, threads) not in known]
    gone = sorted(quick.difference(*runs))
    return [
        f"{len(names)} {what}: " + "; ".join([*names[:8], *(["..."] if len(names) > 8 else [])])
        for names, what in (
            (new, "cases without a committed ratio at this thread count"),
            (gone, "committed quick cases that were not run"),
        )
        if names
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard")
    parser.add_argument("run", type=Path, nargs="+", help="JSON of this run, and of others like it")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of committed JSON")
    options = parser.parse_args(arguments)
    records = [load(path) for path in sorted(options.results.glob("*.json"))]
    if not records:
        print(f"guard: no committed results in {options.results}, nothing to compare with")
        return 0
    here = [load(path) for path in options.run]
    runs = [groups for _, groups in here]
    alike = [groups for record, groups in records if processor(record) == processor(here[0][0])]
    committed = alike or [groups for _, groups in records]
    if not alike:
        print("guard: no committed results of this processor: nothing can fail")
    warnings, failures, count = compare(runs, committed)
    for text in one_sided(runs, committed):
        print(f"guard: not compared: {text}")
    for text in warnings:
        print(f"guard: warning: {text}")
    for text in failures:
        print(f"guard: FAILED: {text}")
    print(f"guard: {count} cases compared, {len(warnings)} warnings, {len(failures)} failures")
    return 1 if failures and alike else 0


if __name__ == "__main__":
    sys.exit(main())
