"""What a study is: rows, columns, and a function that trains one cell of its table."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kdops.demo.data import Images
from kdops.demo.methods import Recipe
from kdops.demo.nets import Net
from kdops.study.course import Course

Cells = Mapping[tuple[str, str], float | None]  # means over the seeds, by (row, column)


@dataclass(frozen=True)
class Published:
    """A published table of the same kind: rows of numbers, on data and networks of its own."""

    source: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[float]]
    note: str = "another data set and other networks: compare the shape, not the numbers"


@dataclass(frozen=True)
class Study:
    """cell(lab, row, column, seed) is a number (test accuracy in per cent), or None where the
    combination does not exist. remark: lines below the table, from the means."""

    name: str
    question: str
    rows: Sequence[str]
    columns: Sequence[str]
    cell: Callable[[Lab, str, str, int], float | None]
    axis: str = ""  # what the columns are
    lines: bool = False  # whether the columns have an order, so that the plot has lines
    published: Published | None = None
    remark: Callable[[Cells, Sequence[str], Sequence[str]], str] | None = None


@dataclass
class Lab:
    """The course, and networks that several cells need: each is trained once."""

    course: Course
    made: dict[Hashable, Any] = field(default_factory=dict)

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def teacher(self, depth: int | None = None) -> Net:
        depth = depth or self.course.teacher_depth
        net: Net = self.once(("teacher", depth), lambda: self.course.teacher(depth))
        return net

    def student(
        self,
        recipe: Recipe | str | None,
        seed: int,
        *,
        images: Images | None = None,
        teacher: Net | None = None,
        **options: Any,
    ) -> Net:
        """A trained student; options are those of Course.distil."""
        teacher = (teacher or self.teacher()) if recipe is not None else None
        return self.course.distil(recipe, teacher, seed, images=images, **options)[0]

    def alone(self, seed: int) -> Net:
        """The student of that seed, trained on all its images without a teacher."""
        net: Net = self.once(("alone", seed), lambda: self.student(None, seed))
        return net

    def test(self, net: Net) -> float:
        return self.course.test(net)
