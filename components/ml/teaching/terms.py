"""The losses between what student and teacher compute inside: hidden states, attention, relations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Each gives a sum over positions, so that parts of an accumulated batch add up: divide by all of its positions.


def hidden_sum(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """Squared error of hidden states, averaged over the width, summed over valid positions (Jiao et al. 2020, eq. 8).

    Args:
        student: shape (batch, length, width), projected to the teacher's width where that differs.
        teacher: the same shape; no gradient flows into it.
        valid: shape (batch, length), True where there is no padding.
    """
    difference = student[valid].float() - teacher.detach()[valid].float()
    return difference.square().mean(dim=-1).sum()


def attention_sum(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """``KL(teacher || student)`` of attention over the keys, averaged over heads, summed over valid queries.

    Keys that the student can't see (padding, or beyond a window that the teacher lacks) take no part: the
    teacher's probabilities are those among the keys that the student sees.

    Args:
        student: probabilities, shape (batch, heads, length, length), each row a distribution over keys.
        teacher: the same shape; no gradient flows into it.
        valid: shape (batch, length), True where there is no padding.
    """
    found, wanted = student.float(), teacher.detach().float()
    least = torch.finfo(torch.float32).tiny
    wanted = torch.where(found > 0, wanted, 0.0)
    wanted = wanted / wanted.sum(dim=-1, keepdim=True).clamp_min(least)
    divergence = (torch.xlogy(wanted, wanted) - wanted * found.clamp_min(least).log()).sum(dim=-1)
    return divergence.mean(dim=1)[valid].sum()


def relation_sum(student: Tensor, teacher: Tensor, valid: Tensor, heads: int) -> Tensor:
    """``KL(teacher || student)`` of the relations among queries (or keys, or values), averaged over relation heads and
    summed over valid positions (MiniLMv2, Wang et al. 2021, eq. 6).

    A relation is ``softmax(x x^T / sqrt(d))`` of the vectors ``x`` of one relation head, of width ``d``, over valid
    positions; so the two models' widths and heads may differ.

    Args:
        student: the vectors of all heads side by side, shape (batch, length, width).
        teacher: shape (batch, length, another width); no gradient flows into it.
        valid: shape (batch, length), True where there is no padding.
        heads: how many relation heads to split both widths into.
    """
    found, wanted = _log_relations(student, valid, heads), _log_relations(teacher.detach(), valid, heads)
    divergence = F.kl_div(found, wanted, reduction="none", log_target=True).sum(dim=-1)
    return divergence.mean(dim=1)[valid].sum()


def _log_relations(vectors: Tensor, valid: Tensor, heads: int) -> Tensor:
    """Log-probabilities, shape (batch, heads, length, length)."""
    split = vectors.float().unflatten(-1, (heads, -1)).transpose(1, 2)
    scores = split @ split.transpose(-1, -2) * split.shape[-1] ** -0.5
    scores = scores.masked_fill(~valid[:, None, None, :], torch.finfo(scores.dtype).min)
    return F.log_softmax(scores, dim=-1)
