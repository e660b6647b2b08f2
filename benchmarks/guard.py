"""Guard against regressions that does not trust absolute times.

    python -m benchmarks.guard RUN.json [AGAIN.json ...] [--results DIR] [--failed FILE]

The ratios time(kdops) / time(another form), the fastest rounds of one run (what else runs on a
machine disturbs them least), are compared with the best ones of the same case in the committed
records of the same processor or, where there is none, of the same instruction set. A case has grown
by the least that its ratios and its own seconds say: where kdops is slower, it is so beside every
other form and the clock, while a form that fills the memory may itself take a third or three times
its time, and a whole machine may be slow. Of several runs of the same code the best ratio counts,
too: what was slow once was disturbed. --failed writes down what to look at again, with all the
rounds that the records have: `pytest benchmarks --benchmark-only --groups FILE`.

Past 1.3 times it warns, past 1.5 times it fails (exit status 1); past 3 times where the records are
another processor's, whose torch may be worth half or twice as much. Cases below 50 us and the
training iterations, which are mostly convolution, only warn. What is in only one of the two, or was
committed for other thread counts only, is named and decides nothing; a run of which nothing can be
compared fails.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report.records import Groups, Record, load, ours

WARN, FAIL, FAIL_ELSEWHERE = 1.3, 1.5, 3.0
TINY = 50e-6
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Case:
    """Time of kdops over that of each other form and over a second, and whether it may fail."""

    ratios: dict[str, float]
    firm: bool


Cases = dict[tuple[str, int | None], Case]  # by group and threads


def cases_of(groups: Groups) -> Cases:
    found = {}
    for group, rows in groups.items():
        mine = ours(rows)
        if mine is None:
            continue
        others = {r.provider: mine.least / r.least for r in rows if r is not mine and r.least > 0}
        firm = mine.least >= TINY and mine.info.get("op") not in ("iteration", "overhead")
        if others:
            others["a second"] = mine.least
            found[group, mine.info.get("threads")] = Case(others, firm)
    return found


def best(runs: list[Groups]) -> Cases:
    """The smallest ratios of each case in several records."""
    found: Cases = {}
    for run in runs:
        for key, case in cases_of(run).items():
            known = found.get(key, case)
            least = dict(known.ratios)
            for name, ratio in case.ratios.items():
                least[name] = min(ratio, least.get(name, ratio))
            found[key] = Case(least, known.firm and case.firm)
    return found


def comparable(run: Record, records: list[Record]) -> tuple[list[Groups], float]:
    """Records of the run's instruction set, of its own processor alone where there are
    such; and the growth at which a case fails."""
    same = [r for r in records if r.machine.get("isa") == run.machine.get("isa")]
    names = ("vendor", "family", "model")
    own = [r for r in same if all(r.machine.get(n) == run.machine.get(n) for n in names)]
    return [record.groups for record in own or same], FAIL if own else FAIL_ELSEWHERE


def compare(
    runs: list[Groups], committed: list[Groups], fail: float
) -> tuple[list[str], dict[str, str], int]:
    """(warnings, failures by group, number of cases compared)."""
    known = best(committed)
    warnings: list[str] = []
    failures: dict[str, str] = {}
    count = 0
    for key, case in best(runs).items():
        before = known[key].ratios if key in known else {}
        grown = {form: r / before[form] for form, r in case.ratios.items() if form in before}
        if not grown:
            continue
        count += 1
        form, growth = min(grown.items(), key=lambda one: one[1])
        if growth > WARN:
            text = f"{key[0]}: kdops/{form} {case.ratios[form]:.4f}, committed {before[form]:.4f}"
            text += f" ({growth:.2f} times)"
            if growth > fail and case.firm:
                failures[key[0]] = text
            else:
                warnings.append(text)
    return warnings, failures, count


def one_sided(runs: list[Groups], committed: list[Groups]) -> list[str]:
    """Lines that name the cases only the run has, and the quick ones only the results have."""
    known, measured = best(committed), best(runs)
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
    parser.add_argument("--failed", type=Path, help="file for the names of the cases that failed")
    options = parser.parse_args(arguments)
    runs = [load(path) for path in options.run]
    isa = runs[0].machine.get("isa")
    records = [load(path) for path in sorted(options.results.glob("*.json"))]
    alike, fail = comparable(runs[0], records)
    measured = [run.groups for run in runs]
    warnings, failures, count = compare(measured, alike, fail)
    if count == 0:
        known = sorted({str(record.machine.get("isa")) for record in records})
        print(
            f"guard: FAILED: nothing to compare with: this run is of {isa}, {options.results} "
            f"holds records of {', '.join(known) or 'nothing'}; commit one of this instruction set"
        )
        return 1
    for text in one_sided(measured, alike):
        print(f"guard: not compared: {text}")
    for text in warnings:
        print(f"guard: warning: {text}")
    for text in failures.values():
        print(f"guard: FAILED: {text}")
    if options.failed is not None:
        options.failed.write_text("".join(f"{group}\n" for group in failures))
    print(f"guard: {count} cases compared, {len(warnings)} warnings, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
