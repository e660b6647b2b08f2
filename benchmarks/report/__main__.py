"""The record of a run -> markdown tables, PNG plots, the README's section, a committed record.

    python -m benchmarks.report RESULTS.json [--out DIR | --readme README.md | --record FILE.json]

The tables go to standard output. With --out DIR/report.md and plots are written, among them one per
sweep. With --readme its table and plots and those of docs/performance.md are renewed. With --record
the compact form is written that belongs in benchmarks/results/.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.report import readme, records, tables


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report")
    parser.add_argument("results", type=Path, help="JSON of pytest --benchmark-json, or a record")
    parser.add_argument("--out", type=Path, help="folder of report.md and the plots")
    parser.add_argument("--readme", type=Path, help="page whose table and plots to renew")
    parser.add_argument("--record", type=Path, help="where to write the compact record")
    options = parser.parse_args(arguments)
    record = records.load(options.results)
    if options.record is not None:
        records.write(record, options.record)
    elif options.readme is not None:
        readme.write(options.readme, record)
    elif options.out is not None:
        _write_folder(record, options.out)
    else:
        print(tables.markdown(record))


def _write_folder(record: records.Record, folder: Path) -> None:
    from benchmarks.report.plots import draw  # matplotlib, wanted for plots only

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(tables.markdown(record))
    for path in draw(record.groups, folder):
        print(path)


if __name__ == "__main__":
    main()
