"""Learning from a teacher: the loss of soft labels, and the network that gives them.

BASQ and STTN train against a float teacher's probabilities alone (soft cross-entropy, no hard
labels); ``share`` mixes the two.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from bitfold.errors import UsageError
from bitfold.models.checkpoints import load_checkpoint
from bitfold.models.spec import NetSpec


def soft_cross_entropy(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """−Σ_c p_c·log q_c, mean over the batch: p the teacher's softmax, q the network's; (N, C)."""
    return -(teacher_logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()


def mixed_loss(
    logits: Tensor,
    labels: Tensor,
    teacher_logits: Tensor | None,
    *,
    share: float,
    label_smoothing: float,
) -> Tensor:
    """(1 − share)·cross-entropy on labels + share·soft cross-entropy; a scalar."""
    hard = functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    if teacher_logits is None:
        return hard
    return (1 - share) * hard + share * soft_cross_entropy(logits, teacher_logits)


def load_teacher(path: Path, spec: NetSpec) -> nn.Module:
    """The network of a checkpoint, frozen, in eval mode.

    Raises UsageError unless it takes the same images and tells the same classes apart.
    """
    loaded = load_checkpoint(path)
    for name, want, got in (
        ("input", spec.input_shape, loaded.spec.input_shape),
        ("classes", len(spec.class_names), len(loaded.spec.class_names)),
    ):
        if want != got:
            raise UsageError(
                f"the teacher has other data: {name} {got}, not {want}",
                where=f"file {path}",
                todo="Name a teacher that was trained on the same kind of images.",
            )
    teacher: nn.Module = loaded.model.eval()
    return teacher.requires_grad_(requires_grad=False)


@torch.no_grad()
def teacher_logits(teacher: nn.Module | None, images: Tensor) -> Tensor | None:
    """What ``teacher`` says of ``images``; None without one."""
    return None if teacher is None else teacher(images)
