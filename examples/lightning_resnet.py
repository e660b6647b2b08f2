"""KD-SVD between two ResNets in Lightning.

    pip install 'kdops[integrations]'
    python examples/lightning_resnet.py

Student and connectors are parts of the LightningModule: moved, saved, resumed and wrapped with it.
The teacher is not. A training_step of your own takes self.distillation(batch, output).
"""

import tempfile

import torch
from lightning.pytorch import Trainer
from resnet import resnet
from torch.utils.data import DataLoader, TensorDataset

from kdops.distillers import KDSVD
from kdops.integrations.lightning import DistillationModule

LAYERS = ["layer1", "layer2", "layer3"]


def main(epochs: int = 3) -> tuple[float, float]:
    """The task's loss and the method's after the last step."""
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(16, 3, 32, 32), torch.randint(0, 10, (16,)))
    module = DistillationModule(
        resnet(depth=1),
        resnet(depth=2),
        KDSVD([64, 128, 256], [64, 128, 256], k=2),
        layers=(LAYERS, LAYERS),
        optimizer=lambda parameters: torch.optim.SGD(parameters, 0.02),
        weight=0.1,
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(max_epochs=epochs, default_root_dir=folder, accelerator="cpu",
                          enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
        trainer.fit(module, DataLoader(data, batch_size=8))
    task, distill = (float(trainer.callback_metrics[name]) for name in ("task", "distill"))
    print(f"after {epochs} epochs: task {task:.4f}, KD-SVD {distill:.5f}")
    return task, distill


if __name__ == "__main__":
    main()
