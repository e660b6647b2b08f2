"""DistillationTrainer: a BERT pair from configs, batches with masks, save and resume."""

import pytest
import torch

import kdops.distillers as kd
from kdops._term import own_parameters

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from kdops.integrations.transformers import FILE, DistillationTrainer  # noqa: E402

LENGTH = 10
LAYERS = (
    [f"bert.encoder.layer.{i}" for i in (0, 1)],
    [f"bert.encoder.layer.{i}" for i in (1, 3)],
)


def bert(width, depth):
    config = transformers.BertConfig(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=2, vocab_size=60,
        intermediate_size=2 * width, num_labels=3, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def sentences(count=16):
    data = []
    for i in range(count):
        length = 4 + i % 7
        ids = [1 + (7 * i + 3 * j) % 59 for j in range(length)]
        data.append({"input_ids": ids, "labels": i % 3})
    return data


def collate(rows, filler=0):
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    mask = (torch.arange(LENGTH) < lengths[:, None]).long()
    ids = torch.full((len(rows), LENGTH), filler)
    for i, row in enumerate(rows):
        ids[i, : lengths[i]] = torch.tensor(row["input_ids"])
    labels = torch.tensor([row["labels"] for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def pair():
    torch.manual_seed(0)
    student, teacher = bert(16, 2), bert(32, 4)
    terms = {"kd": kd.SoftTarget(), "svd": kd.KDSVD([16, 16], [32, 32])}
    return student, teacher, kd.WeightedSum(terms, {"svd": 0.1}, layout="tokens")


def trainer(folder, nets, filler=0, optimizers=(None, None), **options):
    student, teacher, method = nets
    options = {"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-2, **options}
    args = transformers.TrainingArguments(
        str(folder), report_to=[], use_cpu=True, disable_tqdm=True, logging_steps=2, **options
    )
    return DistillationTrainer(
        student, args, data_collator=lambda rows: collate(rows, filler), teacher=teacher,
        train_dataset=sentences(), eval_dataset=sentences(8), method=method, layers=LAYERS,
        optimizers=optimizers,
    )  # fmt: skip


def weights(*modules):
    return [x.clone() for module in modules for x in module.state_dict().values()]


def test_it_trains_student_and_method(tmp_path):
    nets = pair()
    student, teacher, method = nets
    before, fixed = weights(student, method), weights(teacher)
    run = trainer(tmp_path, nets, save_strategy="no", max_steps=12)
    run.train()
    logs = [row for row in run.state.log_history if "distill" in row]
    assert logs[-1]["distill"] < logs[0]["distill"]
    assert all(p.grad is None or p.grad.isfinite().all() for p in student.parameters())
    moved = [not torch.equal(a, b) for a, b in zip(before, weights(student, method), strict=True)]
    assert all(moved[-len(method.state_dict()) :])
    assert all(torch.equal(a, b) for a, b in zip(fixed, weights(teacher), strict=True))
    assert not student.bert.encoder.layer[0]._forward_hooks
    # evaluation is the Trainer's own, of the student alone
    batch = collate(sentences(8))
    with torch.no_grad():
        expected = float(student.eval()(**batch).loss)
    assert run.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_padding_does_not_count(tmp_path):
    runs = []
    for filler in (0, 41):
        nets = pair()
        trainer(tmp_path, nets, filler, save_strategy="no", max_steps=2).train()
        runs.append(weights(nets[0], nets[2]))
    for a, b in zip(*runs, strict=True):
        torch.testing.assert_close(a, b)


def test_resume_is_the_same_curve(tmp_path):
    whole = pair()
    plain = {"optim": "sgd", "learning_rate": 0.1}  # Adam makes steps of rounding errors
    trainer(tmp_path / "whole", whole, max_steps=4, save_steps=2, **plain).train()
    again = pair()
    for p in again[2].parameters():
        torch.nn.init.zeros_(p)  # the checkpoint's count
    kept = tmp_path / "whole" / "checkpoint-2"
    run = trainer(tmp_path / "again", again, max_steps=4, save_strategy="no", **plain)
    run.train(resume_from_checkpoint=str(kept))
    for module, other in ((whole[0], again[0]), (whole[2], again[2])):
        for a, b in zip(weights(module), weights(other), strict=True):
            torch.testing.assert_close(a, b)
    (kept / FILE).unlink()
    with pytest.raises(ValueError, match=rf"checkpoint-2 has no {FILE}, the state of WeightedSum"):
        trainer(tmp_path / "third", pair()).train(resume_from_checkpoint=str(kept))
    torch.save(kd.KDSVD([4], [8]).state_dict(), kept / FILE)
    with pytest.raises(ValueError, match="is of another method than this WeightedSum"):
        trainer(tmp_path / "third", pair()).train(resume_from_checkpoint=str(kept))


@pytest.mark.parametrize("by_items", [True, False])
def test_accumulation_is_a_step_on_the_mean(tmp_path, by_items):
    """Also where the Trainer leaves it to the model to divide by the items of all batches."""
    moved = []
    for size, batches in ((8, 1), (4, 2)):
        student, teacher, method = pair()
        run = trainer(
            tmp_path, (student, teacher, method), save_strategy="no", max_steps=1, optim="sgd",
            learning_rate=1e-3, per_device_train_batch_size=size, max_grad_norm=0.0,
            gradient_accumulation_steps=batches,
        )  # fmt: skip
        run.model_accepts_loss_kwargs = by_items
        run.weight, run.method = 1e7, SumOfTokens()  # next to which the task does not count
        run.train()
        moved.append(weights(student.bert.encoder))
    for a, b in zip(*moved, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


class SumOfTokens(torch.nn.Module):
    """A mean over samples, of whatever length."""

    def forward(self, student, teacher):
        return 1e-6 * sum(
            (s - t[..., :16]).square().sum() / len(s) for s, t in zip(student, teacher, strict=True)
        )


def test_an_optimizer_without_the_methods_parameters(tmp_path):
    nets = pair()
    short = torch.optim.SGD(nets[0].parameters(), 0.1)
    with pytest.raises(ValueError, match=r"DistillationTrainer: the optimizer has not \d trained"):
        trainer(tmp_path, nets, optimizers=(short, None))
    both = torch.optim.SGD([*nets[0].parameters(), *nets[2].parameters()], 0.1)
    run = trainer(tmp_path, nets, optimizers=(both, None), save_strategy="no", max_steps=1)
    before = weights(nets[2])
    run.train()
    assert len(run.optimizer.param_groups) == 1
    assert any(not torch.equal(a, b) for a, b in zip(before, weights(nets[2]), strict=True))
    assert own_parameters(nets[2])
