"""pytest plugin: what became of every test as JSON, also where a time limit ends the run.

    python -m pytest -p benchmarks.day.outcomes --outcomes FILE ...

The file is written every second and at the end. SIGTERM ends the run as Ctrl-C does, so that
pytest-benchmark writes what it has, too.
"""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

LONGEST_TEXT = 2000


class Outcomes:
    """Counts, the texts of failures and the reasons of skipped tests."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}
        self.failed: dict[str, str] = {}
        self.skipped: dict[str, int] = {}
        self.ended = "interrupted"
        self.written = 0.0

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.counts["failed"] += 1
            self.failed[f"{report.nodeid} ({report.when})"] = report.longreprtext[-LONGEST_TEXT:]
        elif report.skipped:
            self.counts["skipped"] += 1
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report)
            self.skipped[reason] = self.skipped.get(reason, 0) + 1
        elif report.when == "call":
            self.counts["passed"] += 1
        if time.monotonic() - self.written > 1:
            self.write()

    @pytest.hookimpl
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.counts["failed"] += 1
            self.failed[report.nodeid] = report.longreprtext[-LONGEST_TEXT:]

    @pytest.hookimpl
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            self.ended = "whole"
        self.write()

    def write(self) -> None:
        self.written = time.monotonic()
        keys = ("ended", "counts", "failed", "skipped")
        record = {key: getattr(self, key) for key in keys}
        self.path.write_text(json.dumps(record, indent=1) + "\n")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes", type=Path, help="JSON file of what became of every test")


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def pytest_configure(config: pytest.Config) -> None:
    if path := config.getoption("--outcomes"):
        signal.signal(signal.SIGTERM, _interrupt)
        config.pluginmanager.register(Outcomes(path))
