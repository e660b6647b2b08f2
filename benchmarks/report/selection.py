"""Which rows of a case are compared, and which cases README and docs/performance.md show."""

from __future__ import annotations

from benchmarks.report.records import Groups, Row, ours

# groups of the record (Problem.name and mode) and what the pages call them
CASES = {
    **{f"svd {s} float32 forward": f"SVD, 128 of {s}" for s in
       ("8x8", "16x16", "32x32", "64x64", "128x128", "64x16", "256x32", "1024x16")},
    **{f"svdvals {n}x{n} float32 forward": f"singular values, 128 of {n}x{n}" for n in (32, 64)},
    **{f"svd top 4, S and V {s} float32 both": f"top 4 of {s} and gradient" for s in
       ("1024x16", "256x32", "64x64", "64x256", "49x512")},
    **{f"rkd_angle_loss N={n} D=512 float32 both": f"RKD angle, N = {n}" for n in (64, 128, 256)},
    **{f"rkd_distance_loss N={n} D=512 float32 both": f"RKD distance, N = {n}" for n in
       (64, 128, 256, 512)},
    **{f"svd_rbf_loss (128; {d},256; 4) vectors float32 both": f"KD-SVD relation, {d} and 256" for d
       in (64, 256)},
    **{f"fsp_loss (128; {c},{c}; {s}) float32 both": f"FSP loss, {c} channels, {s}" for c, s in
       ((16, "32x32"), (256, "8x8"), (512, "7x7"))},
    "nst_loss (64; 256, 8x8) float32 both": "NST, 64 of 256 channels, 8x8",
    "rbf_affinity (512, 128) float32 both": "RBF matrix, 512 x 128",
    "similarity_loss N=512 D=128 float32 both": "similarity loss, 512 x 128",
}  # fmt: skip
FEW = (
    "svd 64x64 float32 forward",
    "svd 256x32 float32 forward",
    "svd top 4, S and V 49x512 float32 both",
    "rkd_angle_loss N=256 D=512 float32 both",
    "svd_rbf_loss (128; 256,256; 4) vectors float32 both",
    "fsp_loss (128; 256,256; 8x8) float32 both",
    "nst_loss (64; 256, 8x8) float32 both",
    "similarity_loss N=512 D=128 float32 both",
)  # of them the README


def baseline(rows: list[Row]) -> Row | None:
    """What users run today."""
    return next((r for r in rows if r.provider == r.info.get("baseline")), None)


def best_plain(rows: list[Row]) -> Row | None:
    """The fastest plain PyTorch form beside the first provider that is right as well."""
    others = [r for r in rows if not r.provider.startswith("kdops") and r is not baseline(rows)]
    return min((r for r in others if r.green), key=lambda r: r.median, default=None)


def speedup(rows: list[Row], alternative: Row) -> str:
    """How many times the alternative's time kdops needs less, or why there is no such number."""
    mine = ours(rows)
    if mine is None or alternative is mine:
        return ""
    if not mine.green:
        return "no: kdops not verified" if mine.info.get("error") is None else "no: kdops is red"
    ratio = f"{alternative.median / mine.median:.2f}x"
    if alternative.median < mine.median:
        ratio += " (slower)"
    return ratio


def losses(groups: Groups) -> list[str]:
    """The cases in which an alternative is faster than kdops."""
    slower = []
    for group, rows in groups.items():
        mine = ours(rows)
        for row in rows:
            if mine is not None and row.median < mine.median:
                wrong = row.info.get("error") is not None and not row.green
                name = f"{row.provider} (inaccurate)" if wrong else row.provider
                slower.append((mine.median / row.median, f"- {group}: {name}"))
    lines = ["", "### Where kdops is slower", ""]
    found = [f"{text} is {ratio:.2f}x faster" for ratio, text in sorted(slower, reverse=True)]
    return lines + (found or ["In no case of this run."])
