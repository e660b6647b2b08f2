"""The report's tables: per op, scaling, training iterations, floors. Losses stand beside wins.

A case whose error exceeds its tolerance, or was not checked, gets no speed-up.
"""

from __future__ import annotations

from benchmarks.report import bars
from benchmarks.report.records import (
    Groups,
    Record,
    Row,
    duration,
    exponent,
    facts,
    memory_points,
    ours,
    sweeps,
)
from benchmarks.report.selection import losses, speedup
from benchmarks.report.surcharges import EVERY, Table, iterations, ratio, with_spread


def megabytes(row: Row) -> str:
    """Peak memory of one call above its arguments."""
    peak = row.info.get("peak_mb")
    return (
        ""
        if peak is None
        else "< 1"
        if peak < 1
        else f"{peak:.3g}"
        if peak < 1e3
        else f"{peak:.0f}"
    )


def _error(row: Row) -> str:
    error = row.info.get("error")
    if error is None:
        return "unchecked"
    return f"{error:.0e}" + ("" if row.green else " **red**")


MODES = """
Modes: forward without a gradient, backward of a graph that was built outside the time, and both,
as in a training step. Most losses of kdops compute their gradient in the forward pass of a training
step, which `forward` leaves out: their backward is nearly free, and `both` decides."""


def tables(groups: Groups) -> list[str]:
    """A table per op, a line per provider."""
    by_op: dict[str, list[list[Row]]] = {}
    for rows in groups.values():
        by_op.setdefault(rows[0].info.get("op", "other"), []).append(rows)
    every = [row.info.get("mode") for rows in groups.values() for row in rows]
    lines = MODES.split("\n") if "backward" in every else []
    for op, cases in by_op.items():
        if op == "iteration":
            continue
        lines += ["", f"### {op}", ""]
        lines.append("| case | provider | median | IQR | peak MB | error | kdops is faster by |")
        lines.append("|---|---|---|---|---|---|---|")
        for rows in cases:
            info = rows[0].info
            case = f"{info.get('label')} {info.get('dtype')} {info.get('mode')}"
            case += " cuda" if info.get("device") == "cuda" else ""
            for row in rows:
                cells = [case, row.provider, duration(row.median), duration(row.iqr)]
                cells += [megabytes(row), _error(row), speedup(rows, row)]
                lines.append("| " + " | ".join(cells) + " |")
    return lines


def scaling(groups: Groups) -> list[str]:
    """Fitted exponents beside the theoretical ones."""
    found = sweeps(groups)
    if not found:
        return []
    lines = ["", "### Scaling: exponents of time and of peak memory against size", ""]
    lines += ["Fitted over the upper half of the sizes; memory where the peak exceeds 4 MB.", ""]
    lines.append("| sweep | provider | largest size | time there | time | theory | MB | theory |")
    lines.append("|---|---|---|---|---|---|---|---|")
    for name, providers in found.items():
        for provider, rows in providers.items():
            last = max(rows, key=lambda row: row.info["size"])
            theory = last.info["theory"][provider]
            time = exponent([(row.info["size"], row.median) for row in rows])
            points = memory_points(rows)
            memory = f"{exponent(points):.2f}" if len(points) > 1 else "small"
            cells = [name, provider, str(last.info["size"]), duration(last.median)]
            cells += [f"{time:.2f}", str(theory[0]), memory, str(theory[1])]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def iteration_tables(groups: Groups) -> list[str]:
    """Seconds per iteration, surcharge over SoftTarget, and what of it kdops removes."""
    lines: list[str] = []
    for table in iterations(groups):
        lines += ["", f"### Training iteration: {table.label}", ""]
        lines += [
            "| method | PyTorch | kdops | surcharge PyTorch | surcharge kdops | removed |"
            " removed beyond the second backward |",
            "|---|---|---|---|---|---|---|",
        ]
        for method, sides in table.methods.items():
            rows = sides.get("published"), sides.get("kdops")
            cells = [method, *(duration(row.median) if row else "" for row in rows)]
            extra = table.surcharge(method)
            cells += [_milliseconds(rounds) for rounds in extra] if extra else ["", ""]
            cells += [table.removed(method), table.removed(method, "two passes")]
            lines.append("| " + " | ".join(cells) + " |")
        lines += ["", "'two passes' has a free loss and the second, clipped backward pass, which"]
        lines += ["MHGD, KD-SVD and IEP need whatever computes their loss: the last column counts"]
        lines += ["the surcharge over it instead of over SoftTarget. Differences are medians over"]
        lines += ["rounds in which every row ran once, ± is half their interquartile range, noise:"]
        lines += ["the surcharge is below three times that."]
        lines += _split(table)
    return lines


def _milliseconds(rounds: list[float]) -> str:
    return with_spread(rounds, 1e3, 1, " ms")


def _split(table: Table) -> list[str]:
    """What the surcharges of KD-SVD and MHGD consist of."""
    found = [(name, *part) for name in ("KD-SVD", "MHGD") for part in table.split(name)]
    amortised = table.amortised()
    if amortised:
        found.append((f"KD-SVD, every={EVERY}", "kdops", amortised[1]))
    if not found:
        return []
    terms = list(found[0][2])
    lines = ["", f"| method | side | {' | '.join(terms)} | the sum explains |"]
    lines.append("|---" * (len(terms) + 3) + "|")
    for method, side, rounds in found:
        share = "noise"
        if table.clear(rounds["surcharge"]):
            share = with_spread(ratio(rounds["sum"], rounds["surcharge"]), 100, unit=" %")
        cells = [method, side, *map(_milliseconds, rounds.values()), share]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "SVD and relation are timed by themselves, forward and backward, on the nets'"]
    lines += ["own maps ('part: ...'; MHGD's relation is the attention of its heads, which is no"]
    lines += ["operator of kdops); the second backward is 'two passes' over SoftTarget."]
    if amortised and table.clear(amortised[0]):
        left = ratio(amortised[1]["surcharge"], amortised[0])
        share = with_spread([1 - x for x in left], 100, unit=" %")
        lines += [
            "",
            f"With a clipping factor measured at every {EVERY}th step kdops removes {share}",
        ]
        lines += ["of the surcharge of published KD-SVD (the mean of ten steps)."]
    return lines


def header(record: Record) -> list[str]:
    """The report's first lines."""
    lines = ["## Benchmark report", ""]
    return lines + [f"- {name}: {value}" for name, value in facts(record).items()]


def floors(record: Record) -> list[str]:
    """GPU cases whose bytes and FLOP are known, against the ceilings measured in the same run."""
    ceilings = record.machine.get("ceilings")
    mine = [row for row in map(ours, record.groups.values()) if row and "bytes" in row.info]
    mine = [row for row in mine if row.info.get("device") == "cuda"]
    if not ceilings or not mine:
        return []
    lines = ["", "### Distance to the floor, on the GPU", ""]
    lines += [f"Measured ceiling: {ceilings['bytes'] / 1e12:.2f} TB/s, a copy."]
    lines += [
        f"Measured ceiling: {value / 1e12:.1f} TFLOP/s, a {name} matrix product."
        for name, value in ceilings.items()
        if name != "bytes"
    ]
    lines += ["", "| case | kdops | timed as | floor | bound by | times the floor |"]
    lines.append("|---|---|---|---|---|---|")
    for row in mine:
        info = row.info
        parts = {"bytes": info["bytes"] / ceilings["bytes"]}
        parts["FLOP"] = info["flop"] / ceilings[info["dtype"]]
        bound = max(parts, key=parts.__getitem__)
        cells = [row.group, duration(row.median), info.get("timing", ""), duration(parts[bound])]
        lines.append("| " + " | ".join([*cells, bound, f"{row.median / parts[bound]:.1f}"]) + " |")
    return lines


def markdown(record: Record) -> str:
    """The whole report."""
    groups = record.groups
    lines = header(record) + bars.markdown(groups) + iteration_tables(groups) + tables(groups)
    lines += scaling(groups) + floors(record) + losses(groups)
    return "\n".join(lines) + "\n"
