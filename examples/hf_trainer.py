"""BERT to a smaller BERT in the Trainer of Hugging Face.

    pip install 'kdops[integrations]'
    python examples/hf_trainer.py

Soft targets and KD-SVD on hidden states. The connectors from 16 to 32 channels are in the Trainer's
optimizer and in its checkpoints; padded tokens count in no loss. Weights are random, nothing is
downloaded: give it your own model, data set and TrainingArguments.
"""

import tempfile

import torch
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments

from kdops.distillers import KDSVD, SoftTarget, WeightedSum
from kdops.integrations.transformers import DistillationTrainer

STUDENT = ["bert.encoder.layer.0", "bert.encoder.layer.1"]
TEACHER = ["bert.encoder.layer.1", "bert.encoder.layer.3"]


def bert(width: int, depth: int) -> BertForSequenceClassification:
    config = BertConfig(hidden_size=width, num_hidden_layers=depth, num_attention_heads=2,
                        intermediate_size=2 * width, vocab_size=60, num_labels=3)  # fmt: skip
    return BertForSequenceClassification(config)


def sentences(count: int) -> list[dict[str, object]]:
    """Of 4 to 12 tokens, padded to the longest possible; the label is in the second one."""
    rows: list[dict[str, object]] = []
    for length in torch.randint(4, 13, (count,)).tolist():
        mask = torch.arange(12) < length
        ids = torch.randint(1, 60, (12,)) * mask
        rows.append({"input_ids": ids, "attention_mask": mask.long(), "labels": int(ids[1]) % 3})
    return rows


def main(epochs: int = 2) -> list[dict[str, float]]:
    torch.manual_seed(0)
    teacher, student = bert(32, 4), bert(16, 2)
    method = WeightedSum({"kd": SoftTarget(), "svd": KDSVD([16, 16], [32, 32])}, {"svd": 0.1},
                         layout="tokens")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(folder, num_train_epochs=epochs, learning_rate=3e-3,
                                      per_device_train_batch_size=8, logging_steps=6,
                                      use_cpu=True, report_to=[], disable_tqdm=True)  # fmt: skip
        trainer = DistillationTrainer(student, arguments, train_dataset=sentences(48),
                                      teacher=teacher, method=method,
                                      layers=(STUDENT, TEACHER))  # fmt: skip
        trainer.train()
    history: list[dict[str, float]] = [row for row in trainer.state.log_history if "loss" in row]
    for row in history:
        print(f"step {row['step']}: loss {row['loss']:.4f}, distillation {row['distill']:.4f}")
    return history


if __name__ == "__main__":
    main()
