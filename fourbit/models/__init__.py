"""The reference networks (:func:`build`) and their trained checkpoints (:func:`load_checkpoint`)."""

from fourbit.models.checkpoints import (
    CHECKPOINTS,
    CachedLogits,
    CheckpointRecord,
    cached_logits,
    checkpoint_record,
    load_checkpoint,
)
from fourbit.models.zoo import PLANS, Plan, build, count_parameters, evaluating

__all__ = [
    "CHECKPOINTS",
    "PLANS",
    "CachedLogits",
    "CheckpointRecord",
    "Plan",
    "build",
    "cached_logits",
    "checkpoint_record",
    "count_parameters",
    "evaluating",
    "load_checkpoint",
]
