"""BERT to a smaller BERT: hidden states and logits, padded tokens left out.

    python examples/bert_masks.py

Batches are dicts, as the loaders of Hugging Face give them: the networks get them by name, and
attention_mask is the mask of the method too. What lies at padded positions changes neither the loss
nor a gradient. The layers are named as BertModel's are: encoder.layer.0, encoder.layer.1, ...
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdops.distillers import KDSVD, FitNet, SoftTarget, WeightedSum
from kdops.training import fit

VOCABULARY, LENGTH, CLASSES = 50, 12, 3
STUDENT, TEACHER = ["encoder.layer.0", "encoder.layer.1"], ["encoder.layer.1", "encoder.layer.3"]


class Layer(nn.Module):
    """Returns a tuple, as a BertLayer does."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(width, 2, 2 * width, 0.0, batch_first=True)

    def forward(self, x: Tensor, padding: Tensor) -> tuple[Tensor]:
        return (self.block(x, src_key_padding_mask=padding),)


@dataclass
class Output:
    logits: Tensor


class Bert(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(VOCABULARY, width)
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList(Layer(width) for _ in range(depth))
        self.classifier = nn.Linear(width, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Output:
        x = self.embeddings(input_ids)
        for layer in self.encoder.layer:
            (x,) = layer(x, attention_mask == 0)
        return Output(self.classifier(x[:, 0]))


def batches(count: int) -> list[dict[str, Tensor]]:
    """Sentences of 4 to 12 tokens, padded to the longest possible."""
    found = []
    for _ in range(count):
        mask = torch.arange(LENGTH) < torch.randint(4, LENGTH + 1, (8, 1))
        ids = torch.randint(1, VOCABULARY, (8, LENGTH)) * mask
        labels = ids[:, 1] % CLASSES
        found.append({"input_ids": ids, "attention_mask": mask.long(), "labels": labels})
    return found


def main(epochs: int = 3) -> list[dict[str, float]]:
    torch.manual_seed(0)
    teacher, student = Bert(16, 4), Bert(8, 2)
    svd = KDSVD([8, 8], [16, 16])  # channel numbers: a learned connector from 8 to 16
    hint = FitNet([(8, LENGTH)] * 2, [(16, LENGTH)] * 2, batch_norm=False)
    method = WeightedSum(
        {"kd": SoftTarget(), "svd": svd, "hint": hint}, {"svd": 0.1}, layout="tokens"
    )
    optimizer = torch.optim.AdamW([*student.parameters(), *method.parameters()], 3e-3)
    history = fit(student, teacher, method, batches(6), epochs=epochs, layers=(STUDENT, TEACHER),
                  optimizer=optimizer, progress=False)  # fmt: skip
    for row in history:
        print(f"epoch {row['epoch']}: task {row['loss']:.4f}, distillation {row['distill']:.4f}")
    return history


if __name__ == "__main__":
    main()
