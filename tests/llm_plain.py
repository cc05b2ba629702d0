"""The plain model as a judge: its logits after a text, and what rounding activations to 8 bits does to them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch

from fourbit.llm.loading import Loaded
from fourbit.llm.model import Transformer

QUESTIONS = (
    "What is the capital of France?",
    "Name three primary colors.",
    "Why is the sky blue?",
    "Write a sentence about the sea.",
    "How many legs does a spider have?",
    "Translate 'good morning' into French.",
    "What is two plus two?",
    "Tell me about the city of Bath.",
    "Give me a recipe for pancakes.",
    "Who wrote Pride and Prejudice?",
    "What do bees make?",
    "Explain gravity to a child.",
    "List the days of the week.",
    "What is the opposite of hot?",
    "Describe a cat in one sentence.",
    "What is a computer made of?",
    "Why do leaves fall in autumn?",
    "How do I make tea?",
    "What is the largest planet?",
    "Say something kind.",
)


@contextlib.contextmanager
def rounded_inputs(model: Transformer, exempt: Callable[[str], bool] = lambda _: False) -> Iterator[None]:
    """Let every matrix of the plain model get its inputs as the kernels round them: to 8 bits in blocks of 32."""

    def as_int8(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        blocks = inputs[0].unflatten(-1, (-1, 32))
        step = blocks.abs().amax(-1, keepdim=True) / 127
        return ((torch.where(step > 0, blocks / step, blocks).round() * step).flatten(-2),)

    linears = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and not exempt(n)}
    hooks = [linear.register_forward_pre_hook(as_int8) for linear in linears.values()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def logits_at(loaded: Loaded, prompt: Sequence[int], made: Sequence[int]) -> torch.Tensor:
    """The plain model's logits (n, vocabulary) in the n places whose tokens were `made` after a prompt."""
    states = loaded.model.hidden(torch.tensor([[*prompt, *made]]))[0, len(prompt) - 1 : -1]
    logits: torch.Tensor = loaded.model.lm_head(states)
    return logits


def shortfalls(logits: torch.Tensor, made: Sequence[int]) -> torch.Tensor:
    """By how much the logit of each token that was made is below the best one's: 0 where it is the best."""
    return logits.max(-1).values - logits.gather(1, torch.tensor(made)[:, None])[:, 0]
