"""Plugs for training libraries, one module each, which is imported only when it is used:

transformers (DistillationTrainer), lightning (DistillationModule), modelopt (criterion, balancer),
torchdistill (losses for YAML) and timm (tap). ``pip install 'kdops[integrations]'`` brings the
libraries in the versions with which these modules are tested; docs/integrations.md shows each.
"""

from __future__ import annotations


def missing(module: str, library: str, error: ImportError) -> ImportError:
    """What the module of that name raises where its library cannot be imported."""
    return ImportError(
        f"kdops.integrations.{module} needs {library}: pip install 'kdops[integrations]' ({error})"
    )
