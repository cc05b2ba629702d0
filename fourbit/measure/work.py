"""Multiply-accumulates of a whole model, as PyTorch's own dispatcher sees them."""

from __future__ import annotations

import copy

import torch
from torch import nn


def total_macs(model: nn.Module, example: torch.Tensor) -> int:
    """Return the multiply-accumulates that `model` needs for one sample of `example` (batch first).

    Counts matrix products, convolutions and attention; normalization, activations and pooling are not
    counted. Independent of module types: the operators that really run are observed.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports slowly, and few callers need it

    # On the meta device shapes flow and nothing is computed; the copy keeps the caller's statistics and mode.
    shadow = copy.deepcopy(model).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shadow(example[:1].to("meta"))
    return counter.get_total_flops() // 2
