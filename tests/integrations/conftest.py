"""Tests against the real libraries (pip install 'kdops[integrations]'), skipped where they are not.

The networks have random weights and are small: nothing is downloaded.
"""

import os

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # a test that asks for a download fails at once


def _let_torchvision_import():
    """Beside a torch without CUDA the operators of torchvision's CUDA build do not load, and its
    import ends where it decorates two of them. Its networks use none, so their names are enough
    for the import of torchvision, and of timm and torchdistill, which need it.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return library
    except ImportError:
        pass
    return None


_LIBRARY = _let_torchvision_import()


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    torch.manual_seed(0)
