"""The tables of README.md and docs/performance.md: one line per case, spread included.

`python -m benchmarks.report RESULTS.json --readme README.md` puts them between the markers BEGIN
and END of both pages and the plots (plots.headlines) into docs/img. The README has a few cases and
one plot, docs/performance.md all of them, what is left of an iteration's surcharge, and the losses.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmarks.report.records import Groups, Record, Row, duration, facts, ours
from benchmarks.report.selection import CASES, FEW, baseline, best_plain, losses
from benchmarks.report.surcharges import iterations

BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"


def _plain_cell(rows: list[Row]) -> str:
    plain = best_plain(rows)
    if plain is not None:
        return duration(plain.median)
    others = [r for r in rows if not r.provider.startswith("kdops") and r is not baseline(rows)]
    return "inaccurate" if others else ""


def table(groups: Groups, cases: Iterable[str]) -> list[str]:
    """Those of the cases that the record has."""
    lines = [
        "| case | today | best plain PyTorch | kdops | faster than today | than the plain form |",
        "|---|---|---|---|---|---|",
    ]
    for group in cases:
        rows = groups.get(group, [])
        mine, today, plain = ours(rows), baseline(rows), best_plain(rows)
        if mine is None or today is None or not mine.green:
            continue
        spread = f"{duration(mine.median)} ± {50 * mine.iqr / mine.median:.0f} %"
        cells = [CASES[group], duration(today.median), _plain_cell(rows), spread]
        cells += [f"{r.median / mine.median:.1f}x" if r else "" for r in (today, plain)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def iteration_lines(groups: Groups) -> list[str]:
    """What of the surcharge of a whole training iteration is gone, method by method."""
    lines: list[str] = []
    for table in iterations(groups):
        shares = []
        for name in table.methods:
            share, beyond = (table.removed(name, over) for over in ("SoftTarget", "two passes"))
            if share:
                shares.append(f"{name} {share}" + (f" ({beyond})" if beyond else ""))
        if shares:
            lines.append(f"- {table.label}: {', '.join(shares)}")
    if not lines:
        return []
    intro = "What kdops removes of a method's surcharge over SoftTarget in a training iteration (in"
    intro += " brackets: of what is not the second backward pass; ±: half the interquartile range"
    intro += " over rounds; noise: the surcharge is below three times its own spread):"
    return ["", intro, "", *lines]


def intro(record: Record) -> list[str]:
    return [
        f"Medians of one run ({', '.join(facts(record).values())}); ± is half the",
        "interquartile range. Today: the published form or torch.linalg. Inaccurate: above the",
        "tolerance that kdops is held to, so not a form to compare with.",
        "",
    ]


def images(plots: list[Path], page: Path) -> list[str]:
    return [f"![{path.stem}]({path.relative_to(page.parent)})" for path in plots]


def short_text(record: Record, images: list[str]) -> str:
    """All that stands between the README's markers."""
    return "\n".join([*intro(record), *table(record.groups, FEW), "", *images])


def long_text(record: Record, images: list[str]) -> str:
    """All that stands between the markers of docs/performance.md."""
    groups = record.groups
    slower = losses(groups)[3:]
    lines = [*intro(record), *table(groups, CASES), *iteration_lines(groups)]
    lines += ["", "Slower with kdops, the worst ten of all cases:", "", *slower[:10]]
    return "\n".join([*lines, "", *images])


def replace(page: str, new: str) -> str:
    """The page with `new` between the markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{new}\n{END}{after}"


def write(page: Path, record: Record) -> None:
    """Renews the README, docs/performance.md beside it, and their plots."""
    from benchmarks.report.plots import headlines  # matplotlib, wanted for plots only

    docs = page.parent / "docs"
    long = docs / "performance.md"
    before = {path: replace(path.read_text(), "") for path in (page, long)}  # or an error, early
    (docs / "img").mkdir(exist_ok=True)
    plots = headlines(record.groups, docs / "img")
    for path, text in (
        (page, short_text(record, images(plots[:1], page))),
        (long, long_text(record, images(plots, long))),
    ):
        path.write_text(replace(before[path], text))
