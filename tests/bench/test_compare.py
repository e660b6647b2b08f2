"""benchmarks.compare: what counts as slower, and how the two processes are asked."""

import random

import pytest

from benchmarks.compare import __main__ as compare
from benchmarks.compare import builds


def rounds(factor, noise, count=21):
    generator = random.Random(0)
    return [factor * (1 + noise * generator.random()) for _ in range(count)]


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_planted_slowdown_is_seen(noise):
    assert compare.outcome_of(rounds(1.0, noise), rounds(1.6, noise)).slower
    assert compare.outcome_of(rounds(1.0, noise), rounds(1.2, noise)).slower
    assert not compare.outcome_of(rounds(1.6, noise), rounds(1.0, noise)).slower


def test_what_noise_explains_is_not_slower():
    """The median 30 % up, but a third of the rounds faster."""
    head = [0.8] * 7 + [1.3] * 14
    outcome = compare.outcome_of([1.0] * 21, head)
    assert outcome.head == 1.3
    assert not outcome.slower


class Sided:
    def __init__(self, *answers):
        self.answers = list(answers)

    def time(self, name, seed):
        return self.answers.pop(0)


def test_rounds_are_paired_and_a_missing_case_is_named():
    outcome = compare.compared(Sided(1.0, 2.0, 1.0, 2.0), Sided(2.0, 4.0, 2.0, 4.0), "case", 4)
    assert outcome.quartiles == (2.0, 2.0, 2.0)
    missing = compare.compared(Sided("missing KeyError: x"), Sided(), "case", 4)
    assert missing == "base: missing KeyError: x"


def test_a_process_times_the_cases_it_knows():
    side = compare.Side(builds.ROOT)
    name = next(name for name in compare.ours.cases() if name.startswith("align"))
    assert 0 < side.time(name, 1) < 10
    assert side.time("no such case", 1) == "missing KeyError: 'no such case'"
    side.process.kill()


def test_wrong_arguments_are_named():
    with pytest.raises(SystemExit, match="no commit 'no-such-revision'"):
        builds.commit_of("no-such-revision")
    with pytest.raises(SystemExit, match="--rounds of at least 4"):
        compare.main(["--base", "HEAD", "--rounds", "3"])
