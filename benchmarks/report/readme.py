"""The README's table: one line per case of the plan's targets, losses and spread included.

`python -m benchmarks.report RESULTS.json --readme README.md` puts it between the markers BEGIN and
END and the plots (plots.headlines) into docs/img beside the README.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.report.records import Groups, Record, Row, duration, facts, ours
from benchmarks.report.selection import CASES, baseline, best_plain, losses
from benchmarks.report.surcharges import iterations

BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"


def _plain_cell(rows: list[Row]) -> str:
    plain = best_plain(rows)
    if plain is not None:
        return duration(plain.median)
    others = [r for r in rows if not r.provider.startswith("kdops") and r is not baseline(rows)]
    return "inaccurate" if others else ""


def table(groups: Groups) -> list[str]:
    """The cases that the record has."""
    lines = [
        "| case | today | best plain PyTorch | kdops | faster than today | than the plain form |",
        "|---|---|---|---|---|---|",
    ]
    for group, name in CASES.items():
        rows = groups.get(group, [])
        mine, today, plain = ours(rows), baseline(rows), best_plain(rows)
        if mine is None or today is None or not mine.green:
            continue
        spread = f"{duration(mine.median)} ± {50 * mine.iqr / mine.median:.0f} %"
        cells = [name, duration(today.median), _plain_cell(rows), spread]
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


def text(record: Record, plots: list[str]) -> str:
    """All that stands between the markers."""
    groups = record.groups
    slower = losses(groups)[3:]
    lines = [f"Medians of one run ({', '.join(facts(record).values())}); ± is half the"]
    lines += [
        "interquartile range. Today: the published form or torch.linalg. Inaccurate: above the"
    ]
    lines += ["tolerance that kdops is held to, so not a form to compare with.", ""]
    lines += [*table(groups), *iteration_lines(groups)]
    lines += ["", "Slower with kdops, the worst ten of all cases:", "", *slower[:10]]
    return "\n".join([*lines, "", *(f"![{Path(p).stem}]({p})" for p in plots)])


def replace(page: str, new: str) -> str:
    """The page with `new` between the markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{new}\n{END}{after}"


def write(page: Path, record: Record) -> None:
    """Renews the page and its plots."""
    from benchmarks.report.plots import headlines  # matplotlib, wanted for plots only

    folder = page.parent / "docs" / "img"
    folder.mkdir(parents=True, exist_ok=True)
    plots = [f"docs/img/{path.name}" for path in headlines(record.groups, folder)]
    page.write_text(replace(page.read_text(), text(record, plots)))
