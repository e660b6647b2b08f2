"""The last stage of the GPU day: the time of the cases that benchmarks.predict predicts.

    python -m benchmarks.day.calibrate [--rehearse] --json FILE

Timed as the benchmarks are: sets of inputs that exceed the L2 cache, fresh ones in every round,
one CUDA graph a pass where it can be captured. Beside each lies the prediction of budgets.json.
"""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.day import stage

ROUNDS = 5
REHEARSED = {"svd 8x8"}


def measured(case: Any) -> dict[str, Any]:
    """Microseconds of one call: the median of the rounds, and all of them."""
    import torch

    from benchmarks.measure import gpu

    seeds = iter(range(1, 1_000_000))

    def fresh() -> tuple[Any, ...]:
        return case.inputs(next(seeds), "cuda")

    sets, _ = gpu.rotating(fresh)

    def one_pass() -> None:
        for inputs in sets:
            case.run(*inputs)

    one_pass()
    replay = gpu.captured(one_pass)
    run, rounds = replay or one_pass, []
    run()
    for _ in range(ROUNDS):
        for inputs in sets:
            gpu.refill(inputs, fresh())
        torch.cuda.synchronize()
        rounds.append(gpu.seconds(run) / len(sets) * 1e6)
    timing = "graph" if replay else "launches"
    return {"measured us": statistics.median(rounds), "rounds us": rounds, "timing": timing}


def calibrate() -> dict[str, Any]:
    import torch

    from benchmarks import budgets
    from benchmarks.predict.budgets import FILE
    from benchmarks.predict.cases import CASES

    emulated = torch.cuda.get_device_name() == "emulated"
    predicted, found, problems = budgets.load(FILE), {}, []
    for case in CASES:
        if emulated and case.name not in REHEARSED:
            continue
        try:
            found[case.name] = {
                "predicted us": predicted[case.name]["predicted"],
                **measured(case),
            }
        except Exception as failure:
            problems.append(f"{case.name}: {type(failure).__name__}: {failure}")
    return {"problems": problems, "cases": found}


if __name__ == "__main__":
    stage.run(__doc__, calibrate)
