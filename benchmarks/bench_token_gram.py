"""gram_anchoring_loss, cka_loss, ICKD and KTA against published forms and the best plain ones."""

from functools import partial

import pytest

import kdops
import kdops.distillers as kd
from benchmarks.cases.shapes import normal
from benchmarks.measure.harness import identify, parametrise
from benchmarks.measure.problem import Problem
from benchmarks.published import token_gram as published

# (B, N, D_S, D_T): ViT-S/16 at 224, ViT-S from ViT-L at 518 / 14
TOKENS = [(8, 196, 384, 768), (8, 1369, 384, 1024)]
PLAIN = {
    "keep": {"torch by features": published.anchoring_by_features},
    "drop": {"torch relu": published.anchoring_clamped},
}


def _anchoring(shape, negatives):
    batch, tokens, width, others = shape
    exact = partial(published.anchoring, negatives=negatives)
    return Problem(
        op="gram_anchoring_loss",
        label=f"B={batch} N={tokens} D={width}|{others} {negatives}",
        make=normal((batch, tokens, width), (batch, tokens, others)),
        providers={
            "published": exact,
            **PLAIN[negatives],
            "kdops": partial(kdops.gram_anchoring_loss, negatives=negatives),
        },
        reference=exact,
        tolerance=1e-4,
        slow=tokens > 196,
        budget=30.0,
    )


def _method(method, published_form, shape, plain):
    return Problem(
        op=method.name,
        label=f"{list(shape)}",
        make=normal(shape, shape),
        providers={"published": published_form, **plain, "kdops": method},
        reference=published_form,
        tolerance=1e-4,
        slow=True,
        budget=60.0,
    )


def _cka(rows, width, others):
    return Problem(
        op="cka_loss",
        label=f"N={rows} D={width}|{others}",
        make=normal((rows, width), (rows, others)),
        providers={
            "published": published.cka,
            "torch smaller side": published.cka_of_centred_rows,
            "kdops": kdops.cka_loss,
        },
        reference=published.cka,
        tolerance=1e-4,
        slow=rows > 256,
    )


PROBLEMS = [_anchoring(shape, negatives) for shape in TOKENS for negatives in PLAIN]
PROBLEMS += [_cka(64, 512, 2048), _cka(256, 512, 2048), _cka(4096, 64, 128)]
PROBLEMS += [
    _method(kd.ICKD(), published.ickd, (16, 2048, 7, 7), {}),
    _method(kd.KTA(), published.kta, (16, 256, 14, 14), {"torch closed": published.kta_closed}),
]


@pytest.mark.parametrize(("problem", "provider", "mode"), parametrise(PROBLEMS), ids=identify)
def test_token_gram(measured, problem, provider, mode):
    measured(problem, provider, mode)
