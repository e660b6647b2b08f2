"""Small experiments about distillation: `python -m kdops study NAME`.

STUDIES are the declarations by name, main the command. A study trains one cell of its table (row,
column, seed) after the other, keeps them in NAME.json, and goes on from that file.
"""

from collections.abc import Sequence

from kdops.demo.data import Images
from kdops.study import _data, _spectral, _teachers
from kdops.study._folder import folder_images
from kdops.study._run import run
from kdops.study._study import Lab, Published, Study

__all__ = ["STUDIES", "Lab", "Published", "Study", "folder_images", "main"]

_ALL = (
    _data.RATES,
    _spectral.VECTORS,
    _spectral.STAGES_STUDY,
    _spectral.CLIP,
    _data.TRANSFER,
    _teachers.COMBINATIONS,
    _teachers.TEACHERS,
    _teachers.BORN_AGAIN,
    _teachers.ASSISTANTS,
    _teachers.MUTUAL,
)
STUDIES = {study.name: study for study in _ALL}


def main(arguments: Sequence[str] | None = None, images: Images | None = None) -> int:
    """Small experiments about distillation; without a name it lists them."""
    return run(STUDIES, arguments, images)
