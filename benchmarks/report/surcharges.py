"""What a method adds to a training iteration, from rounds in which every row ran once.

A machine drifts by more than most methods cost, so all differences are taken within rounds, and
their median and spread (half the interquartile range) are shown. A share of a surcharge is printed
only where the surcharge is larger than CLEAR spreads. Records without rounds, as older ones are,
give differences of medians and no spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median, quantiles

from benchmarks.report.records import Groups, Row

CLEAR = 3.0
SIDES = ("published", "kdops")
CLIPPED = ("MHGD", "KD-SVD", "IEP")  # methods with a second, clipped backward pass
HELD, EVERY = "KD-SVD held", 10  # of clip_to_main(every=)
RELATION = {"KD-SVD": "part: relation", "MHGD": "part: attention"}

Rounds = list[float]  # seconds, one of each round
Both = tuple[Rounds, Rounds]  # in PyTorch, with kdops


def spread(values: Sequence[float]) -> float | None:
    """Half the interquartile range; None of fewer than three values. Of three, half the range."""
    if len(values) < 3:
        return None
    first, _, third = quantiles(values, n=4)
    return (third - first) / 2


def with_spread(values: Rounds, scale: float = 1.0, digits: int = 0, unit: str = "") -> str:
    """The median and, where it is known, ± the spread."""
    found = spread(values)
    more = "" if found is None else f" ± {scale * found:.{digits}f}"
    return f"{scale * median(values):.{digits}f}{unit}{more}"


def ratio(part: Rounds, whole: Rounds) -> Rounds:
    """The ratio of the medians, in a list with what every round deviates from it.

    Not the ratio of every round: a single whole that is close to zero would blow it up.
    """
    middle = median(whole)
    found = median(part) / middle
    return [found + (p - found * w) / middle for p, w in zip(part, whole, strict=True)]


class Table:
    """The rows of one pair of networks."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.methods: dict[str, dict[str, Row]] = {}

    @property
    def paired(self) -> bool:
        """All rows have the same number of rounds, enough to tell a spread."""
        rows = [row for sides in self.methods.values() for row in sides.values()]
        counts = {len(row.info.get("durations", ())) for row in rows}
        return len(counts) == 1 and min(counts) >= 3

    def rounds(self, method: str, side: str) -> Rounds:
        row = self.methods[method][side]
        return list(row.info["durations"]) if self.paired else [row.median]

    def _common(self, method: str) -> Rounds:
        """Both sides' mean: for rows that touch no operator of kdops."""
        both = [self.rounds(method, side) for side in SIDES]
        return [fmean(pair) for pair in zip(*both, strict=True)]

    def complete(self, method: str) -> bool:
        return all(side in self.methods.get(method, {}) for side in SIDES)

    def surcharge(self, method: str, over: str = "SoftTarget") -> Both | None:
        """Seconds over another row, in every round; None for a part or where a side lacks."""
        if method.startswith("part: ") or not self.complete(method) or not self.complete(over):
            return None
        base = self._common(over)
        plain, mine = (
            [a - b for a, b in zip(self.rounds(method, side), base, strict=True)] for side in SIDES
        )
        return plain, mine

    def clear(self, surcharge: Rounds, over: str = "SoftTarget") -> bool:
        """Larger than what the rounds differ by."""
        found = spread(surcharge)
        least = self._noise_of_medians(over) if found is None else CLEAR * found
        return median(surcharge) > least

    def removed(self, method: str, over: str = "SoftTarget") -> str:
        """The share of the surcharge that kdops removes; "noise" where that is not clear."""
        extra = self.surcharge(method, over)
        if extra is None or method in ("Student", "SoftTarget", "DML", "two passes", HELD):
            return ""
        if over == "two passes" and method not in CLIPPED:
            return ""
        plain, mine = extra
        if not self.clear(plain, over):
            return "noise"
        return with_spread([1 - left for left in ratio(mine, plain)], 100, unit=" %")

    def split(self, method: str) -> list[tuple[str, dict[str, Rounds]]]:
        """(side, what of its surcharge): its parts by themselves and the second backward pass."""
        parts = ["part: svd", RELATION.get(method, "")]
        extra, second = self.surcharge(method), self.surcharge("two passes")
        if extra is None or second is None or not all(map(self.complete, parts)):
            return []
        passes = [fmean(pair) for pair in zip(*second, strict=True)]
        found = []
        for side, total in zip(SIDES, extra, strict=True):
            values = [*(self.rounds(part, side) for part in parts), passes]
            names = ("SVD", "relation", "second backward")
            terms = dict(zip(names, values, strict=True))
            terms["sum"] = [sum(each) for each in zip(*values, strict=True)]
            found.append((side, {"surcharge": total, **terms}))
        return found

    def amortised(self) -> tuple[Rounds, dict[str, Rounds]] | None:
        """KD-SVD by kdops with a factor measured at every tenth step: what published code adds to
        an iteration, and of what we add, the mean of ten steps, the terms of split()."""
        held, known = self.surcharge(HELD), dict(self.split("KD-SVD"))
        if held is None or not known:
            return None
        terms = dict(known["kdops"])
        pairs = zip(terms["surcharge"], held[1], strict=True)
        terms["surcharge"] = [(full + (EVERY - 1) * one) / EVERY for full, one in pairs]
        terms["second backward"] = [x / EVERY for x in terms["second backward"]]
        parts = [rounds for name, rounds in terms.items() if name not in ("surcharge", "sum")]
        terms["sum"] = [sum(each) for each in zip(*parts, strict=True)]
        return known["published"]["surcharge"], terms

    def _noise_of_medians(self, over: str) -> float:
        """Without rounds: 5 % of an iteration, twice what two runs of one row differ by, and what
        some method, which does all that SoftTarget does, seems to take less than SoftTarget.
        """
        plain, mine = (self.methods[over][side].median for side in SIDES)
        surcharges = [
            self.surcharge(name) for name in self.methods if name not in ("Student", "DML")
        ]
        cheaper = [-median(rounds) for both in surcharges if both for rounds in both]
        return max(0.05 * plain, 2 * abs(plain - mine), *cheaper)


def iterations(groups: Groups) -> list[Table]:
    """A table per pair of networks, methods in the order of the run."""
    found: dict[str, Table] = {}
    for rows in groups.values():
        for row in rows:
            if row.info.get("op") == "iteration":
                label = row.info["label"]
                table = found.setdefault(label, Table(label))
                table.methods.setdefault(row.info["method"], {})[row.provider] = row
    return list(found.values())
