"""Options of the benchmark run and the table of speed-ups at its end."""

import sys
from functools import partial
from pathlib import Path

import pytest
import torch

# pytest puts the repository first on the path; an installed kdops must not be hidden by sources
# in which nothing was compiled
ROOT = Path(__file__).parents[1]
if not list((ROOT / "kdops").glob("_C*")):
    sys.path[:] = [p for p in sys.path if p != str(ROOT)] + [str(ROOT)]

import kdops  # noqa: E402
from benchmarks.measure.harness import Session, group_of  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="few rounds and the quick cases only")
    parser.addoption("--groups", type=Path, metavar="FILE", help="only the cases it names, by line")


SESSION = pytest.StashKey[Session]()


@pytest.fixture
def quick(request):
    return request.config.getoption("--quick")


@pytest.fixture
def measured(request, benchmark):
    """measured(problem, provider, mode): the body of a benchmark."""
    return partial(request.config.stash[SESSION].measure, benchmark)


def pytest_collection_modifyitems(config, items):
    """--quick leaves out the cases marked slow, --groups those of other ops and shapes."""
    if config.getoption("--quick"):
        items[:] = [item for item in items if "slow" not in item.keywords]
    if (names := config.getoption("--groups")) is not None:
        wanted = names.read_text().splitlines()
        items[:] = [item for item in items if _group(item) in wanted]


def _group(item):
    case = item.callspec.params if hasattr(item, "callspec") else {}
    return group_of(case["problem"], case["mode"]) if "problem" in case else None


def pytest_collection_finish(session):
    """The providers of a problem are timed together, so one must know which of them will run."""
    cases = [item.callspec.params for item in session.items if hasattr(item, "callspec")]
    session.config.stash[SESSION] = Session(session.config.getoption("--quick"), cases)


def pytest_benchmark_update_machine_info(config, machine_info):
    """What a time depends on, into the record; not whose machine it is."""
    for private in ("node", "release"):
        machine_info.pop(private, None)
    machine_info.update(
        torch=torch.__version__,
        kdops=kdops.__version__,
        threads=torch.get_num_threads(),
        isa=kdops.build_info().get("active_instruction_set", "none"),
    )
    if torch.cuda.is_available():
        from benchmarks.measure import gpu

        machine_info.update(
            gpu=torch.cuda.get_device_name(), cuda=torch.version.cuda, ceilings=gpu.ceilings()
        )


KEPT = ("min", "max", "mean", "stddev", "rounds", "median", "iqr", "q1", "q3")


def pytest_benchmark_update_json(config, benchmarks, output_json):
    """The record without the parameters' reprs and the single rounds: results are committed."""
    for bench in output_json["benchmarks"]:
        bench.pop("param", None)
        bench.pop("params", None)
        bench["stats"] = {name: bench["stats"][name] for name in KEPT}


def pytest_terminal_summary(terminalreporter, config):
    """Ratios to the baseline of each group, wins and losses alike."""
    session = getattr(config, "_benchmarksession", None)
    benchmarks = [b for b in getattr(session, "benchmarks", []) if not b.has_error and b.stats.data]
    if not benchmarks:
        return
    groups = {}
    for bench in benchmarks:
        groups.setdefault(bench.group, {})[bench.extra_info.get("provider")] = bench
    write = terminalreporter.write_line
    write("")
    threads = torch.get_num_threads()
    write(f"speed-ups over the first provider, medians of one run, {threads} threads")
    for group, providers in groups.items():
        names = list(providers)
        base = providers[names[0]].stats.median
        cells = []
        for name in names:
            stats = providers[name].stats
            error = providers[name].extra_info.get("error")
            text = "unchecked" if error is None else f"err {error:.0e}"
            cells.append(
                f"{name} {stats.median * 1e3:.3f} ms ± {stats.iqr * 1e3:.3f}"
                f" ({base / stats.median:.2f}x, {text})"
            )
        write(f"  {group}: " + " | ".join(cells))
