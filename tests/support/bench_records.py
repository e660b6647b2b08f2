"""Small made-up runs of the benchmarks."""

import json

from benchmarks.report import records, tables


def timed(group, provider, median, *, error=1e-7, tolerance=1e-4, **info):
    info = {"op": "svd", "label": "8x8", "dtype": "float32", "mode": "forward", **info}
    info |= {"provider": provider, "error": error, "tolerance": tolerance, "threads": 2}
    info.setdefault("baseline", "torch")
    stats = {"median": median, "iqr": median / 10, "min": 0.9 * median}
    return {"group": group, "stats": stats, "extra_info": info}


def write_run(path, benches, cpu=None, isa="avx2"):
    machine = {"torch": "2.13", "threads": 2, "cpu": {"brand_raw": "a CPU"} | (cpu or {})}
    machine["isa"] = isa
    path.write_text(json.dumps({"machine_info": machine, "benchmarks": benches}))
    return path


def case(group, plain, mine, **info):
    return [timed(group, "torch", plain, **info), timed(group, "kdops", mine, **info)]


def report_lines(path):
    return tables.markdown(records.load(path)).splitlines()
