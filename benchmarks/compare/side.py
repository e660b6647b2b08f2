"""One of the two processes that are compared: it times a case whenever it is told to.

A line "SEED NAME" comes in, a line of seconds goes out: of the call alone, on fresh arguments; or
"missing WHY" where this commit cannot run the case. The first call of a case is not timed.
"""

from __future__ import annotations

import sys
import time

from benchmarks import ours


def main() -> None:
    cases, run, warm = ours.cases(), None, ""
    print("ready", flush=True)
    for line in sys.stdin:
        seed, name = line.rstrip("\n").split(" ", 1)
        try:
            if name != warm:
                run, warm = ours.call_of(*cases[name]), name
                run.call(*run.arguments(0))
            assert run is not None
            arguments = run.arguments(int(seed))
            start = time.perf_counter()
            run.call(*arguments)
            answer = repr(time.perf_counter() - start)
        except Exception as failure:  # an op, an option or a dtype that this commit has not
            answer = f"missing {type(failure).__name__}: {str(failure).splitlines()[0]}"
        print(answer, flush=True)


if __name__ == "__main__":
    main()
