"""`python -m kdops pictures`: every picture, of the demo's networks after a short training."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdops import pictures
from kdops._progress import say
from kdops.demo.data import DataError, Images
from kdops.demo.nets import STAGES, Net, features
from kdops.distillers import VID
from kdops.pictures._figure import figure
from kdops.study.course import Course, usual_images

SHORT = {"AttentionTransfer": "AT", "KDSVD": "KD-SVD", "SimilarityPreserving": "SP"}
FIT_STEPS = 300  # of VID's model on features that stay
Draw = Callable[["Studio"], Any]


class Studio:
    """A teacher, and students made when a picture asks for them."""

    def __init__(self, course: Course, seed: int = 0, each: int = 6) -> None:
        self.course, self.seed = course, seed
        test, labels = course.images.test
        rows = [(labels == c).nonzero()[:each, 0] for c in labels.unique()]
        self.images, self.labels = test[torch.cat(rows)], labels[torch.cat(rows)]
        self.shown = torch.arange(min(6, len(rows))) * each  # one of every class
        self._made: dict[str | None, tuple[Net, Any]] = {}
        say("teacher trains")
        self.teacher = course.teacher()

    def student(self, method: str | None) -> tuple[Net, Any]:
        if method not in self._made:
            say(f"student trains: {method or 'alone'}")
            net, trained = self.course.distil(method, self.teacher, self.seed)
            self._made[method] = net, trained.eval()
        return self._made[method]

    def three(
        self, method: str, layers: list[str], images: Tensor | None = None
    ) -> dict[str, list[Tensor]]:
        """Teacher, student alone, student with the method: their features."""
        nets = {
            "teacher": self.teacher,
            "student alone": self.student(None)[0],
            f"student with {SHORT.get(method, method)}": self.student(method)[0],
        }
        x = self.images if images is None else images
        return {name: features(net, x, layers) for name, net in nets.items()}


def _attention(s: Studio) -> Any:
    x = s.images[s.shown]
    return pictures.attention_maps(x, s.three("AttentionTransfer", STAGES, x))


def _vectors(s: Studio) -> Any:
    x = s.images[s.shown]
    return pictures.singular_vector_maps(x, s.three("KDSVD", STAGES, x), level=1, k=3)


def _spectra(s: Studio) -> Any:
    return pictures.spectra(s.three("KDSVD", STAGES))


def _fsp(s: Studio) -> Any:
    return pictures.fsp_matrices(s.three("FSP", STAGES))


def _similarity(s: Studio) -> Any:
    return pictures.similarity_matrices(s.three("SimilarityPreserving", ["stage3"]), s.labels)


def _rkd(s: Studio) -> Any:
    return pictures.rkd_histograms(s.three("RKD", ["pool"]))


def _logits(s: Studio) -> Any:
    return pictures.class_probabilities(s.three("SoftTarget", ["fc"]), s.labels)


def _channels(s: Studio) -> Any:
    return pictures.channel_correlations(s.three("RSD", ["pool"], s.course.images.test[0]))


def _mhgd(s: Studio) -> Any:
    method, layout = s.student("MHGD")[1], features(s.teacher, s.images, ["pool"])[0]
    found = s.three("MHGD", STAGES)
    return pictures.mhgd_graphs(method, found, s.labels, embedding=layout, pair=-1)


def _iep(s: Studio) -> Any:
    method, layout = s.student("IEP")[1], features(s.teacher, s.images, ["pool"])[0]
    found = s.three("IEP", STAGES)
    return pictures.iep_graphs(method, found, s.labels, embedding=layout, pair=-1)


def _vid(s: Studio) -> Any:
    """Of both students by models fitted afterwards: what their features say of the teacher's."""
    train, shown = s.course.images.train[0][:500], s.images[s.shown]
    known, found = s.three("VID", STAGES, train), s.three("VID", STAGES, shown)
    teacher, *students = known
    methods = {name: _fitted(known[name], known[teacher]) for name in students}
    return pictures.vid_heat_maps(methods, shown, found)


def _fitted(student: list[Tensor], teacher: list[Tensor]) -> VID:
    """VID's Gaussian model, trained on features that stay as they are."""
    torch.manual_seed(0)
    method = VID.from_sample(student, teacher)
    optimizer = torch.optim.Adam(method.parameters(), 0.02)
    for _ in range(FIT_STEPS):
        rows = torch.randint(0, len(student[0]), (64,))
        optimizer.zero_grad()
        loss = method([x[rows] for x in student], [x[rows] for x in teacher])
        torch.autograd.backward(loss)
        optimizer.step()
    return method.eval()


PICTURES: dict[str, Draw] = {
    "attention": _attention,
    "singular-vectors": _vectors,
    "spectra": _spectra,
    "fsp": _fsp,
    "similarity": _similarity,
    "rkd": _rkd,
    "logits": _logits,
    "channels": _channels,
    "mhgd": _mhgd,
    "iep": _iep,
    "vid": _vid,
}


def main(arguments: Sequence[str] | None = None, images: Images | None = None) -> int:
    """Draws what methods move between the demo's networks, one PNG a picture; --help has more."""
    parser = argparse.ArgumentParser(prog="python -m kdops pictures", description=main.__doc__)
    parser.add_argument("--out", default="pictures", help="folder for the PNGs")
    parser.add_argument(
        "--epochs", type=int, default=8, help="of students; of the teacher 4 at most"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the students")
    parser.add_argument("--only", default=",".join(PICTURES), metavar="A,B,...",
                        help=f"some of {', '.join(PICTURES)}")  # fmt: skip
    args = parser.parse_args(arguments)
    names = args.only.split(",")
    if set(names) - set(PICTURES) or args.epochs < 1:
        parser.error(f"expected --only some of {list(PICTURES)} and positive --epochs")
    try:
        figure(1, 1, 1, 1, "")  # before any training: whether there is matplotlib
        images = images or usual_images()
    except (DataError, ImportError) as error:
        print(f"kdops pictures: {error}", file=sys.stderr)
        return 2
    studio = Studio(
        Course(images, epochs=args.epochs, teacher_epochs=min(args.epochs, 4)), args.seed
    )
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        PICTURES[name](studio).savefig(out / f"{name}.png")
        print(f"wrote {out / f'{name}.png'}")
    return 0
