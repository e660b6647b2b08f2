"""kdops of two commits on this machine, case by case, in turn.

    python -m benchmarks.compare --base REVISION [--head REVISION] [-k WORDS]
                                [--rounds N] [--json FILE]

Builds both (CPU kernels; kept under build/compare), runs each in a process of its own and asks one,
then the other for a round of a case, fresh inputs every time, the order turned round every round.
Without --head this checkout as it is. Prints the ratio head / base of the medians and the quartiles
of the rounds' ratios. Exit status 1 where a case is slower by more than 5 % in the median and in
three of four rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import ours
from benchmarks.compare import builds

SLOWER = 1.05


@dataclass(frozen=True)
class Outcome:
    """Seconds are medians; the quartiles are of the ratios head / base within rounds."""

    base: float
    head: float
    quartiles: tuple[float, float, float]

    @property
    def slower(self) -> bool:
        return self.head > SLOWER * self.base and self.quartiles[0] > SLOWER

    def line(self, name: str) -> str:
        low, middle, high = self.quartiles
        mark = "  SLOWER" if self.slower else ""
        return (
            f"{self.base * 1e6:11.0f} {self.head * 1e6:11.0f}  {self.head / self.base:5.2f}"
            f"  {low:.2f} {middle:.2f} {high:.2f}  {name}{mark}"
        )


def outcome_of(base: list[float], head: list[float]) -> Outcome:
    """Of as many rounds of each."""
    ratios = [h / b for b, h in zip(base, head, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Outcome(statistics.median(base), statistics.median(head), (low, middle, high))


class Side:
    """A process that has one commit's kdops."""

    def __init__(self, folder: Path) -> None:
        paths = [str(folder), str(builds.ROOT)]  # kdops of the one, benchmarks of the other
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from benchmarks.compare import side; side.main()"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.answer()

    def answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().rstrip("\n")
        if not line:
            raise SystemExit(f"benchmarks.compare: a side ended with {self.process.wait()}")
        return line

    def time(self, name: str, seed: int) -> float | str:
        """Seconds, or why there are none."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{seed} {name}\n")
        self.process.stdin.flush()
        answer = self.answer()
        return answer if answer.startswith("missing") else float(answer)


def compared(base: Side, head: Side, name: str, rounds: int) -> Outcome | str:
    """A case's outcome, or which side cannot run it."""
    seconds: dict[Side, list[float]] = {base: [], head: []}
    for turn in range(1, rounds + 1):
        for side in (base, head) if turn % 2 else (head, base):
            found = side.time(name, turn)
            if isinstance(found, str):
                return f"{'base' if side is base else 'head'}: {found}"
            seconds[side].append(found)
    return outcome_of(seconds[base], seconds[head])


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--base", required=True, metavar="REVISION", help="what is compared with")
    parser.add_argument("--head", metavar="REVISION", help="instead of this checkout")
    parser.add_argument("-k", default="", metavar="WORDS", help="cases that hold all these words")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parsed(arguments)
    if options.rounds < 4:
        raise SystemExit("benchmarks.compare: quartiles need --rounds of at least 4")
    if options.head is None:
        builds.build_in_place(builds.ROOT)
    base = Side(builds.built(options.base))
    head = Side(builds.built(options.head) if options.head else builds.ROOT)
    print("    base us     head us  ratio  quartiles       case")
    found = {}
    for name in ours.cases():
        if not all(word in name for word in options.k.split()):
            continue
        outcome = compared(base, head, name, options.rounds)
        if isinstance(outcome, str):
            print(f"{name}: not compared: {outcome}", flush=True)
            continue
        found[name] = outcome
        print(outcome.line(name), flush=True)
    if options.json:
        options.json.write_text(json.dumps({n: asdict(o) for n, o in found.items()}, indent=1))
    if not found:
        print("compare: FAILED: no case was compared")
        return 1
    slower = [name for name, outcome in found.items() if outcome.slower]
    print(f"compare: {len(found)} cases compared, {len(slower)} slower")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
