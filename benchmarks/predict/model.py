"""From what the blocks of a launch cost to the time of the launch, and from launches to a case.

The emulated device says of every block that it ran how many cycles it would take on a
multiprocessor of its own, and how many of these its busiest unit works (tests/emulator/cost). A
multiprocessor holds as many blocks at once as registers, shared memory and warps allow. Those
overlap their waiting and share the units.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

CLOCK = 1.755e3  # cycles a microsecond: an H200 under load
MULTIPROCESSORS, SCHEDULERS = 132, 4
REGISTERS, SHARED, WARPS, BLOCKS = 65536, 228 << 10, 64, 32  # of a multiprocessor
SHARED_OF_A_BLOCK = 1 << 10  # that the system takes
MEMORY = 4.8e6  # bytes a microsecond

Launch = dict[str, Any]


def resident(launch: Launch) -> int:
    """Blocks of this launch that a multiprocessor holds at once."""
    warps = math.ceil(launch["threads"] / 32)
    of_a_warp = math.ceil(max(launch["registers"], 1) * 32 / 256) * 256
    shared = launch["shared"] + SHARED_OF_A_BLOCK
    limits = (WARPS // warps, REGISTERS // (of_a_warp * warps), SHARED // shared, BLOCKS)
    return max(1, min(limits))


def instructions(launch: Launch) -> float:
    """Issue slots of warps in the whole launch."""
    return launch["slots"] / max(1, len(launch["run"])) * launch["blocks"]


def floor(launch: Launch) -> float:
    """Microseconds if nothing but the issue of instructions took time."""
    each = launch["slots"] / max(1, len(launch["run"]))
    blocks = math.ceil(launch["blocks"] / MULTIPROCESSORS)
    schedulers = min(SCHEDULERS, math.ceil(launch["threads"] / 32) * blocks)
    return each * blocks / schedulers / CLOCK


def time(launch: Launch, most_bytes: float = math.inf) -> tuple[float, bool]:
    """Microseconds of the busiest multiprocessor, and whether a unit or the memory sets them.

    most_bytes: what the memory has to give at most, as the inputs of the case are no larger.
    """
    run = launch["run"]
    blocks = math.ceil(launch["blocks"] / MULTIPROCESSORS)
    rounds = math.ceil(blocks / resident(launch))
    alone = [block[0] for block in run]
    # many rounds even out, a single one waits for its slowest block
    waited = max(alone) if rounds == 1 else rounds * sum(alone) / len(alone)
    full = blocks * sum(block[1] for block in run) / len(run)
    moved = min(most_bytes, launch["first_sectors"] * 32 / len(run) * launch["blocks"]) / MEMORY
    cycles = max(waited, full)
    return max(cycles / CLOCK, moved), max(full / CLOCK, moved) > waited / CLOCK


def short_name(kernel: str) -> str:
    found = re.search(r"gpu\d+([a-z]\w*?_kernel)", kernel)
    return found[1] if found else kernel


@dataclass
class Prediction:
    """Of a case; times in microseconds, without the overhead of launches."""

    instructions: float = 0
    floor: float = 0
    predicted: float = 0
    counts: dict[str, int] = field(default_factory=dict)
    parts: dict[str, float] = field(default_factory=dict)  # microseconds
    kernels: list[dict[str, Any]] = field(default_factory=list)

    def add(self, launch: Launch, most_bytes: float) -> None:
        spent, unit = time(launch, most_bytes)
        self.instructions += instructions(launch)
        self.floor += floor(launch)
        self.predicted += spent
        scale = launch["blocks"] / len(launch["run"])
        for name, count in launch["counts"].items():
            self.counts[name] = self.counts.get(name, 0) + round(count * scale)
        busiest = max(launch["units"], key=launch["units"].__getitem__)
        shares = {f"{busiest} all the time": 1.0} if unit else launch["parts"]
        total = sum(shares.values()) or 1
        for name, share in shares.items():
            self.parts[name] = self.parts.get(name, 0.0) + spent * share / total
        self.kernels.append(described(launch, spent))

    def dominated_by(self) -> str:
        """The two largest parts of the time, and how much of the device works."""
        largest = sorted(self.parts.items(), key=lambda part: -part[1])[:2]
        text = ", ".join(f"{name} {time / self.predicted:.0%}" for name, time in largest)
        longest = max(self.kernels, key=lambda kernel: kernel["predicted"])
        if longest["blocks"] < MULTIPROCESSORS // 2:
            text += f"; {longest['blocks']} of {MULTIPROCESSORS} multiprocessors"
        return text


def described(launch: Launch, spent: float) -> dict[str, Any]:
    names = ("blocks", "threads", "shared", "registers", "code")
    waves = launch["shared_waves"] / launch["shared_least"] if launch["shared_least"] else 1.0
    return {
        "kernel": short_name(launch["kernel"]),
        "predicted": spent,
        **{name: launch[name] for name in names},
        # what the source itself keeps in memory is no spill
        "spilled": max(0, launch["stack"] - launch["local"]),
        "local": launch["local"],
        "resident": resident(launch),
        "shared wavefronts over least": round(waves, 2),
    }


def prediction_of(launches: list[Launch], input_bytes: float, times: int = 1) -> Prediction:
    """The first launch finds its inputs in the device's memory, the others find theirs in L2.

    times: the case has so many times the blocks that were launched.
    """
    found = Prediction()
    for i, launch in enumerate(launches):
        found.add({**launch, "blocks": launch["blocks"] * times}, input_bytes if i == 0 else 0)
    return found
