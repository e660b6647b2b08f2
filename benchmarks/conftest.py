"""Options of the benchmark run and the table of speed-ups at its end."""

import pytest
import torch


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="few rounds and the quick cases only")


@pytest.fixture
def quick(request):
    return request.config.getoption("--quick")


def pytest_collection_modifyitems(config, items):
    """--quick leaves out the cases marked slow."""
    if config.getoption("--quick"):
        items[:] = [item for item in items if "slow" not in item.keywords]


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
            error = providers[name].extra_info.get("error", float("nan"))
            cells.append(
                f"{name} {stats.median * 1e3:.3f} ms ± {stats.iqr * 1e3:.3f}"
                f" ({base / stats.median:.2f}x, err {error:.0e})"
            )
        write(f"  {group}: " + " | ".join(cells))
