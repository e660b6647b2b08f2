"""KD-SVD from one ResNet to another by layer names, as with any torchvision model.

    python examples/kdsvd_resnet.py

FeatureTap finds layers by dotted name; clip_to_main keeps the distiller's gradient below the
task's, parameter by parameter, as the paper does.
"""

import torch
import torch.nn.functional as F
from resnet import resnet

from kdops import FeatureTap
from kdops.distillers import KDSVD
from kdops.training import clip_to_main, initialise_from

LAYERS = ["layer1", "layer2", "layer3"]


def main(steps: int = 4) -> list[float]:
    torch.manual_seed(0)
    teacher, student = resnet(depth=2).eval(), resnet(depth=1)
    report = initialise_from(student, teacher)
    print(f"copied {len(report.copied)} tensors of the teacher, {len(report.unused)} do not fit")
    images, target = torch.randn(16, 3, 32, 32), torch.randint(0, 10, (16,))

    with FeatureTap(student, LAYERS) as s, FeatureTap(teacher, LAYERS) as t:
        with torch.no_grad():
            student(images), teacher(images)
        method = KDSVD.from_sample(s.features, t.features, k=2)
        optimizer = torch.optim.SGD([*student.parameters(), *method.parameters()], 0.02)
        losses = []
        for epoch in range(steps):
            task = F.cross_entropy(student(images), target)
            with torch.no_grad():
                teacher(images)
            distill = method(s.features, t.features)
            optimizer.zero_grad()
            clip_to_main(task, distill, student.parameters(), free=method.parameters(), epoch=epoch)
            optimizer.step()
            losses.append(float(task.detach()))
            print(f"epoch {epoch}: task {losses[-1]:.4f}, KD-SVD {float(distill.detach()):.5f}")
    return losses


if __name__ == "__main__":
    main()
