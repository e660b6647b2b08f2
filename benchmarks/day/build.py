"""The second stage of the GPU day: kernels for this GPU are in the binary, and each room's runs.

python -m benchmarks.day.build [--rehearse] --json FILE
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.day import stage


def info() -> list[str]:
    """What `python -m kdops info` prints."""
    from kdops import __main__ as command

    text = io.StringIO()
    arguments, sys.argv = sys.argv, ["kdops", "info", "--all"]
    try:
        with contextlib.redirect_stdout(text):
            command.main()
    finally:
        sys.argv = arguments
    return text.getvalue().splitlines()


def missing_architecture() -> str | None:
    """PTX would run, too, but it is not what ships for this GPU."""
    import torch

    import kdops
    from kdops._library import has_binary_for

    major, minor = torch.cuda.get_device_capability()
    archs = kdops.build_info().get("cuda_archs", "")
    if has_binary_for(major, minor, archs):
        return None
    return f"compute capability {major}.{minor}: the binary has kernels for {archs or 'no GPU'}"


def room_calls() -> dict[str, Callable[[str], Any]]:
    """One small call of every room with C++ kernels for CUDA, on a device."""
    import torch

    import kdops

    generator = torch.Generator().manual_seed(0)
    a, b, c, d = (torch.randn(4, 12, 8, generator=generator) for _ in range(4))
    x, y = a[:, :, 0], b[:, :, 0]
    return {
        "batched_svdvals": lambda on: kdops.batched_svdvals(a.to(on)),
        "batched_svd top 2": lambda on: kdops.batched_svd(a.to(on), 2).S,
        "gram": lambda on: kdops.gram(a.to(on)),
        "svd_rbf_loss": lambda on: kdops.svd_rbf_loss(*(t.to(on) for t in (a, b, c, d))),
        "rkd_angle_loss": lambda on: kdops.rkd_angle_loss(x.to(on), y.to(on)),
        "rkd_distance_loss": lambda on: kdops.rkd_distance_loss(x.to(on), y.to(on)),
    }


def check() -> dict[str, Any]:
    import torch

    import kdops

    problems, errors = [], {}
    emulated = torch.cuda.get_device_name() == "emulated"  # its kernels are in no binary
    if not emulated and (missing := missing_architecture()):
        problems.append(missing)
    for name, call in room_calls().items():
        try:
            with kdops.backend("native"):
                ours = call("cuda").cpu().double()
            errors[name] = float((ours - call("cpu").double()).abs().max())
            if not errors[name] < 1e-3:
                problems.append(f"{name}: differs from the CPU's result by {errors[name]:.3g}")
        except Exception as failure:
            problems.append(f"{name}: {type(failure).__name__}: {failure}")
    return {"problems": problems, "difference from the CPU": errors, "info": info()}


if __name__ == "__main__":
    stage.run(__doc__, check)
