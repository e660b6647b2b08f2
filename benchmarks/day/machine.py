"""The first stage of the GPU day: what the times depend on, as JSON.

python -m benchmarks.day.machine [--rehearse] --json FILE
"""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
from typing import Any

from benchmarks.day import stage

FIELDS = (
    "name", "driver_version", "memory.total", "power.limit", "temperature.gpu", "clocks.sm",
    "clocks.max.sm", "clocks.max.mem", "ecc.mode.current", "mig.mode.current", "utilization.gpu",
)  # fmt: skip
TOOLS = {"nvcc": "nvcc --version", "compute-sanitizer": "compute-sanitizer --version"}


def output_of(command: str) -> str | None:
    """None where the program is missing or fails."""
    words = command.split()
    if shutil.which(words[0]) is None:
        return None
    done = subprocess.run(words, capture_output=True, text=True, timeout=10)
    return done.stdout.strip() if done.returncode == 0 else None


def of_nvidia_smi() -> dict[str, str] | None:
    """The first GPU's; a field that this driver does not know costs only itself."""
    found = {}
    for field in FIELDS:
        text = output_of(f"nvidia-smi --query-gpu={field} --format=csv,noheader")
        if text is not None:
            found[field] = text.splitlines()[0]
    return found or None


def facts() -> dict[str, Any]:
    import torch

    import kdops

    properties = torch.cuda.get_device_properties(0)
    names = ("name", "major", "minor", "multi_processor_count", "total_memory", "L2_cache_size")
    triton = importlib.util.find_spec("triton")
    return {
        "nvidia-smi": of_nvidia_smi(),
        "device": {name: getattr(properties, name) for name in names},
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda of torch": torch.version.cuda,
        "triton": importlib.import_module("triton").__version__ if triton else None,
        **{tool: output_of(command) for tool, command in TOOLS.items()},
        "kdops": kdops.build_info(),
        "commit": output_of("git rev-parse HEAD"),
        "changed files": output_of("git status --porcelain --untracked-files=no"),
    }


if __name__ == "__main__":
    stage.run(__doc__, facts)
