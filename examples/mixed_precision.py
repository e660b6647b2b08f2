"""Mixed precision: features in half type, losses and relations in fp32, one call of fit.

    python examples/mixed_precision.py

On CUDA use amp=torch.float16 (fit adds a GradScaler) or torch.bfloat16; the CPU runs bfloat16.
"""

import tempfile
from pathlib import Path

import torch
from resnet import resnet

from kdops.distillers import FSP, RKD, WeightedSum
from kdops.training import fit

LAYERS = ["layer1", "layer2", "layer3"]


class FlowAndRelations(WeightedSum):
    """FSP on three levels, RKD on the last of them."""

    def forward(self, student, teacher):
        sides = ({"fsp": x, "rkd": x[-1]} for x in (student, teacher))
        return super().forward(*sides)


def main(epochs: int = 2) -> list[dict[str, float]]:
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    teacher, student = resnet(depth=2).to(device), resnet(depth=1).to(device)
    method = FlowAndRelations({"fsp": FSP(), "rkd": RKD()}, {"fsp": 0.1, "rkd": 0.1})
    images, target = torch.randn(32, 3, 32, 32), torch.randint(0, 10, (32,))
    dataset = torch.utils.data.TensorDataset(images, target)
    loader = torch.utils.data.DataLoader(dataset, batch_size=16, shuffle=True)
    with tempfile.TemporaryDirectory() as folder:
        history = fit(
            student,
            teacher,
            method,
            loader,
            epochs=epochs,
            layers=(LAYERS, LAYERS),
            amp=torch.float16 if device == "cuda" else torch.bfloat16,
            checkpoint=Path(folder) / "run.pt",  # call fit again with it to go on
            log=Path(folder) / "run.csv",
        )
    for row in history:
        print({name: round(value, 4) for name, value in row.items()})
    print({name: round(float(value), 4) for name, value in method.values.items()})
    return history


if __name__ == "__main__":
    main()
