"""The end of the GPU day: a line a stage, and summary.json.

    python -m benchmarks.day.summary FOLDER [--rehearse] NAME=STATUS:SECONDS:LIMIT NAME=skipped:WHY

Exit status: 0 all well, 1 a stage failed, 3 none failed but time ran out.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

OUT_OF_TIME = {"124", "137"}  # of `timeout`, after SIGTERM and after SIGKILL
INTERRUPTED = "2"  # pytest's, after our SIGTERM: `timeout` passes 124 on, a tool between may not


def described(folder: Path, name: str, rest: str) -> dict[str, Any]:
    """One stage: what became of it, and the counts of its tests."""
    status, _, more = rest.partition(":")
    if status == "skipped":
        return {"outcome": "skipped", "why": more}
    seconds, _, limit = more.partition(":")
    late = status in OUT_OF_TIME or (status == INTERRUPTED and int(seconds) >= int(limit))
    found: dict[str, Any] = {"outcome": "ok" if status == "0" else "failed"}
    if late:
        found["outcome"] = "out of time"
    found |= {"status": int(status), "seconds": int(seconds), "limit": int(limit)}
    for file in (folder / f"{name}.json", folder / f"{name}-outcomes.json"):
        if file.is_file():
            found["tests"] = json.loads(file.read_text()).get("counts", found.get("tests"))
        elif file.stem == name and found["outcome"] == "ok":
            found |= {"outcome": "failed", "why": f"it wrote no {file.name}"}
    if (found.get("tests") or {}).get("failed"):
        found["outcome"] = "failed"
    return found


def line(name: str, stage: dict[str, Any]) -> str:
    tests = stage.get("tests") or {}
    counts = ", ".join(f"{count} {what}" for what, count in tests.items())
    time = f"{stage['seconds']} of {stage['limit']} s" if "seconds" in stage else ""
    parts = [time, counts, stage.get("why", "")]
    return f"{name:<12} {stage['outcome']:<12} " + "; ".join(part for part in parts if part)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.day.summary")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("stages", nargs="+")
    options = parser.parse_args()
    stages = {}
    for text in options.stages:
        name, _, rest = text.partition("=")
        stages[name] = described(options.folder, name, rest)
        print(line(name, stages[name]))
    outcomes = {stage["outcome"] for stage in stages.values()}
    record = {"rehearsed": options.rehearse, "stages": stages}
    (options.folder / "summary.json").write_text(json.dumps(record, indent=1) + "\n")
    return 1 if "failed" in outcomes else 3 if "out of time" in outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
