"""The names under which the methods are found."""

import pytest
from support.new_process import run_python

import kdops.distillers as kd


def test_parts_are_imported_when_asked_for():
    run_python("""
        import sys
        import kdops
        assert "kdops.distillers" not in sys.modules and "kdops.training" not in sys.modules
        assert {"distillers", "distributed", "features", "training"} <= set(dir(kdops))
        assert kdops.distillers.KDSVD.__name__ == "KDSVD"
        assert kdops.training.fit and kdops.distributed.gather_batch and kdops.features.FeatureTap
        assert not hasattr(kdops, "destillers")
    """)


def test_abbreviations():
    names = {"KD": "SoftTarget", "AT": "AttentionTransfer", "SP": "SimilarityPreserving",
             "AB": "ActivationBoundary", "OFD": "Overhaul", "DML": "DeepMutual"}  # fmt: skip
    for short, name in names.items():
        assert getattr(kd, short) is getattr(kd, name)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("Fitnet", "FitNet"), ("kd_svd", "KDSVD"), ("AttentionTransfert", "AttentionTransfer"),
     ("Similarity_Preserving", "SimilarityPreserving"), ("ofd", "OFD")],
)  # fmt: skip
def test_did_you_mean(typed, meant):
    with pytest.raises(
        AttributeError, match=rf"no attribute '{typed}'; did you mean .*\b{meant}\b"
    ):
        getattr(kd, typed)
    with pytest.raises(AttributeError, match=r"no attribute 'zzz'$"):
        _ = kd.zzz
