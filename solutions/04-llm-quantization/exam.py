"""The exam of lab 04: cases, properties, named mistakes and equivalent alternatives.

Mistakes come from published notebooks and from issues of quantization libraries; each is a small patch of the
reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import properties as hold
import torch
from torch import nn

from fourbit.codec import Ref
from fourbit.exam import Alternative, Case, Exam, Exercise, Mistake, Property
from fourbit.recipes.llm_mixed import read_table

NOTES = {"outliers": "lecture_notes/outliers.md#", "four-bits": "lecture_notes/four-bits.md#"}


def tags(*names: str) -> frozenset[str]:
    return frozenset(names)


def mistake(id: str, name: str, anchor: str, why: str, *patch: tuple[str, str]) -> Mistake:
    chapter, place = anchor.split("#")
    return Mistake(id, name, patch, why, NOTES[chapter] + place)


def generator(seed: int, visible: bool, exercise: str) -> torch.Generator:
    """Other numbers for each exercise, and for hidden and visible cases."""
    salt = sum(ord(letter) * 31**i for i, letter in enumerate(exercise)) + (0 if visible else 7919)
    return torch.Generator().manual_seed((seed * 1_000_003 + salt) % 2**31)


def doubles(g: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def redrawn(draw: Callable[[], torch.Tensor], clear: Callable[[torch.Tensor], bool]) -> torch.Tensor:
    """The first draw without values so near a tie that float32 decides."""
    return next(t for t in (draw() for _ in range(1000)) if clear(t))


# 1. perplexity


def bigram(table: torch.Tensor) -> nn.Sequential:
    """A model whose logits depend on the last token only."""
    layer = nn.Embedding(*table.shape)
    layer.weight = nn.Parameter(table.float(), requires_grad=False)
    return nn.Sequential(layer)


def perplexity_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "perplexity")
    number, more = int(torch.randint(1000, (1,), generator=g)), 0 if visible else 1
    chain = bigram(2 * doubles(g, 9, 9))
    language = Ref("language_model", {"seed": number, "vocabulary": 23, "window": 16})
    steps = torch.full((6, 6), -900.0) + 900 * torch.eye(6).roll(1, 1)  # token t is followed by t + 1, nearly surely

    def text(count: int, words: int = 23) -> torch.Tensor:
        return torch.randint(words, (count,), generator=g)

    surprise = torch.arange(31 + more) % 6
    surprise[17 + more :] = (surprise[17 + more :] + 2) % 6
    return [
        Case("a bigram model", (chain, text(38 + more, 9), 8, 5), tags=tags("bigram")),
        Case("windows of two", (chain, text(14 + more, 9), 2, 1), tags=tags("bigram")),
        Case("a fair model", (bigram(torch.zeros(11, 11)), text(21 + more, 11), 7, 3), tags=tags("bigram")),
        Case("a very unlikely token", (bigram(steps), surprise, 9, 4), tags=tags("bigram")),
        Case("half a window of context", (language, text(49 + 7 * more), 16, 8), tags=tags("context")),
        Case("one new token in each window", (language, text(17 + more), 7 + more, 1), tags=tags("context")),
        Case("one token of context", (language, text(40 + more), 12 + more, 11 + more), tags=tags("context")),
        Case("a short last window", (language, text(41 + more), 16, 11), tags=tags("ends")),
        Case("a text shorter than the window", (language, text(11 + more), 16, 6), tags=tags("ends")),
        Case("a text of one window", (language, text(16 - more), 16 - more, 8), tags=tags("ends")),
        Case("one token more than a window", (language, text(17 - more), 16 - more, 8), tags=tags("ends")),
        Case("two tokens", (language, text(2), 16 - more, 3), tags=tags("ends")),
    ]


PPL_PART = "part = tokens[start : start + window]"
PPL_STOP = "if start + window >= len(tokens):"
PPL_KEEP = "found.append(nll[sum(map(len, found)) - start :])"
PPL_MEAN = "math.exp(nll.mean())"
PERPLEXITY = Exercise(
    "perplexity",
    points=8,
    difficulty=2,
    cases=perplexity_cases,
    properties=(
        Property("scores each token once, in its window", hold.scores_each_token, 3, tags=tags("context")),
        Property("is exact for a bigram model", hold.equals_the_closed_form, 1.5, tags=tags("bigram")),
        Property("short texts and last windows", hold.scores_each_token, 1.5, tags=tags("ends")),
        Property("the perplexity is exp of the mean over tokens", hold.is_exp_of_the_mean, 2),
    ),
    mistakes=(
        mistake(
            "mean-of-window-means",
            "the mean of window means",
            "outliers#perplexity",
            "You average each window and then the windows. The first and the last score other numbers of tokens than "
            "the rest, so their tokens weigh more or less than one. Average once, over all tokens.",
            (PPL_MEAN, "math.exp(sum(float(part.mean()) for part in found) / len(found))"),
        ),
        mistake(
            "mean-of-perplexities",
            "the mean of exponentials",
            "outliers#perplexity",
            "You average exp(nll). Perplexity is the exponential of the mean, not the mean of the exponentials: with "
            "yours one unlikely token outweighs a chapter.",
            (PPL_MEAN, "float(nll.exp().mean())"),
        ),
        mistake(
            "double-counting",
            "tokens in two windows count twice",
            "outliers#perplexity",
            "You score every token of every window. Where windows overlap, a token is counted again, the second time "
            "with the short context of a window's beginning. Each window scores only what no window before it has.",
            (PPL_KEEP, "found.append(nll)"),
        ),
        mistake(
            "first-token-counted",
            "divided by one token too many",
            "outliers#perplexity",
            "You divide by the number of tokens. The first has no context and no score, so N tokens make N - 1 terms. "
            "A widely copied loop divides by N, which makes every model look better, the more so the shorter the "
            "text.",
            (PPL_MEAN, "math.exp(nll.sum() / len(tokens))"),
        ),
        mistake(
            "bits-in-exp",
            "base 2 inside, base e outside",
            "outliers#perplexity",
            "You count in bits and then take exp. Either logarithm will do, but the exponential must undo the same "
            "one; this lab counts in nats.",
            ('return {"nll": nll', 'nll = nll / math.log(2)\n    return {"nll": nll'),
        ),
        mistake(
            "not-shifted",
            "logits and targets at the same place",
            "outliers#perplexity",
            "You ask the logits at place t for token t, which the model has just read. They are about token t + 1: "
            "drop the last logits and the first token.",
            ("part[1:, None]", "part[:-1, None]"),
        ),
        mistake(
            "stride-is-the-window",
            "each window begins without context",
            "outliers#perplexity",
            "Your windows hold just the tokens that they score. The point of a stride below the window is that the "
            "rest of the window is context; without it the model looks worse than it is.",
            (PPL_PART, "part = tokens[start : start + stride + 1]"),
            (PPL_STOP, "if start + stride + 1 >= len(tokens):"),
        ),
        mistake(
            "borders-lost",
            "the first token of each window is lost",
            "outliers#perplexity",
            "Your windows lie side by side, and the first token of each is never scored. That is the loop in many "
            "published evaluations; their perplexities compare only with one another.",
            ("range(0, len(tokens), stride)", "range(0, len(tokens), window)"),
            (PPL_KEEP, "found.append(nll)"),
        ),
        mistake(
            "tail-dropped",
            "the last, shorter window is dropped",
            "outliers#perplexity",
            "You skip a last window that is not full. Evaluations that cut a text into tokens // window pieces do so, "
            "and leave up to a window of text unread.",
            ("        log_probs", "        if len(part) < window and found:\n            break\n        log_probs"),
        ),
        mistake(
            "beginning-scored",
            "the wrong end of the window",
            "outliers#perplexity",
            "You score the first tokens of a window, not its last. They were scored before, with more context; the new "
            "ones stand at its end.",
            (PPL_KEEP, "found.append(nll[: len(nll) + start - sum(map(len, found))])"),
        ),
        mistake(
            "underflow",
            "log of a softmax that is 0",
            "outliers#perplexity",
            "You take the softmax and then its logarithm. A very unlikely token has probability 0 in floating point, "
            "and the perplexity becomes infinite. log_softmax never leaves the logarithm.",
            (".log_softmax(-1)", ".softmax(-1).log()"),
        ),
        mistake(
            "whole-text",
            "the whole text in one window",
            "outliers#perplexity",
            "You feed the text as a whole. A model has a longest context, and within it a figure holds for one window "
            "only: more context makes any model better, so papers state theirs.",
            (PPL_PART, "part = tokens"),
            (PPL_STOP, "if True:"),
        ),
    ),
    alternatives=(
        Alternative(
            "cross-entropy in float32",
            "def perplexity(model, tokens, window, stride):\n"
            "    losses, scored = [], 1\n"
            "    for begin in range(0, len(tokens), stride):\n"
            "        end = min(begin + window, len(tokens))\n"
            "        with torch.no_grad():\n"
            "            logits = model(tokens[begin:end].unsqueeze(0)).squeeze(0)\n"
            "        loss = F.cross_entropy(logits[:-1], tokens[begin + 1 : end], reduction='none')\n"
            "        losses.append(loss[-(end - scored):])\n"
            "        scored = end\n"
            "        if end == len(tokens):\n"
            "            break\n"
            "    nll = torch.cat(losses).to(torch.float64)\n"
            "    return {'nll': nll, 'perplexity': torch.exp(nll.sum() / (len(tokens) - 1)).item()}\n",
        ),
        Alternative(
            "token by token",
            "def perplexity(model, tokens, window, stride):\n"
            "    nll = []\n"
            "    for i in range(1, len(tokens)):\n"
            "        start = max(0, -(-(i + 1 - window) // stride)) * stride\n"
            "        logits = model(tokens[start : start + window][None])[0, i - 1 - start].double()\n"
            "        nll.append(float(torch.logsumexp(logits, 0) - logits[tokens[i]]))\n"
            "    return {'nll': torch.tensor(nll).double(), 'perplexity': math.exp(math.fsum(nll) / len(nll))}\n",
        ),
    ),
)

# 2. salient_channels


def salient_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "salient_channels")

    def layer(*shape: int, out: int, keep: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and weights whose scores do not come near one another where the choice is made."""
        channels = shape[-1]

        def draw() -> torch.Tensor:
            loud = torch.exp(0.8 * torch.randn(2, channels, generator=g))
            parts = torch.randn(math.prod(shape[:-1]), channels, generator=g), torch.randn(out, channels, generator=g)
            return torch.cat([part * size for part, size in zip(parts, loud, strict=True)])

        def clear(both: torch.Tensor) -> bool:
            scores = both[:-out].abs().mean(0), both[-out:].norm(dim=0)
            ranked = torch.stack(scores).sort(descending=True)
            if len(shape) == 3:  # the first text alone must not tell the same
                first = both[: shape[1]].abs().mean(0).topk(keep).indices
                if set(first.tolist()) == set(ranked.indices[0, :keep].tolist()):
                    return False
            return keep == channels or bool((ranked.values[:, keep - 1] > ranked.values[:, keep] * 1.0001).all())

        both = redrawn(draw, clear)
        return both[:-out].view(shape), both[-out:].clone()

    def spiked(tokens: int, channels: int, out: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Channel 2 is loud once, channels 5 and 6 all the time and in both directions."""
        x, weight = 0.1 + 0.05 * torch.rand(tokens, channels, generator=g), torch.randn(out, channels, generator=g)
        x[tokens // 2, 2] = 3.0
        x[:, 5:7] = (0.5 + 0.1 * torch.rand(tokens, 2, generator=g)) * (-1.0) ** torch.arange(tokens)[:, None]
        return x, weight

    def equal(channels: int, loud: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Small integers: many scores are equal exactly."""
        size = torch.ones(4, channels)
        size[:, loud] = 2
        return size * torch.tensor([1.0, -1.0, -1.0, 1.0])[:, None], size

    n = 0 if visible else 1
    usual, batch = layer(19, 40 + 10 * n, out=12, keep=4 + n), layer(3, 5 + n, 24, out=7, keep=6)
    few, square = layer(9, 30 + n, out=8, keep=1), 28 + 4 * n
    return [
        Case("by activation", (*usual, 0.1, "activation"), tags=tags("activation")),
        Case("several texts", (*batch, 0.25, "activation"), tags=tags("activation")),
        Case(
            "a square matrix, by activation",
            (*layer(15, square, out=square, keep=7 + n), 0.25, "activation"),
            tags=tags("activation"),
        ),
        Case("one loud token", (*spiked(12 + 2 * n, 21, 9 + n), 0.1, "activation"), tags=tags("activation")),
        Case("by weight", (*layer(6, 34 + 10 * n, out=16, keep=5 + n), 0.14, "weight"), tags=tags("weight")),
        Case("a tall matrix, by weight", (*layer(2, 4, 12, out=31 + n, keep=3), 0.25, "weight"), tags=tags("weight")),
        Case("at random", (*layer(4, 32 + 8 * n, out=5, keep=8), 0.25, "random"), tags=tags("random")),
        Case("half of them at random", (*layer(3, 20 + 6 * n, out=6, keep=9), 0.5, "random"), tags=tags("random")),
        Case("one in a hundred", (*layer(8, 270 + n, out=4, keep=3), 0.01, "activation"), tags=tags("share")),
        Case("a share below one channel", (*few, 0.01, "activation"), tags=tags("share")),
        Case("a share of zero", (*layer(5, 13 + n, out=6, keep=1), 0.0, "weight"), tags=tags("share")),
        Case("all channels", (*layer(7, 9 + n, out=3, keep=9 + n), 1.0, "activation"), tags=tags("share")),
        Case("equal activations", (*equal(17 + n, [4, 11]), 0.3, "activation"), tags=tags("ties")),
        Case("equal weights", (*equal(15 + n, [3 + n, 13]), 0.34, "weight"), tags=tags("ties")),
    ]


SAL_COUNT = "k = max(1, round(share * channels))"
SAL_SCORE = "x.abs().flatten(0, -2).mean(0)"
SAL_RANDOM = "torch.randperm(channels, generator=torch.Generator().manual_seed(0))[:k]"
SAL_LAST = "score.sort(descending=True, stable=True).indices[:k].sort().values"
SALIENT = Exercise(
    "salient_channels",
    points=6,
    difficulty=1,
    cases=salient_cases,
    properties=(
        Property("the loudest channels, by activation", hold.chooses_the_channels, 2, tags=tags("activation")),
        Property("the largest norms, by weight", hold.chooses_the_channels, 1.5, tags=tags("weight")),
        Property("the control draws without replacement", hold.chooses_the_channels, 1, tags=tags("random")),
        Property("keeps the share, and at least one", hold.chooses_the_channels, 1, tags=tags("share")),
        Property("of equal scores the lower come first", hold.chooses_the_channels, 0.5, tags=tags("ties")),
    ),
    mistakes=(
        mistake(
            "signed-mean",
            "signs cancel",
            "outliers#activation-outliers",
            "You average x, not |x|. A channel that swings between -60 and 60 has mean zero and is the one that "
            "matters most.",
            (SAL_SCORE, "x.flatten(0, -2).mean(0).abs()"),
        ),
        mistake(
            "largest-instead-of-mean",
            "the maximum instead of the mean",
            "four-bits#salient-channels",
            "You rank by the largest |x|. One odd token, such as the first of a text, then decides. A published "
            "notebook mixes the two up in its names: its hook for the maximum computes a mean. AWQ uses the mean.",
            (SAL_SCORE, "x.abs().flatten(0, -2).amax(0)"),
        ),
        mistake(
            "first-text-only",
            "only the first text counts",
            "outliers#activation-outliers",
            "You look at the first text of the batch. All dimensions but the last are tokens: flatten them, then "
            "average.",
            (SAL_SCORE, "x.abs().reshape(-1, x.shape[-2], channels)[0].mean(0)"),
        ),
        mistake(
            "output-statistics",
            "statistics of the output",
            "four-bits#awq",
            "You rank the layer's outputs. Which input channels matter shows in what comes in. A published course "
            "notebook scales queries and keys by the statistics of another layer's output, and has been copied so.",
            (SAL_SCORE, "(x @ weight.T).abs().flatten(0, -2).mean(0)"),
        ),
        mistake(
            "output-channels",
            "norms of rows",
            "four-bits#salient-channels",
            "You take the norm of each row, one for each output. An input channel's weights are a column of the "
            "matrix: sum over the outputs, dimension 0.",
            ("weight.norm(dim=0)", "weight.norm(dim=1)"),
        ),
        mistake(
            "with-replacement",
            "drawn with replacement",
            "four-bits#salient-channels",
            "You draw channels with replacement, so some come twice and fewer are kept than the share says: the "
            "control is weaker than it should be. A published notebook does this with randint; randperm draws each "
            "once.",
            (SAL_RANDOM, "torch.randint(channels, (k,), generator=torch.Generator().manual_seed(0))"),
        ),
        mistake(
            "per-mille",
            "a tenth of the share",
            "four-bits#salient-channels",
            "You keep a tenth of the share. A published notebook writes 0.1 % in one place and 1 % in the next; here a "
            "share is a fraction, 0.01 for 1 %.",
            (SAL_COUNT, "k = max(1, round(share / 10 * channels))"),
        ),
        mistake(
            "truncated-count",
            "the count is cut off",
            "four-bits#salient-channels",
            "You cut the number of channels off; int(2.7) is 2. Round, as the contract says.",
            (SAL_COUNT, "k = max(1, int(share * channels))"),
        ),
        mistake(
            "none-kept",
            "a small share keeps nothing",
            "four-bits#salient-channels",
            "With few channels the share rounds to none. At least one is kept.",
            (SAL_COUNT, "k = round(share * channels)"),
        ),
        mistake(
            "quietest",
            "the least important channels",
            "four-bits#salient-channels",
            "Your order ascends, so you keep the channels that matter least.",
            ("descending=True", "descending=False"),
        ),
        mistake(
            "unsorted",
            "in the order of their scores",
            "four-bits#salient-channels",
            "You return the channels from the loudest to the quietest. The contract asks for ascending indices, so "
            "that two choices can be compared.",
            (SAL_LAST, SAL_LAST.removesuffix(".sort().values")),
        ),
        mistake(
            "higher-first",
            "of equal scores the higher come first",
            "four-bits#salient-channels",
            "You sort upwards and turn the order around, which turns equal scores around too. Sort downwards, stably: "
            "of equal channels the lower comes first, on every machine.",
            (SAL_LAST, "score.argsort(stable=True).flip(0)[:k].sort().values"),
        ),
    ),
    alternatives=(
        Alternative(
            "a sorted list",
            "def salient_channels(x, weight, share, by):\n"
            "    n = x.shape[-1]\n"
            "    k = round(n * share) or 1\n"
            "    if by == 'random':\n"
            "        order = torch.randperm(n, generator=torch.Generator().manual_seed(0)).tolist()\n"
            "    else:\n"
            "        rows = x.reshape(-1, n).double().abs() if by == 'activation' else weight.double().square()\n"
            "        score = rows.sum(0).tolist()\n"
            "        order = sorted(range(n), key=lambda c: (-score[c], c))\n"
            "    return torch.tensor(sorted(order[:k]), dtype=torch.int64)\n",
        ),
    ),
)

# 3. round_to_nearest

NEAR = 1e-4  # no value lies nearer to the middle between two codes, in steps, unless exactly there


def off_ties(weight: torch.Tensor, bits: int, group: int) -> bool:
    """Whether float32 leaves no scale, zero or code of these weights open."""
    for part in weight.double().split(group, 1):
        low, high = part.amin(1).clamp(max=0), part.amax(1).clamp(min=0)
        scale = (high - low) / (2**bits - 1)
        step = scale.half().double()
        step[step == 0] = 1
        places = torch.cat([part / step[:, None], (-low / step)[:, None]], 1)
        if not torch.equal((scale * (1 - 1e-6)).half(), (scale * (1 + 1e-6)).half()):
            return False
        if ((places - places.floor() - 0.5).abs() < NEAR).any():
            return False
    return True


def nearest_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "round_to_nearest")
    n = 0 if visible else 1

    def case(
        name: str, shape: tuple[int, int], bits: int, group: int, *also: str, change: Callable = lambda w: w
    ) -> Case:
        def draw() -> torch.Tensor:
            return change(torch.randn(*shape, generator=g) * torch.exp(0.5 * torch.randn(shape[0], 1, generator=g)))

        weight = redrawn(draw, partial(off_ties, bits=bits, group=group))
        return Case(name, (weight, bits, group), tags=tags(*also))

    def some_empty(weight: torch.Tensor) -> torch.Tensor:
        weight[1, 4:8], weight[3] = 0, 0
        return weight * (torch.rand(weight.shape, generator=g) > 0.3)

    def constant(weight: torch.Tensor) -> torch.Tensor:
        weight[0, :6], weight[1, 6:], weight[2] = weight[0, 0].abs(), -weight[1, 6].abs(), 0.5
        return weight

    unit = 0.25 if visible else 0.125
    codes = torch.arange(-7, 8.5, 0.5) * unit  # 31 values: whole codes and the middles between them
    middles = codes[torch.randperm(31, generator=g)].repeat(2)[:48].view(3, 16)
    middles[:, 0], middles[:, 9] = -7 * unit, 8 * unit
    ends = torch.arange(-7.5, 8) * unit  # both ends round away from zero
    ends = ends[torch.randperm(16, generator=g)].view(2, 8)
    ends[:, 1], ends[:, 6] = -7.5 * unit, 7.5 * unit
    return [
        case("3 bits in groups of 8", (6 + n, 24), 3, 8, "usual"),
        case("4 bits in groups of 16", (4, 32 + 16 * n), 4, 16, "usual"),
        case("2 bits", (5 + n, 12), 2, 4, "usual"),
        case("8 bits, a row is one group", (5, 48 + n), 8, 48 + n, "usual", "stored"),
        case("7 bits in groups of 24", (7 - n, 48), 7, 24, "usual", "stored"),
        case("a short last group", (4 + n, 19), 4, 8, "ragged"),
        case("short rows in wide groups", (3, 10 + n), 3, 16, "ragged"),
        case("each weight is a group", (3 + n, 5), 4, 1, "ragged"),
        case("weights above zero", (4, 16 + 8 * n), 4, 8, "one-sided", change=lambda w: 3 + w.abs()),
        case("weights below zero", (4, 15 + 8 * n), 5, 8, "one-sided", change=lambda w: -1 - w.abs()),
        case("pruned weights and empty groups", (5 + n, 16), 4, 4, "zeros", change=some_empty),
        case("constant groups", (3, 12 + n), 4, 6, "constant", "one-sided", change=constant),
        case("a scale too small for float16", (3 + n, 8), 8, 8, "tiny", change=lambda w: 1e-7 * w),
        case("a scale of few float16 digits", (4, 24 + 8 * n), 4, 8, "tiny", change=lambda w: 4e-7 * w),
        Case("exact halves", (middles, 4, 16), tags=tags("ties")),
        Case("exact halves at both ends", (ends, 4, 8), tags=tags("ties")),
    ]


RTN_PAD = "F.pad(weight, (0, groups * group - columns)).view(rows, groups, group)"
RTN_RANGE = "low, high = padded.amin(-1).clamp(max=0), padded.amax(-1).clamp(min=0)"
RTN_SCALE = "scale = ((high - low) / top).half()"
RTN_CODES = "((padded / step[..., None]).round() + zero[..., None]).clamp(0, top)"
RTN_RETURN = "codes.byte().view(rows, -1)[:, :columns].clone()"
NEAREST = Exercise(
    "round_to_nearest",
    points=10,
    difficulty=2,
    cases=nearest_cases,
    properties=(
        Property("the steps of each group cover its range", hold.has_the_right_scales, 2, tags=tags("usual", "ragged")),
        Property("the zero is the code of zero", hold.has_the_right_zeros, 1, tags=tags("usual", "one-sided")),
        Property("each weight gets its nearest code", hold.has_the_right_group_codes, 2, tags=tags("usual")),
        Property("codes use the scale as it is stored", hold.has_the_right_group_codes, 1, tags=tags("stored")),
        Property("a last group may be short", hold.has_the_right_group_codes, 1, tags=tags("ragged")),
        Property("ranges are widened to contain zero", hold.errs_by_half_a_stored_step, 1, tags=tags("one-sided")),
        Property("zero comes back as zero", hold.keeps_zero_weights, 0.5, tags=tags("zeros")),
        Property("empty groups have scale 1", hold.has_the_right_scales, 0.5, tags=tags("zeros", "constant", "tiny")),
        Property("codes stay codes when the scale is tiny", hold.has_the_right_group_codes, 0.5, tags=tags("tiny")),
        Property("halves go to the even neighbor", hold.has_the_right_group_codes, 0.5, tags=tags("ties")),
    ),
    mistakes=(
        mistake(
            "scale-not-stored",
            "codes for a scale that is not stored",
            "four-bits#round-to-nearest",
            "You round the weights with the exact scale and store another, rounded to float16. At 8 bits the top code "
            "then stands for a value up to an eighth of a step off. Round the scale first and use what will be read "
            "back.",
            ("step = scale.float()", "step = (high - low) / top\n    step[step == 0] = 1"),
        ),
        mistake(
            "two-to-the-b-steps",
            "2^b steps instead of 2^b - 1",
            "four-bits#round-to-nearest",
            "b bits make 2^b values and so 2^b - 1 steps between them. With one step more, the largest weight of each "
            "group, the one that matters most, is cut off; at 2 bits that is a quarter of the range.",
            (RTN_SCALE, "scale = ((high - low) / 2**bits).half()"),
        ),
        mistake(
            "range-without-zero",
            "zero lies outside the range",
            "four-bits#round-to-nearest",
            "You did not widen the range to contain zero. Where all weights of a group have one sign, the zero would "
            "lie beyond the codes; it is clamped, and the group comes back shifted. Published AWQ code does this; "
            "with groups of 128 it hardly ever shows.",
            (RTN_RANGE, "low, high = padded.amin(-1), padded.amax(-1)"),
        ),
        mistake(
            "symmetric-range",
            "a symmetric range",
            "four-bits#round-to-nearest",
            "Your range is symmetric about zero. Few groups are: on the shorter side codes lie idle, and at 3 bits "
            "there are only eight.",
            (RTN_RANGE, "high = padded.abs().amax(-1)\n    low = -high"),
        ),
        mistake(
            "rounded-down",
            "rounded down",
            "four-bits#round-to-nearest",
            "You take the floor, which is off by up to a whole step and always in one direction: the errors of a dot "
            "product add up instead of canceling. Round to the nearest.",
            ("(padded / step[..., None]).round()", "(padded / step[..., None]).floor()"),
        ),
        mistake(
            "rounded-after-the-shift",
            "rounded after adding the zero",
            "four-bits#round-to-nearest",
            "You add the zero before rounding. With an odd zero, half-way values then go to the odd neighbor: even "
            "after the shift is odd before it. Two programs that differ here do not write the same file.",
            (RTN_CODES, "(padded / step[..., None] + zero[..., None]).round().clamp(0, top)"),
        ),
        mistake(
            "counted-from-the-minimum",
            "codes counted from the minimum",
            "four-bits#round-to-nearest",
            "You count steps from the group's minimum and store a rounded zero, so what is read back is shifted by up "
            "to half a step, and 0 does not come back as 0. Round weight / scale and add the integer zero.",
            (RTN_CODES, "((padded - low[..., None]) / step[..., None]).round().clamp(0, top)"),
        ),
        mistake(
            "codes-not-clamped",
            "codes beyond the last",
            "four-bits#round-to-nearest",
            "Weight and zero can both round up, and their sum is then 2^b: one bit too many, which packing cuts off, "
            "so that the largest weight becomes the smallest. Clamp the codes.",
            (RTN_CODES, RTN_CODES.removesuffix(".clamp(0, top)")),
        ),
        mistake(
            "every-nth-column",
            "groups of distant columns",
            "four-bits#groups",
            "Your groups take every n-th column. They should be neighbors: view(rows, groups, group), not view(rows, "
            "group, groups). A kernel reads a row from left to right, with one scale for each stretch.",
            (RTN_PAD, "F.pad(weight, (0, groups * group - columns)).view(rows, group, groups).transpose(1, 2)"),
            (RTN_RETURN, "codes.byte().transpose(1, 2).reshape(rows, -1)[:, :columns].clone()"),
        ),
        mistake(
            "groups-across-rows",
            "groups run on into the next row",
            "four-bits#groups",
            "You cut the flattened matrix, so a group that does not fit goes on in the next row. Each row starts "
            "afresh, and its last group may be short; rows belong to different outputs with different ranges.",
            (
                RTN_PAD,
                "F.pad(weight.flatten(), (0, rows * (groups * group - columns))).view(rows, groups, group)",
            ),
            (RTN_RETURN, "codes.byte().flatten()[: rows * columns].view(rows, columns).clone()"),
        ),
        mistake(
            "zero-less-one",
            "the zero is stored less one",
            "four-bits#formats",
            "You store zero - 1. One widespread format does, and every reader has to know it; a zero of 0 wraps around "
            "to 255. Here the zero is stored as it is.",
            ('"zero": zero.byte()', '"zero": (zero.int() - 1).to(torch.uint8)'),
        ),
        mistake(
            "least-scale",
            "a smallest scale instead of 1",
            "four-bits#round-to-nearest",
            "You keep the range above 1e-5 so as not to divide by zero. That also changes groups that are merely "
            "small, which come back as zero. Only where float16 has no scale left is it set to 1.",
            (RTN_SCALE, "scale = ((high - low).clamp(min=1e-5) / top).half()"),
        ),
    ),
    alternatives=(
        Alternative(
            "group by group",
            "def round_to_nearest(weight, bits, group):\n"
            "    top = 2 ** bits - 1\n"
            "    codes, scales, zeros = [], [], []\n"
            "    for part in weight.split(group, dim=1):\n"
            "        low = part.min(1, keepdim=True).values.clamp(max=0)\n"
            "        high = part.max(1, keepdim=True).values.clamp(min=0)\n"
            "        scale = ((high - low) / top).to(torch.float16)\n"
            "        scale = torch.where(scale == 0, torch.ones_like(scale), scale)\n"
            "        zero = torch.round(-low / scale.float()).clamp(0, top)\n"
            "        codes.append((torch.round(part / scale.float()) + zero).clamp(0, top).to(torch.uint8))\n"
            "        scales.append(scale)\n"
            "        zeros.append(zero.to(torch.uint8))\n"
            "    return {'codes': torch.cat(codes, 1), 'scale': torch.cat(scales, 1), 'zero': torch.cat(zeros, 1)}\n",
        ),
        Alternative(
            "in float64",
            "def round_to_nearest(weight, bits, group):\n"
            "    rows, columns = weight.shape\n"
            "    top, count = 2 ** bits - 1, math.ceil(columns / group)\n"
            "    scale, zero = torch.ones(rows, count).half(), torch.zeros(rows, count).byte()\n"
            "    codes = torch.zeros(rows, columns).byte()\n"
            "    for r in range(rows):\n"
            "        for i in range(count):\n"
            "            part = weight[r, i * group : (i + 1) * group].double()\n"
            "            low, high = min(0.0, float(part.min())), max(0.0, float(part.max()))\n"
            "            step = float(torch.tensor((high - low) / top).half()) or 1.0\n"
            "            base = min(max(round(-low / step), 0), top)\n"
            "            scale[r, i], zero[r, i] = step, base\n"
            "            codes[r, i * group : (i + 1) * group] = ((part / step).round() + base).clamp(0, top).byte()\n"
            "    return {'codes': codes, 'scale': scale, 'zero': zero}\n",
        ),
    ),
)

# 4. model_bytes


def opt(width: int, layers: int, vocabulary: int) -> tuple[dict[str, list[int]], list[str], dict[str, str]]:
    """The tensors of a model of the OPT family, its quantized matrices and its tied head."""
    shapes = {"embed_tokens.weight": [vocabulary, width], "embed_positions.weight": [2050, width]}
    quantized = []
    for i in range(layers):
        matrices = {f"self_attn.{name}_proj": [width, width] for name in ("q", "k", "v", "out")}
        matrices |= {"fc1": [4 * width, width], "fc2": [width, 4 * width]}
        for name, shape in matrices.items():
            shapes |= {f"layers.{i}.{name}.weight": shape, f"layers.{i}.{name}.bias": shape[:1]}
            quantized.append(f"layers.{i}.{name}.weight")
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            shapes |= {f"layers.{i}.{name}.weight": [width], f"layers.{i}.{name}.bias": [width]}
    shapes |= {"final_layer_norm.weight": [width], "final_layer_norm.bias": [width]}
    shapes["lm_head.weight"] = [vocabulary, width]
    return shapes, quantized, {"lm_head.weight": "embed_tokens.weight"}


def llama(
    width: int, ff: int, kv: int, layers: int, vocabulary: int
) -> tuple[dict[str, list[int]], list[str], dict[str, str]]:
    shapes, quantized = {"embed_tokens.weight": [vocabulary, width]}, []
    for i in range(layers):
        matrices = {"q": [width, width], "k": [kv, width], "v": [kv, width], "o": [width, width]}
        matrices |= {"gate": [ff, width], "up": [ff, width], "down": [width, ff]}
        for name, shape in matrices.items():
            shapes[f"layers.{i}.{name}_proj.weight"] = shape
            quantized.append(f"layers.{i}.{name}_proj.weight")
        shapes |= {f"layers.{i}.{name}.weight": [width] for name in ("input_norm", "post_attention_norm")}
    return shapes | {"norm.weight": [width], "lm_head.weight": [vocabulary, width]}, quantized, {}


def bytes_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "model_bytes")

    def pick(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=g))

    def case(name: str, model: tuple, bits: int, group: int, *also: str) -> Case:
        shapes, quantized, tied = model
        return Case(name, (shapes, quantized, bits, group, tied), tags=tags(*also))

    def odd() -> int:
        return 2 * pick(8, 40) + 1

    def net(rows: int, columns: int) -> tuple[dict[str, list[int]], list[str], dict[str, str]]:
        table = pick(40, 90)
        shapes = {
            "table": [table, columns],
            "a": [rows, columns],
            "b": [columns, rows],
            "kernel": [pick(3, 9), 4, 3, 3],
        }
        shapes |= {"gain": [columns], "step": [], "head": [table, columns]}
        return shapes, ["a", "b"], {"head": "table"}

    one: tuple = ({"w": [odd(), odd()]}, ["w"], {})
    whole = 8 * pick(3, 9)
    if visible:
        known = [
            case("OPT-1.3B at 3 bits in groups of 128", opt(2048, 24, 50272), 3, 128, "whole"),
            case("SmolLM2-135M's form, untied, 4 bits", llama(576, 1536, 192, 30, 49152), 4, 64, "whole"),
        ]
    else:
        known = [
            case("OPT-350M's form at 3 bits", opt(1024, pick(20, 28), 50272), 3, 64, "whole"),
            case("a Llama at 4 bits, untied", llama(64 * pick(9, 14), 2048, 256, pick(12, 24), 32000), 4, 128, "whole"),
        ]
    return [
        *known,
        case("a small net, 4 bits", net(whole, 8 * pick(3, 9)), 4, 8, "whole"),
        case("odd rows at 3 bits", net(odd(), odd()), 3, 8, "rows"),
        case("one odd matrix at 5 bits", one, 5, 32, "rows"),
        case("one odd matrix at 4 bits", ({"w": [odd(), odd()]}, ["w"], {}), 4, 16, "rows"),
        case("a group for each weight", net(odd(), 8 * pick(2, 6)), 8, 1, "rows"),
        case("groups wider than the rows", net(pick(5, 30), odd()), 2, 128, "rows"),
        case("two tied matrices, one of them quantized", tied_pair(pick(9, 30), pick(30, 60)), 6, 16, "whole"),
    ]


def tied_pair(rows: int, columns: int) -> tuple[dict[str, list[int]], list[str], dict[str, str]]:
    return {"first": [rows, columns], "second": [rows, columns], "gain": [columns]}, ["first"], {"second": "first"}


MB_ROWS = "rows * math.ceil(columns * bits / 8)"
MB_GROUPS = "groups = rows * math.ceil(columns / group)"
MB_BPW = '"bits_per_weight": 8 * stored / weights'
BYTES = Exercise(
    "model_bytes",
    points=7,
    difficulty=1,
    cases=bytes_cases,
    properties=(
        Property("the codes, each row in whole bytes", partial(hold.counts, keys=("codes",)), 1.5),
        Property("a scale and a zero for each group", partial(hold.counts, keys=("scales", "zeros")), 2),
        Property("what is not quantized keeps 16 bits", partial(hold.counts, keys=("rest",)), 1.5),
        Property("the sum, of a whole model", hold.counts, 1, tags=tags("whole")),
        Property("bits for each quantized weight", hold.has_the_bits_per_weight, 1),
    ),
    mistakes=(
        mistake(
            "embeddings-at-few-bits",
            "every matrix counted as quantized",
            "four-bits#model-size",
            "You count all matrices at few bits, the embeddings too, which stay as they are. A published notebook "
            "prints 495.06 MiB for OPT-1.3B at 3 bits in this way; with its embeddings at 16 bits the same count "
            "gives 660.1, a third more.",
            ("if name not in quantized:", "if len(shape) != 2:"),
        ),
        mistake(
            "tied-twice",
            "the tied head counted twice",
            "four-bits#model-size",
            "You count a tied tensor under both names. It is one tensor in memory and in the file; OPT-1.3B would "
            "have 196 MiB too much.",
            ("if name in tied:", "if False:"),
        ),
        mistake(
            "half-bytes-lost",
            "bytes rounded down",
            "four-bits#bits-per-weight",
            "You cut the bits of a row down to whole bytes. The last codes of an odd row then have no place: round up.",
            (MB_ROWS, "rows * (columns * bits // 8)"),
        ),
        mistake(
            "packed-as-one-row",
            "rows run on within a byte",
            "four-bits#bits-per-weight",
            "You fill up to whole bytes once for the matrix. Each row begins at a byte of its own, so that a kernel "
            "can find it.",
            (MB_ROWS, "math.ceil(rows * columns * bits / 8)"),
        ),
        mistake(
            "short-groups-lost",
            "a short last group has no scale",
            "four-bits#groups",
            "You count full groups only. A last, shorter group needs its scale and zero as any other: round up in each "
            "row.",
            (MB_GROUPS, "groups = rows * (columns // group)"),
        ),
        mistake(
            "groups-of-the-matrix",
            "groups run on into the next row",
            "four-bits#groups",
            "You divide the matrix's weights by the group size. Groups do not cross rows, so each row rounds up for "
            "itself.",
            (MB_GROUPS, "groups = math.ceil(rows * columns / group)"),
        ),
        mistake(
            "groups-along-outputs",
            "groups along the outputs",
            "four-bits#groups",
            "You group along the outputs. Groups lie along a row, the direction in which the dot product sums.",
            (MB_GROUPS, "groups = columns * math.ceil(rows / group)"),
        ),
        mistake(
            "zeros-forgotten",
            "the zeros are free",
            "four-bits#bits-per-weight",
            "You charge no zeros. An asymmetric grid stores one for each group: 8 / 128 of a bit per weight in groups "
            "of 128, and a quarter of a bit in groups of 32.",
            ('found["zeros"] += groups', 'found["zeros"] += 0'),
        ),
        mistake(
            "packed-zeros",
            "zeros in as few bits as codes",
            "four-bits#bits-per-weight",
            "You pack the zeros in as few bits as the codes. Some formats do; this one gives each a byte. A size is "
            "right only for one format.",
            ('found["zeros"] += groups', 'found["zeros"] += math.ceil(groups * bits / 8)'),
        ),
        mistake(
            "float32-scales",
            "scales of four bytes",
            "four-bits#bits-per-weight",
            "You store scales in float32. They are float16, two bytes each; in groups of 32 your way costs half a bit "
            "for each weight.",
            ("2 * groups", "4 * groups"),
        ),
        mistake(
            "bits-of-the-file",
            "bits per weight of the whole file",
            "four-bits#bits-per-weight",
            "You divide the whole model by its quantized weights. Bits per weight describe the quantized matrices: "
            "codes, scales and zeros.",
            (MB_BPW, '"bits_per_weight": 8 * (stored + found["rest"]) / weights'),
        ),
        mistake(
            "nominal-bits",
            "bits per weight from the formula",
            "four-bits#bits-per-weight",
            "You compute bits + 24 / group. That holds where rows are whole numbers of groups and of bytes; the exact "
            "figure comes from the bytes.",
            (MB_BPW, '"bits_per_weight": bits + 24 / group'),
        ),
    ),
    alternatives=(
        Alternative(
            "entry by entry",
            "def model_bytes(shapes, quantized, bits, group, tied):\n"
            "    stored = [name for name in shapes if name not in tied]\n"
            "    matrices = [tuple(shapes[name]) for name in stored if name in set(quantized)]\n"
            "    groups = sum(r * ((c + group - 1) // group) for r, c in matrices)\n"
            "    codes = sum(r * ((c * bits + 7) // 8) for r, c in matrices)\n"
            "    rest = 0\n"
            "    for name in stored:\n"
            "        if name not in set(quantized):\n"
            "            entries = 1\n"
            "            for size in shapes[name]:\n"
            "                entries *= size\n"
            "            rest += 16 * entries // 8\n"
            "    few = (codes + 3 * groups) * 8 / sum(r * c for r, c in matrices)\n"
            "    return {'total': codes + 3 * groups + rest, 'codes': codes, 'scales': groups * 2, 'zeros': groups,\n"
            "            'rest': rest, 'bits_per_weight': few}\n",
        ),
    ),
)

# 5. normal_levels


def levels_cases(_seed: int, visible: bool) -> list[Case]:
    """There are seven questions in all; students see three of them."""
    return [Case(f"{bits} bits", (bits,)) for bits in ((3, 4, 6) if visible else (2, 5, 7, 8))]


NL_OFFSET = "p = round(1 - (1 / (2 * n) + 1 / (2 * (n - 1))) / 2, 7)"
NL_ALL = "levels = torch.tensor([*half(n // 2 + 1), 0.0, *(-z for z in half(n // 2))])"
NL_QUANTILE = "NormalDist().inv_cdf(float(q))"
LEVELS = Exercise(
    "normal_levels",
    points=5,
    difficulty=1,
    cases=levels_cases,
    properties=(
        Property("zero is a level, with half the levels above", hold.has_an_exact_zero, 1),
        Property("the levels ascend from -1 to 1", hold.spans_minus_one_to_one, 1),
        Property("the levels are the quantiles", hold.has_the_quantiles, 3),
    ),
    mistakes=(
        mistake(
            "no-zero",
            "symmetric, without a zero",
            "four-bits#nf4",
            "Your levels are symmetric, so none of them is zero. With an even number of levels one side must give one "
            "up: NF4 has eight above zero and seven below, so that pruned weights and padding stay exactly zero.",
            (NL_ALL, "levels = torch.tensor([*half(n // 2 + 1), *(-z for z in half(n // 2 + 1))])"),
        ),
        mistake(
            "zero-squeezed-in",
            "one of the symmetric levels set to zero",
            "four-bits#nf4",
            "You spread quantiles evenly over both sides and set one in the middle to zero, which leaves a gap below "
            "it. Each side has its own even spacing, from its first level to zero.",
            (
                NL_ALL,
                "levels = torch.tensor([NormalDist().inv_cdf(float(q)) for q in torch.linspace(1 - p, p, n)])\n"
                "    levels[n // 2 - 1] = 0",
            ),
        ),
        mistake(
            "not-normalized",
            "quantiles as they are",
            "four-bits#nf4",
            "You return quantiles of the normal distribution, which reach 1.8 at 4 bits. Blocks are divided by their "
            "absmax, so the outermost levels must be -1 and 1.",
            ("(levels / levels.max()).sort()", "levels.sort()"),
        ),
        mistake(
            "sides-swapped",
            "more levels below zero than above",
            "four-bits#nf4",
            "You gave the extra level to the negative side. By convention it is the positive one; a file written with "
            "your table is read with another.",
            (NL_ALL, "levels = torch.tensor([*half(n // 2), 0.0, *(-z for z in half(n // 2 + 1))])"),
        ),
        mistake(
            "one-sided-offset",
            "the offset of one side only",
            "four-bits#nf4",
            "You start at 1 - 1 / (2 n). The offset is the mean of that for n levels and that for n - 1, since the two "
            "sides have different numbers of levels.",
            (NL_OFFSET, "p = round(1 - 1 / (2 * n), 7)"),
        ),
        mistake(
            "four-bit-offset",
            "the offset of 4 bits for all",
            "four-bits#nf4",
            "You use 0.9677083 whatever the number of bits. It is right for 16 levels; with more, the outermost "
            "quantile lies farther out.",
            (NL_OFFSET, "p = 0.9677083"),
        ),
        mistake(
            "evenly-spaced",
            "levels evenly spaced",
            "four-bits#nf4",
            "You space the levels evenly, as integers are. Quantiles lie close together near zero, where most weights "
            "are, so that each level is used about as often as any other.",
            (NL_QUANTILE, "(float(q) - 0.5)"),
        ),
        mistake(
            "zero-three-times",
            "zero comes three times",
            "four-bits#nf4",
            "You keep the quantile of 0.5, which is 0, on both sides, besides the zero itself: two levels too many. "
            "Leave the last of each side out.",
            ("torch.linspace(p, 0.5, count)[:-1]", "torch.linspace(p, 0.5, count)"),
        ),
        mistake(
            "not-sorted",
            "levels in the order of their construction",
            "four-bits#nf4",
            "You return the levels as you built them, from the largest down and then the negative ones. Codes are "
            "ranks: the search for the nearest level needs them ascending.",
            ("return (levels / levels.max()).sort().values", "return levels / levels.max()"),
        ),
    ),
    alternatives=(
        Alternative(
            "erfinv",
            "def normal_levels(bits):\n"
            "    n = 2 ** bits\n"
            "    p = 1 - (1 / n + 1 / (n - 1)) / 4\n"
            "    def quantile(q):\n"
            "        return math.sqrt(2) * torch.erfinv(2 * q - 1)\n"
            "    above = quantile(torch.linspace(0.5, p, n // 2 + 1).double()[1:])\n"
            "    below = -quantile(torch.linspace(0.5, p, n // 2).double()[1:]).flip(0)\n"
            "    levels = torch.cat([below, torch.zeros(1).double(), above])\n"
            "    return (levels / levels[-1]).float()\n",
        ),
    ),
)

# 6. quantize_blocks

NF4 = (
    [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334]
    + [-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224]
    + [0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]
)


def blocks_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "quantize_blocks")
    n = 0 if visible else 1
    nf4 = torch.tensor(NF4)
    fine = torch.linspace(-1, 1, 256)
    fine = fine * fine.abs().sqrt()

    def off_middles(values: torch.Tensor, levels: torch.Tensor, block: int) -> bool:
        middles = (levels[1:].double() + levels[:-1].double()) / 2
        for part in values.flatten().double().split(block):
            largest = part.abs().max()
            if largest > 0 and ((part / largest)[:, None].sub(middles).abs() < 1e-6).any():
                return False
        return True

    def case(
        name: str, shape: tuple[int, ...], levels: torch.Tensor, block: int, *also: str, shift: float = 0.0
    ) -> Case:
        def draw() -> torch.Tensor:
            return torch.exp(torch.randn(1, generator=g)) * torch.randn(*shape, generator=g) + shift

        values = redrawn(draw, partial(off_middles, levels=levels, block=block))
        return Case(name, (values, levels, block), tags=tags(*also))

    def some(count: int, low: float = -1.0, high: float = 1.0) -> torch.Tensor:
        """Ascending levels, well apart."""
        steps = 0.5 + torch.rand(count - 1, generator=g)
        places = torch.cat([torch.zeros(1), steps.cumsum(0)])
        return low + (high - low) * (places / places[-1])

    def quiet(levels: torch.Tensor, name: str) -> Case:
        made = case(name, (4 + n, 6), levels, 6, "zeros")
        made.args[0][1], made.args[0][3] = 0, 0
        return made

    unit = 0.5 if visible else 2.0
    grid = torch.tensor([-1.0, -0.5, 0.0, 0.25, 1.0] if visible else [-1.0, -0.75, -0.25, 0.0, 0.5, 1.0])
    middles = torch.cat([(grid[1:] + grid[:-1]) / 2, grid, (grid[1:] + grid[:-1]) / 2])
    blocks = torch.cat([torch.cat([unit * (i + 1) * middles, torch.tensor([-unit * (i + 1)])]) for i in range(2)])
    return [
        case("NF4 in blocks of 64", (8, 40 + 8 * n), nf4, 64, "usual"),
        case("a tensor of three dimensions", (3, 5 + n, 16), nf4, 16, "usual"),
        case("256 levels", (150 + 10 * n,), fine, 50 + 10 * n, "many"),
        case("uneven levels", (6, 20), some(7 + n), 10, "usual"),
        case("two levels", (5, 8), some(2), 4, "usual"),
        case("values of one sign", (4, 12), some(9), 6, "usual", shift=-8.0 - n),
        case("levels that stop short of the ends", (4 + n, 10), some(6, -0.7, 0.8), 5, "usual"),
        case("a short last block", (5, 11 + n), some(8), 9, "ragged"),
        case("blocks that cross rows", (6, 7 + 2 * n), nf4, 14, "ragged"),
        case("one wide block", (3 + n, 5), nf4, 64, "ragged"),
        case("each value is a block", (9 + n,), nf4, 1, "ragged"),
        quiet(nf4, "blocks of zeros"),
        quiet(some(5 + n, -0.9, 1.0), "blocks of zeros, no level at zero"),
        Case("half-way between two levels", (blocks, grid, len(blocks) // 2), tags=tags("ties")),
    ]


QB_CUT = "blocks = F.pad(flat, (0, -len(flat) % block)).view(-1, block)"
QB_LARGEST = "absmax = blocks.abs().amax(1)"
QB_UNIT = "unit = blocks / torch.where(absmax > 0, absmax, 1.0)[:, None]"
QB_CODES = "torch.bucketize(unit, (levels[1:] + levels[:-1]) / 2)"
QB_BACK = "codes.byte().flatten()[: len(flat)].view(values.shape)"
BLOCKS = Exercise(
    "quantize_blocks",
    points=5,
    difficulty=2,
    cases=blocks_cases,
    properties=(
        Property("each value gets its nearest level", hold.has_the_nearest_levels, 2, tags=tags("usual", "many")),
        Property("each block has its own absmax", hold.has_the_largest_magnitudes, 1, tags=tags("usual", "ragged")),
        Property("blocks run on and the last may be short", hold.has_the_nearest_levels, 1, tags=tags("ragged")),
        Property("blocks of zeros keep absmax 0", hold.has_the_largest_magnitudes, 0.5, tags=tags("zeros")),
        Property("blocks of zeros have the level nearest 0", hold.has_the_nearest_levels, 0.5, tags=tags("zeros")),
        Property("half-way values get the lower level", hold.has_the_nearest_levels, 0.5, tags=tags("ties")),
    ),
    mistakes=(
        mistake(
            "one-absmax",
            "one absmax for the tensor",
            "four-bits#nf4",
            "You divide everything by the tensor's largest value. One outlier then squeezes all others into the middle "
            "levels; blocks are there to keep it to its own 64.",
            (QB_LARGEST, "absmax = blocks.abs().amax().repeat(len(blocks))"),
        ),
        mistake(
            "signed-maximum",
            "the maximum without the magnitude",
            "four-bits#nf4",
            "You take the largest value, not the largest magnitude. A block whose extreme is negative is then cut off "
            "at -1 or, if it has nothing positive, turned around.",
            (QB_LARGEST, "absmax = blocks.amax(1)"),
        ),
        mistake(
            "not-normalized",
            "the absmax is not divided by",
            "four-bits#nf4",
            "You look the values up as they are. Levels lie in [-1, 1]: divide each block by its absmax first.",
            (QB_UNIT, "unit = blocks"),
        ),
        mistake(
            "next-lower-level",
            "the next lower level",
            "four-bits#nf4",
            "You search among the levels, which finds the next lower one. The borders between codes lie in the middle "
            "of two neighboring levels.",
            (QB_CODES, "torch.bucketize(unit, levels[1:], right=True)"),
        ),
        mistake(
            "even-levels-assumed",
            "codes as if levels were evenly spaced",
            "four-bits#nf4",
            "You compute the code from the value, as for an integer grid. These levels are not evenly spaced, so the "
            "nearest has to be searched for.",
            (QB_CODES, "((unit + 1) / 2 * (len(levels) - 1)).round().clamp(0, len(levels) - 1)"),
        ),
        mistake(
            "upper-at-the-middle",
            "half-way values go up",
            "four-bits#nf4",
            "A value exactly between two levels goes to the upper one. Either is as good, but one must be chosen for "
            "two programs to agree to the bit: the lower.",
            (QB_CODES, QB_CODES.removesuffix(")") + ", right=True)"),
        ),
        mistake(
            "divided-by-zero",
            "blocks of zeros become NaN",
            "four-bits#nf4",
            "A block of zeros has absmax 0, and 0 / 0 is NaN, which the search puts behind the last level. Its values "
            "are zero: give them the level nearest to 0.",
            (QB_UNIT, "unit = blocks / absmax[:, None]"),
        ),
        mistake(
            "absmax-of-one",
            "blocks of zeros have absmax 1",
            "four-bits#nf4",
            "You store 1 for a block of zeros. Unless a level is exactly zero, the block comes back as something else "
            "than zero; with absmax 0 it is zero whatever the level.",
            (QB_LARGEST, "absmax = blocks.abs().amax(1)\n    absmax[absmax == 0] = 1"),
        ),
        mistake(
            "half-precision-absmax",
            "the absmax is rounded to float16",
            "four-bits#double-quantization",
            "You round the absmax to float16. Here it stays float32, which costs half a bit for each weight in blocks "
            "of 64; double quantization is the next step that saves most of it.",
            (QB_LARGEST, "absmax = blocks.abs().amax(1).half().float()"),
        ),
        mistake(
            "blocks-within-rows",
            "blocks begin anew in each row",
            "four-bits#nf4",
            "You cut each row by itself. Here the tensor is one long row: a block may cross from one row into the "
            "next, and only the very last may be short.",
            (QB_CUT, "blocks = F.pad(values, (0, -values.shape[-1] % block)).reshape(-1, block)"),
            (QB_BACK, "codes.byte().view(*values.shape[:-1], -1)[..., : values.shape[-1]].clone()"),
        ),
        mistake(
            "every-nth-value",
            "blocks of distant values",
            "four-bits#nf4",
            "Your blocks take every n-th value: view(block, -1) where view(-1, block) was meant. Neighbors share a "
            "block.",
            (QB_CUT, QB_CUT.replace("view(-1, block)", "view(block, -1).T")),
            (QB_BACK, "codes.byte().T.flatten()[: len(flat)].view(values.shape)"),
        ),
    ),
    alternatives=(
        Alternative(
            "by distance",
            "def quantize_blocks(values, levels, block):\n"
            "    codes, absmax = [], []\n"
            "    for part in values.reshape(-1).split(block):\n"
            "        largest = part.abs().max()\n"
            "        unit = part.double() / largest.double() if largest > 0 else part.double()\n"
            "        far = (unit[:, None] - levels.double()).abs()\n"
            "        nearest = far == far.amin(1, keepdim=True)\n"
            "        codes.append(nearest.int().argmax(1))\n"
            "        absmax.append(largest)\n"
            "    codes = torch.cat(codes).to(torch.uint8)\n"
            "    return {'codes': codes.reshape(values.shape), 'absmax': torch.stack(absmax)}\n",
        ),
        Alternative(
            "by the reciprocal",
            "def quantize_blocks(values, levels, block):\n"
            "    flat = values.flatten()\n"
            "    count = math.ceil(len(flat) / block)\n"
            "    rows = torch.zeros(count * block)\n"
            "    rows[: len(flat)] = flat\n"
            "    absmax = torch.maximum(rows.view(count, block).amax(1), -rows.view(count, block).amin(1))\n"
            "    inverse = torch.where(absmax == 0, 0.0, 1 / absmax)\n"
            "    middles = (levels[:-1] + levels[1:]) * 0.5\n"
            "    codes = torch.searchsorted(middles, rows * inverse.repeat_interleave(block))\n"
            "    return {'codes': codes[: len(flat)].byte().reshape(values.shape), 'absmax': absmax}\n",
        ),
    ),
)

# 7. fold_scales


def fold_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "fold_scales")
    width, out = (6, 5) if visible else (8, 7)

    def scales(count: int) -> torch.Tensor:
        return torch.exp(doubles(g, count))

    def layer(*shape: int, bias: bool = False) -> dict[str, torch.Tensor | None]:
        return {"weight": doubles(g, *shape), "bias": doubles(g, shape[0]) if bias else None}

    same = torch.arange(width)
    heads, shared, head_width = (2, 3, 4) if visible else (3, 2, 4)
    channels = heads * head_width
    # Head h of the queries reads the values of head h // shared.
    grouped = torch.arange(channels).view(heads, head_width).repeat_interleave(shared, 0).flatten()
    order, few = torch.randperm(width, generator=g), torch.randperm(width, generator=g)[: width - 2]
    qkv = [doubles(g, rows, width) for rows in (width, width // 2, width // 2)]
    single = {"weight": torch.rand(width, generator=g) + 0.5, "bias": None}
    read = [torch.randn(out, width, generator=g) for _ in range(2)]
    return [
        Case("a norm read by q, k and v", (layer(width), qkv, scales(width), same), tags=tags("norm")),
        Case(
            "a norm read by gate and up, float32",
            (single, read, torch.exp(torch.randn(width, generator=g)), same),
            tags=tags("norm"),
        ),
        Case(
            "a norm with a bias",
            (layer(width, bias=True), [doubles(g, out, width), doubles(g, 2, width)], scales(width), same),
            tags=tags("bias"),
        ),
        Case(
            "up into down",
            (layer(width, out), [doubles(g, out, width)], scales(width), same),
            tags=tags("linear"),
        ),
        Case(
            "a square matrix into a square matrix",
            (layer(width, width), [doubles(g, width, width)], scales(width), same),
            tags=tags("linear"),
        ),
        Case(
            "v into o, grouped queries",
            (layer(channels, width), [doubles(g, out, channels * shared)], scales(channels), grouped),
            tags=tags("grouped"),
        ),
        Case(
            "v with a bias into o, grouped queries",
            (layer(channels, width, bias=True), [doubles(g, out, channels * shared)], scales(channels), grouped),
            tags=tags("grouped", "bias"),
        ),
        Case(
            "channels read in another order",
            (layer(width, out), [doubles(g, 4, width)], scales(width), order),
            tags=tags("grouped"),
        ),
        Case(
            "some channels are read by nobody",
            (layer(width), [doubles(g, out, width - 2), doubles(g, 3, width - 2)], scales(width), few),
            tags=tags("grouped"),
        ),
    ]


FOLD_ROWS = "rows = scales.view(-1, *[1] * (weight.ndim - 1))"
FOLD_BIAS = "None if bias is None else bias / scales"
FOLD_AFTER = "[matrix * scales[source] for matrix in after]"
FOLD = Exercise(
    "fold_scales",
    points=8,
    difficulty=2,
    cases=fold_cases,
    properties=(
        Property("a norm, read by several matrices", hold.folds_and_computes_the_same, 2, tags=tags("norm")),
        Property("a matrix that writes the channels", hold.folds_and_computes_the_same, 2, tags=tags("linear")),
        Property("a bias", hold.folds_and_computes_the_same, 2, tags=tags("bias")),
        Property(
            "channels read several times or in another order", hold.folds_and_computes_the_same, 2, tags=tags("grouped")
        ),
    ),
    mistakes=(
        mistake(
            "bias-not-divided",
            "the bias keeps its size",
            "four-bits#folding",
            "You divided the weight and not the bias. The layer's output is weight times input plus bias, and all of "
            "it is multiplied back: the bias arrives s times too large. Llama has no biases, Qwen2's q, k and v do.",
            (FOLD_BIAS, "bias"),
        ),
        mistake(
            "bias-lost",
            "the bias disappears",
            "four-bits#folding",
            "You return no bias. It is a part of the channel like everything else: divide it and keep it.",
            (FOLD_BIAS, "None if bias is None else torch.zeros_like(bias)"),
        ),
        mistake(
            "first-reader-only",
            "only the first reader is multiplied back",
            "four-bits#folding",
            "You multiplied the first matrix only. q, k and v all read the same norm, and so do gate and up: those "
            "that you left alone now read channels that are too small.",
            (FOLD_AFTER, "[after[0] * scales[source], *(matrix.clone() for matrix in after[1:])]"),
        ),
        mistake(
            "multiplied-on-both-sides",
            "multiplied on both sides",
            "four-bits#folding",
            "You multiplied in both layers, so that each channel counts s squared times. One side divides, the other "
            "multiplies; their product has to be 1.",
            ("weight / rows", "weight * rows"),
            ("bias / scales", "bias * scales"),
        ),
        mistake(
            "the-other-way",
            "divided where the contract multiplies",
            "four-bits#folding",
            "You multiplied in the first layer and divided in the readers. The function stays the same, but salient "
            "weights become smaller instead of larger: the opposite of what AWQ and SmoothQuant need.",
            ("weight / rows", "weight * rows"),
            ("bias / scales", "bias * scales"),
            (FOLD_AFTER, "[matrix / scales[source] for matrix in after]"),
        ),
        mistake(
            "input-columns-divided",
            "the columns of the first matrix",
            "four-bits#folding",
            "You divided the columns of the matrix that writes the channels: those are *its* inputs. A channel that it "
            "writes is a row. With as many inputs as outputs nothing fails, and everything is wrong.",
            (FOLD_ROWS, "rows = scales"),
        ),
        mistake(
            "reader-rows-multiplied",
            "the rows of the readers",
            "four-bits#folding",
            "You multiplied the rows of the readers, which are what they write. They read channels along columns.",
            (FOLD_AFTER, "[matrix * scales[source][:, None] for matrix in after]"),
        ),
        mistake(
            "heads-tiled",
            "the scales repeated as a whole",
            "four-bits#folding",
            "You repeated all scales one after the other. Grouped queries repeat *heads*: neighboring query heads read "
            "the same key-value head. `source` says which column reads what; use it as the index.",
            (
                FOLD_AFTER,
                "[matrix * scales.repeat(-(-len(source) // len(scales)))[: len(source)] for matrix in after]",
            ),
        ),
        mistake(
            "later-heads-forgotten",
            "only the first columns",
            "four-bits#folding",
            "You multiplied as many columns as there are scales and left the rest. With grouped queries there are more "
            "columns than channels, and each of them reads one that you divided.",
            (
                FOLD_AFTER,
                "[torch.cat([m[:, : len(scales)] * scales[source[: len(scales)]], m[:, len(scales) :]], 1) "
                "for m in after]",
            ),
        ),
        mistake(
            "inverse-order",
            "source read backwards",
            "four-bits#folding",
            "You took source[j] for the column that reads channel j. It is the other way around: column j reads "
            "channel source[j].",
            (FOLD_AFTER, "[matrix * scales[source.argsort(stable=True) % len(scales)] for matrix in after]"),
        ),
        mistake(
            "in-place",
            "the matrices that came in are changed",
            "four-bits#folding",
            "You multiplied the matrices in place. Whoever tries the next candidate of a search starts from weights "
            "that have been scaled already.",
            (FOLD_AFTER, "[matrix.mul_(scales[source]) for matrix in after]"),
        ),
    ),
    alternatives=(
        Alternative(
            "diagonal matrices",
            "def fold_scales(before, after, scales, source):\n"
            "    gain, shift = before['weight'], before['bias']\n"
            "    inverse = torch.diag(1 / scales)\n"
            "    result = {'weight': inverse @ gain, 'bias': None}\n"
            "    if shift is not None:\n"
            "        result['bias'] = inverse @ shift\n"
            "    spread = torch.diag(scales.index_select(0, source))\n"
            "    return {'before': result, 'after': [m @ spread for m in after]}\n",
        ),
    ),
)

# 8. awq_scales


def _on_grid(w: torch.Tensor, bits: int, group: int) -> torch.Tensor:
    """What round_to_nearest makes of the weights, by another road than the exercise takes."""
    top, parts = 2**bits - 1, []
    for part in w.split(group, dim=1):
        low, high = part.amin(1, keepdim=True).clamp(max=0), part.amax(1, keepdim=True).clamp(min=0)
        step = ((high - low) / top).half().double()
        zero = (-low / step).round()
        parts.append((((part / step).round() + zero).clamp(0, top) - zero) * step)
    return torch.cat(parts, 1)


def _steady(x: torch.Tensor, weights: list[torch.Tensor], bits: int, group: int, grid: int) -> bool:
    """Whether float32 leaves no candidate's code open, and one alpha is clearly best."""
    x = x.reshape(-1, x.shape[-1]).double()
    loud, errors = (x.abs().sum(0) / len(x)).clamp(min=1e-4), []
    for i in range(grid):
        s = torch.exp(i / grid * loud.log())
        s = s * torch.exp(-(s.max().log() + s.min().log()) / 2)
        scaled = [w.double() * s for w in weights]
        if not all(off_ties(w, bits, group) for w in scaled):
            return False
        back = [_on_grid(w, bits, group) / s for w in scaled]
        errors.append(float(sum((x @ (b - w).T).square().mean() for b, w in zip(back, weights, strict=True))))
    best, *others = sorted(errors)
    return not others or others[0] > 1.01 * best


def _awq_inputs(
    g: torch.Generator,
    shape: tuple[int, ...],
    rows: tuple[int, ...],
    loud: int,
    setting: tuple[int, int, int],
    mute: int = 0,
) -> tuple:
    """Inputs with `loud` channels ten times as large as the others, and matrices; drawn until they are steady."""
    while True:
        gains = torch.exp(0.5 * torch.randn(shape[-1], generator=g))
        order = torch.randperm(shape[-1], generator=g)
        gains[order[:loud]] *= 10
        gains[order[loud : loud + mute]] = 0
        x = torch.randn(shape, generator=g) * gains
        weights = [torch.randn(count, shape[-1], generator=g) * 0.3 * (1 + i) for i, count in enumerate(rows)]
        if _steady(x, weights, *setting):
            return x, weights, *setting


def awq_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "awq_scales")
    width = 16 if visible else 24
    square = (width, width // 2, 3)
    silent = _awq_inputs(g, (20, width), (width,), 2, (3, 8, 4), mute=1)  # one channel that calibration never saw
    signs = torch.randint(0, 2, (12, width), generator=g) * 2.0 - 1  # all means are exactly 1, and all errors equal
    even = [redrawn(lambda: torch.randn(width, width, generator=g), lambda w: off_ties(w, 3, 8))]
    return [
        Case("one matrix, 4 bits", _awq_inputs(g, (24, width), (width,), 2, (4, 8, 5)), tags=tags("usual")),
        Case("q, k and v, 3 bits", _awq_inputs(g, (24, width), square, 1, (3, 8, 6)), tags=tags("usual", "several")),
        Case("gate and up, 2 bits", _awq_inputs(g, (16, width), (width, 2), 2, (2, 8, 4)), tags=tags("several")),
        Case("two texts", _awq_inputs(g, (2, 11, width), (width,), 2, (3, 16, 4)), tags=tags("shapes")),
        Case("a ragged last group", _awq_inputs(g, (18, width - 3), (width,), 1, (3, 6, 4)), tags=tags("shapes")),
        Case("a silent channel", silent, tags=tags("silent")),
        Case("equally loud channels", (signs, even, 3, 8, 4), tags=tags("equal")),
        Case("a grid of one", _awq_inputs(g, (10, width), (width,), 1, (4, 4, 1)), tags=tags("equal")),
    ]


AWQ_MEAN = "mean = x.abs().mean(0).clamp(min=1e-4)"
AWQ_POWER = "scales = mean ** (i / grid)"
AWQ_NORMAL = "        scales = scales / (scales.max() * scales.min()).sqrt()\n"
AWQ_APART = "apart = dequantized(q, group) / scales - weight"
AWQ_QUANTIZE = "q = round_to_nearest(weight * scales, bits, group)"
AWQ_ERROR = "float((x @ apart.T).square().mean())"
AWQ_BEST = "min(tried, key=lambda entry: entry[0])"
AWQ = Exercise(
    "awq_scales",
    points=10,
    difficulty=3,
    cases=awq_cases,
    properties=(
        Property("the error of each candidate", hold.measures_each_candidate, 3, tags=tags("usual")),
        Property("several matrices share their scales", hold.measures_each_candidate, 1.5, tags=tags("several")),
        Property("several texts, ragged groups", hold.measures_each_candidate, 1.5, tags=tags("shapes")),
        Property("the best alpha and its normalized scales", hold.chooses_the_best, 3, tags=tags("usual", "several")),
        Property("a channel that is always zero", hold.chooses_the_best, 1, tags=tags("silent")),
        Property("never worse than no scales, the first of equals", hold.chooses_the_best, 1, tags=tags("equal")),
    ),
    mistakes=(
        mistake(
            "output-side-statistics",
            "statistics of the outputs",
            "four-bits#awq",
            "Your mean is over what the layer writes. A widely copied course notebook does the same for q, k and v: it "
            "takes the statistics from behind the attention. The columns of W meet the layer's *inputs*, and it is "
            "their size that makes a weight salient.",
            (AWQ_MEAN, "mean = (x @ torch.cat(weights).T).abs().mean(0)[: x.shape[1]].clamp(min=1e-4)"),
        ),
        mistake(
            "not-normalized",
            "the scales are not normalized",
            "four-bits#awq",
            "You left out the division by sqrt(max * min). The errors hardly notice, since a common factor cancels; "
            "but the folded norm gets gains of any size, and in float16 they overflow.",
            (AWQ_NORMAL, ""),
        ),
        mistake(
            "normalized-by-mean",
            "divided by their mean",
            "four-bits#awq",
            "You divided the scales by their mean. The contract centers them between their extremes: the largest and "
            "the smallest are then each other's reciprocals.",
            ("(scales.max() * scales.min()).sqrt()", "scales.mean()"),
        ),
        mistake(
            "zero-left-out",
            "alpha begins at 1 / grid",
            "four-bits#awq",
            "Your grid leaves out alpha = 0, which changes nothing. It is the insurance: with it the search can never "
            "end worse on the calibration text than plain rounding.",
            (AWQ_POWER, "scales = mean ** ((i + 1) / grid)"),
            ("tried.append((error, i / grid, scales))", "tried.append((error, (i + 1) / grid, scales))"),
        ),
        mistake(
            "one-included",
            "one candidate too many",
            "four-bits#awq",
            "You tried alpha = 1 as well. The contract's grid ends at (grid - 1) / grid, as the paper's code does.",
            ("for i in range(grid):", "for i in range(grid + 1):"),
        ),
        mistake(
            "error-of-the-weights",
            "the error of the weights",
            "four-bits#awq",
            "You compare weights. There all channels count alike, so scaling some of them up can only hurt, and alpha "
            "stays near 0. What counts is the error of the output, where loud channels weigh more.",
            (AWQ_ERROR, "float(apart.square().mean())"),
        ),
        mistake(
            "not-divided-back",
            "the scales are not divided out again",
            "four-bits#folding",
            "You compare Q(W s) with W. Without the division by s the product is that of another layer, and the larger "
            "the scales the larger its error: alpha = 0 always wins.",
            (AWQ_APART, "apart = dequantized(q, group) - weight"),
        ),
        mistake(
            "largest-instead-of-mean",
            "the largest |x| instead of the mean",
            "four-bits#awq",
            "You took each channel's largest magnitude. That is SmoothQuant's statistic, which must not clip; AWQ asks "
            "what a channel is *usually* worth. One strange token must not decide.",
            (AWQ_MEAN, "mean = x.abs().amax(0).clamp(min=1e-4)"),
        ),
        mistake(
            "signed-mean",
            "the mean of x instead of |x|",
            "four-bits#awq",
            "You averaged x with its sign. A channel that is loud in both directions has a mean near zero and would "
            "count as silent.",
            (AWQ_MEAN, "mean = x.mean(0).abs().clamp(min=1e-4)"),
        ),
        mistake(
            "divided-first",
            "salient weights made smaller",
            "four-bits#awq",
            "You divide the weights by s and multiply afterwards. The salient ones, small now, get the coarse end of "
            "the grid. Multiply first: a weight twice as large has half the relative error.",
            (AWQ_QUANTIZE, "q = round_to_nearest(weight / scales, bits, group)"),
            (AWQ_APART, "apart = dequantized(q, group) * scales - weight"),
        ),
        mistake(
            "first-matrix-only",
            "only the first matrix is judged",
            "four-bits#awq",
            "You measure the first matrix only. q, k and v are fed by one norm and must share their scales: what is "
            "best for q may harm v.",
            ("for weight in weights:", "for weight in weights[:1]:"),
        ),
        mistake(
            "wide-matrices-count-more",
            "summed squares instead of means",
            "four-bits#awq",
            "You add up squares over all outputs. k and v, which are narrow, then hardly count beside q. The contract "
            "takes the mean of each matrix.",
            (AWQ_ERROR, "float((x @ apart.T).square().sum()) / len(x)"),
        ),
        mistake(
            "first-text-only",
            "only the first text is seen",
            "four-bits#calibration",
            "You look at the first text of the batch. Statistics need all tokens: flatten the leading dimensions.",
            ("x = x.flatten(0, -2)", "x = x[0] if x.ndim > 2 else x"),
        ),
        mistake(
            "silent-channels",
            "a silent channel has the scale 0",
            "four-bits#awq",
            "A channel that calibration never saw has the mean 0, its scale is 0, and the division by sqrt(max * min) "
            "makes everything infinite. That is what the lower bound of 1e-4 is for.",
            (AWQ_MEAN, "mean = x.abs().mean(0)"),
        ),
        mistake(
            "last-of-equals",
            "the last of equal candidates",
            "four-bits#awq",
            "Where several alphas give the same error you take the last. Of equals the smallest alpha is the safer: it "
            "moves the least.",
            (AWQ_BEST, "min(reversed(tried), key=lambda entry: entry[0])"),
        ),
        mistake(
            "largest-error",
            "the worst candidate",
            "four-bits#awq",
            "You return the candidate with the largest error.",
            (AWQ_BEST, "max(tried, key=lambda entry: entry[0])"),
        ),
    ),
    alternatives=(
        Alternative(
            "all matrices at once",
            "def awq_scales(x, weights, bits, group, grid):\n"
            "    tokens = x.reshape(-1, x.shape[-1])\n"
            "    statistic = torch.maximum(tokens.abs().mean(dim=0), torch.tensor(1e-4))\n"
            "    best, errors = None, []\n"
            "    for step in range(grid):\n"
            "        s = statistic.pow(step / grid)\n"
            "        s = s / torch.sqrt(s.max() * s.min())\n"
            "        total = 0.0\n"
            "        for w in weights:\n"
            "            coarse = dequantized(round_to_nearest(w * s[None], bits, group), group)\n"
            "            total += F.mse_loss((tokens / s) @ coarse.T, tokens @ w.T).item()\n"
            "        errors.append(total)\n"
            "        if best is None or total < errors[best[0]]:\n"
            "            best = step, s\n"
            "    return {'alpha': best[0] / grid, 'scales': best[1], 'errors': errors}\n",
        ),
    ),
    seconds=5.0,
)

# 9. gptq


def _quantized_by_elimination(
    w: torch.Tensor, hessian: torch.Tensor, bits: int, group: int, damp: float
) -> tuple[torch.Tensor, float]:
    """Optimal brain quantization in column order with explicit inverses, and how far the nearest tie is.

    After each column the inverse of what is left of the Hessian is found anew: no Cholesky factor, O(n^4).
    """
    w, h = w.double().clone(), hessian.clone()
    silent = h.diagonal() == 0
    w[:, silent] = 0
    h += torch.diag(silent.double())
    h += damp * h.diagonal().mean() * torch.eye(len(h), dtype=torch.float64)
    codes, margin, top = torch.zeros_like(w), 1.0, 2**bits - 1
    for j in range(len(h)):
        if j % group == 0:
            part = w[:, j : j + group]
            low, high = part.amin(1).clamp(max=0), part.amax(1).clamp(min=0)
            exact = (high - low) / top
            step = torch.where(exact.half() > 0, exact.half().double(), 1.0)
            zero = (-low / step).round().clamp(0, top)
            if not all(torch.equal((exact * (1 + nudge)).half(), exact.half()) for nudge in (-1e-5, 1e-5)):
                margin = 0.0
            margin = min(margin, _from_half(-low / step))
        margin = min(margin, _from_half(w[:, j] / step))
        codes[:, j] = ((w[:, j] / step).round() + zero).clamp(0, top)
        inverse = torch.linalg.inv(h[j:, j:])
        error = w[:, j] - (codes[:, j] - zero) * step
        w[:, j:] -= error[:, None] / inverse[0, 0] * inverse[0]
    return codes.byte(), margin


def _from_half(place: torch.Tensor) -> float:
    return float((place - place.floor() - 0.5).abs().min())


def _gptq_inputs(
    g: torch.Generator, shape: tuple[int, int], setting: tuple[int, int, float], samples: int = 60,
    silent: int = 0, diagonal: bool = False,
) -> tuple:  # fmt: skip
    """Weights and a Hessian of correlated inputs, drawn until no rounding is near a tie."""
    rows, columns = shape
    while True:
        w = torch.randn(rows, columns, generator=g) * 0.4
        x = doubles(g, samples, columns) @ (torch.eye(columns).double() + 0.5 * doubles(g, columns, columns))
        x[:, torch.randperm(columns, generator=g)[:silent]] = 0
        w[:, (x == 0).all(0)] *= 4  # what never occurs would widen the grid
        h = x.T @ x
        h = torch.diag(h.diagonal()) if diagonal else h
        if _quantized_by_elimination(w, h, *setting)[1] > 10 * NEAR:
            return w, h, *setting


def gptq_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "gptq")
    shape = (4, 9) if visible else (5, 12)
    few = shape[1] // 2
    return [
        Case("4 bits, groups of 4", _gptq_inputs(g, shape, (4, 4, 0.01)), tags=tags("usual", "groups")),
        Case("3 bits, groups of 3", _gptq_inputs(g, shape, (3, 3, 0.01)), tags=tags("usual", "groups")),
        Case("2 bits, a ragged last group", _gptq_inputs(g, shape, (2, 5, 0.01)), tags=tags("usual", "groups")),
        Case("a scale for each row", _gptq_inputs(g, shape, (3, shape[1], 0.01)), tags=tags("usual")),
        Case("no damping", _gptq_inputs(g, shape, (3, 4, 0.0)), tags=tags("usual", "damping")),
        Case("strong damping", _gptq_inputs(g, shape, (4, 6, 0.5)), tags=tags("damping")),
        Case("fewer tokens than channels", _gptq_inputs(g, shape, (3, 4, 0.02), samples=few), tags=tags("damping")),
        Case("a diagonal Hessian", _gptq_inputs(g, shape, (3, 4, 0.01), diagonal=True), tags=tags("diagonal")),
        Case("channels that never occur", _gptq_inputs(g, shape, (3, 4, 0.05), silent=2), tags=tags("silent")),
        Case("a channel that never occurs, no damping", _gptq_inputs(g, shape, (4, 5, 0.0), silent=1),
             tags=tags("silent")),
    ]  # fmt: skip


GPTQ_GRID = "grid = round_to_nearest(w[:, j : j + group].float(), bits, group)"
GPTQ_UPPER = "upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)"
GPTQ_CODE = "code = ((w[:, j] / step).round() + zero).clamp(0, 2**bits - 1)"
GPTQ_ERROR = "error = (w[:, j] - (code - zero) * step) / upper[j, j]"
GPTQ_PUSH = "w[:, j + 1 :] -= error[:, None] * upper[j, j + 1 :]"
GPTQ_DAMP = "    h.diagonal().add_(damp * h.diagonal().mean())\n"
GPTQ = Exercise(
    "gptq",
    points=12,
    difficulty=3,
    cases=gptq_cases,
    properties=(
        Property("codes, column by column", hold.quantizes_column_by_column, 4, tags=tags("usual")),
        Property("a group's grid is that of its weights by then", hold.has_the_grids, 2, tags=tags("groups")),
        Property("damping", hold.quantizes_column_by_column, 2, tags=tags("damping")),
        Property(
            "rounds to nearest where the Hessian is diagonal", hold.quantizes_column_by_column, 1, tags=tags("diagonal")
        ),
        Property("channels that never occur", hold.quantizes_column_by_column, 2, tags=tags("silent")),
        Property("the error on the calibration text", hold.errs_no_more, 1, tags=tags("usual", "diagonal")),
    ),
    mistakes=(
        mistake(
            "grids-from-original-weights",
            "the grids of the original weights",
            "four-bits#gptq",
            "Your groups take their scales from the weights as they came in. By the time a group begins, its weights "
            "have absorbed the errors of all columns before it, and some lie outside that grid. The paper's own code "
            "slips here for small groups: it reads them from a matrix that lacks the updates of the current block.",
            (
                GPTQ_GRID,
                "grid = round_to_nearest(weight[:, j : j + group].masked_fill(dead[j : j + group], 0), bits, group)",
            ),
        ),
        mistake(
            "grid-of-the-whole-row",
            "each group gets the grid of the whole row",
            "four-bits#groups",
            "You compute scale and zero from all columns of the row. The group's own range is smaller, and its grid "
            "finer: that is what groups are for.",
            (GPTQ_GRID, "grid = round_to_nearest(w.float(), bits, columns)"),
        ),
        mistake(
            "pushed-at-group-ends",
            "errors reach only later groups",
            "four-bits#gptq",
            "Inside a group no column feels the errors of those before it; you update what follows the group. Updating "
            "the far columns late is a fine trick for speed, but the near ones have to follow at once.",
            (
                GPTQ_PUSH,
                "after = (j // group + 1) * group\n        w[:, after:] -= error[:, None] * upper[j, after:]",
            ),
        ),
        mistake(
            "pushed-inside-groups",
            "errors stop at the end of the group",
            "four-bits#gptq",
            "You update the columns of the same group only; those further right could repair as much. A framework had "
            "mixed up two indices and did just this (mlx-lm, issue 1878): nothing failed, the codes were only worse.",
            (
                GPTQ_PUSH,
                "end = (j // group + 1) * group\n        w[:, j + 1 : end] -= error[:, None] * upper[j, j + 1 : end]",
            ),
        ),
        mistake(
            "damping-forgotten",
            "no damping",
            "four-bits#gptq",
            "You did not add anything to the diagonal. With fewer tokens than channels the Hessian has no inverse; "
            "with a few more it has one, made of noise.",
            (GPTQ_DAMP, ""),
        ),
        mistake(
            "damping-absolute",
            "damping that ignores the size of the Hessian",
            "four-bits#gptq",
            "You add `damp` itself. The Hessian grows with the number of tokens and the square of the activations, so "
            "0.01 may be nothing or everything; relative to the mean of the diagonal it means the same anywhere.",
            (GPTQ_DAMP, "    h.diagonal().add_(damp)\n"),
        ),
        mistake(
            "lower-factor",
            "the lower factor",
            "four-bits#gptq",
            "You took the lower factor. Right of the diagonal it holds zeros, so nothing is ever pushed on, and all "
            "you get is round to nearest.",
            ("torch.linalg.cholesky(h)), upper=True)", "torch.linalg.cholesky(h)))"),
        ),
        mistake(
            "inverse-of-the-factor",
            "the factor's inverse",
            "four-bits#gptq",
            "You inverted the Cholesky factor of H. Its transpose is upper triangular too, but U U^T = H^-1 is another "
            "factorization than U^T U = H^-1: it eliminates the columns from the right, and you go from the left.",
            (GPTQ_UPPER, "upper = torch.linalg.inv(torch.linalg.cholesky(h)).T"),
        ),
        mistake(
            "hessian-not-inverted",
            "the factor of H itself",
            "four-bits#gptq",
            "You factored H, not its inverse. Correlated channels then push in the wrong direction.",
            (GPTQ_UPPER, "upper = torch.linalg.cholesky(h, upper=True)"),
        ),
        mistake(
            "inverse-never-updated",
            "the inverse of all columns for every column",
            "four-bits#gptq",
            "You use rows of H^-1. Once a column is fixed, it can repair nothing any more, and the inverse for the "
            "rest is another one. The Cholesky factor holds exactly those: row j is right for the columns free at j.",
            (GPTQ_UPPER, "upper = torch.cholesky_inverse(torch.linalg.cholesky(h))"),
        ),
        mistake(
            "not-divided",
            "the error is not divided",
            "four-bits#gptq",
            "You push on w - q without dividing by U_jj. Row j of U carries that factor, so the correction comes out "
            "in the wrong size.",
            (GPTQ_ERROR, "error = w[:, j] - (code - zero) * step"),
        ),
        mistake(
            "divided-by-the-inverse",
            "divided by the diagonal of the inverse",
            "four-bits#gptq",
            "You divide by U_jj squared, which is the diagonal entry of the inverse. That goes with a row of the "
            "inverse, U_jj U_jk; with the row of U one factor is enough.",
            (GPTQ_ERROR, "error = (w[:, j] - (code - zero) * step) / upper[j, j] ** 2"),
        ),
        mistake(
            "divided-by-the-hessian",
            "divided by the diagonal of the Hessian",
            "four-bits#gptq",
            "You divide by H_jj. The formula divides by U_jj, from the *inverse*.",
            (GPTQ_ERROR, "error = (w[:, j] - (code - zero) * step) / h[j, j]"),
        ),
        mistake(
            "wrong-sign",
            "added instead of subtracted",
            "four-bits#gptq",
            "You add the error where it has to be subtracted: every column makes the next one's error larger.",
            (GPTQ_PUSH, "w[:, j + 1 :] += error[:, None] * upper[j, j + 1 :]"),
        ),
        mistake(
            "original-columns",
            "the original weights are quantized",
            "four-bits#gptq",
            "You round the original column. What the columns before it pushed into it is lost, and so is the point of "
            "the method.",
            (GPTQ_CODE, GPTQ_CODE.replace("w[:, j]", "weight[:, j].double() * ~dead[j]")),
        ),
        mistake(
            "not-clamped",
            "codes leave the grid",
            "four-bits#gptq",
            "You do not clamp the codes. The first column of a group sets no limits for the last: updates move weights "
            "out of the range, and a code of -1 becomes 255 in a byte.",
            (GPTQ_CODE, "code = (w[:, j] / step).round() + zero"),
        ),
        mistake(
            "silent-weights-kept",
            "weights of channels that never occur",
            "four-bits#gptq",
            "You keep the weights of channels that calibration never saw. They widen the group's range, and their "
            "neighbors pay for it.",
            ("    w[:, dead] = 0\n", ""),
        ),
        mistake(
            "silent-diagonal-kept",
            "a zero stays on the diagonal",
            "four-bits#gptq",
            "A channel that never occurs has a row and a column of zeros, and such a Hessian has no inverse. Put 1 on "
            "its diagonal before anything else.",
            ("    h.diagonal()[dead] = 1\n", ""),
        ),
        mistake(
            "hessian-changed",
            "the Hessian that came in is changed",
            "four-bits#gptq",
            "You damp the Hessian in place. The next matrix that reads the same inputs (k after q) gets it damped "
            "twice.",
            ("hessian.clone()", "hessian"),
        ),
    ),
    alternatives=(
        Alternative(
            "optimal brain quantization with explicit inverses",
            "def gptq(weight, hessian, bits, group, damp):\n"
            "    w, h = weight.double().clone(), hessian.clone()\n"
            "    n = h.shape[0]\n"
            "    for j in range(n):\n"
            "        if h[j, j] == 0:\n"
            "            h[j, j] = 1\n"
            "            w[:, j] = 0\n"
            "    h = h + damp * torch.trace(h) / n * torch.eye(n, dtype=torch.float64)\n"
            "    result = {'codes': [], 'scale': [], 'zero': []}\n"
            "    for j in range(n):\n"
            "        if j % group == 0:\n"
            "            q = round_to_nearest(w[:, j:j + group].float(), bits, group)\n"
            "            result['scale'].append(q['scale'])\n"
            "            result['zero'].append(q['zero'])\n"
            "            s, z = q['scale'].double(), q['zero'].double()\n"
            "        column = w[:, j:j + 1]\n"
            "        c = torch.clamp(torch.round(column / s) + z, 0, 2 ** bits - 1)\n"
            "        result['codes'].append(c.to(torch.uint8))\n"
            "        inverse = torch.linalg.inv(h[j:, j:])\n"
            "        w[:, j:] = w[:, j:] - (column - (c - z) * s) @ inverse[:1] / inverse[0, 0]\n"
            "    return {key: torch.cat(parts, 1) for key, parts in result.items()}\n",
        ),
        Alternative(
            "errors pushed on in blocks",
            "def gptq(weight, hessian, bits, group, damp):\n"
            "    w, h = weight.double(), hessian.clone()\n"
            "    dead = torch.diagonal(h) == 0\n"
            "    w = torch.where(dead, 0.0, w)\n"
            "    h = h + torch.diag(dead.double())\n"
            "    h = h + torch.eye(len(h)).double() * damp * torch.diagonal(h).mean()\n"
            "    u = torch.linalg.cholesky(torch.linalg.inv(h)).T\n"
            "    codes, scales, zeros = [], [], []\n"
            "    for a in range(0, len(h), group):\n"
            "        b = min(a + group, len(h))\n"
            "        q = round_to_nearest(w[:, a:b].float(), bits, group)\n"
            "        scales.append(q['scale']); zeros.append(q['zero'])\n"
            "        s, z = q['scale'][:, 0].double(), q['zero'][:, 0].double()\n"
            "        block, errors = w[:, a:b].clone(), torch.zeros(len(w), b - a).double()\n"
            "        for i in range(b - a):\n"
            "            c = ((block[:, i] / s).round() + z).clamp(0, 2 ** bits - 1)\n"
            "            codes.append(c.byte())\n"
            "            errors[:, i] = (block[:, i] - (c - z) * s) / u[a + i, a + i]\n"
            "            block -= errors[:, i:i + 1] * u[a + i:a + i + 1, a:b]\n"
            "        w[:, b:] -= errors @ u[a:b, b:]\n"
            "    return {'codes': torch.stack(codes, 1), 'scale': torch.cat(scales, 1), 'zero': torch.cat(zeros, 1)}\n",
        ),
    ),
    seconds=5.0,
)

# 10. smooth_scales


def smooth_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "smooth_scales")
    width = 6 if visible else 9

    def inputs(*shape: int) -> torch.Tensor:
        gains = torch.exp(doubles(g, shape[-1]))
        gains[int(torch.randint(shape[-1], (1,), generator=g))] *= 30
        return doubles(g, *shape) * gains

    def weights(*rows: int) -> list[torch.Tensor]:
        return [doubles(g, count, width) * 0.1 * (i + 1) for i, count in enumerate(rows)]

    one_sided, silent = inputs(9, width), inputs(7, width)
    one_sided = -one_sided.abs()
    silent[:, 1] = 0
    unread = weights(4, 3)
    for matrix in unread:
        matrix[:, 2] = 0
    later = weights(5, 5)
    later.reverse()  # now the first has the larger weights
    single = (inputs(8, width).float(), [w.float() for w in weights(6, 3)])
    return [
        Case("q, k and v", (inputs(8, width), weights(width, 3, 3), 0.5), tags=tags("usual")),
        Case("one square matrix", (inputs(width, width), weights(width), 0.5), tags=tags("usual")),
        Case("more to the weights", (inputs(8, width), weights(4, 5), 0.75), tags=tags("alpha")),
        Case("nothing from the activations", (inputs(8, width), weights(4), 0.0), tags=tags("alpha")),
        Case("everything to the weights", (inputs(8, width), weights(4), 1.0), tags=tags("alpha")),
        Case("two texts", (inputs(2, 5, width), weights(3, 3), 0.4), tags=tags("shapes")),
        Case("the first matrix has the larger weights", (inputs(8, width), later, 0.3), tags=tags("alpha")),
        Case("never above zero", (one_sided, weights(4, 2), 0.6), tags=tags("signs")),
        Case("a silent channel", (silent, weights(4, 2), 0.5), tags=tags("ends")),
        Case("a channel without weights", (inputs(7, width), unread, 0.5), tags=tags("ends")),
        Case("float32", (*single, 0.7), tags=tags("alpha")),
    ]


SMOOTH_LOUD = "loudest = x.abs().flatten(0, -2).amax(0).clamp(min=1e-5)"
SMOOTH_WIDE = "widest = torch.cat(weights).abs().amax(0).clamp(min=1e-5)"
SMOOTH_RETURN = "return loudest**alpha / widest ** (1 - alpha)"
SMOOTH = Exercise(
    "smooth_scales",
    points=6,
    difficulty=1,
    cases=smooth_cases,
    properties=(
        Property("the scales", hold.has_the_scales, 2, tags=tags("usual")),
        Property("any alpha", hold.has_the_scales, 1.5, tags=tags("alpha")),
        Property("several texts", hold.has_the_scales, 1, tags=tags("shapes")),
        Property("magnitudes, whatever the sign", hold.has_the_scales, 1, tags=tags("signs")),
        Property("channels without activations or weights", hold.has_the_scales, 1, tags=tags("ends")),
    ),
    mistakes=(
        mistake(
            "mean-instead-of-largest",
            "the mean of |x|",
            "outliers#smoothquant",
            "You took the mean magnitude, AWQ's statistic. What ruins an 8-bit grid is the largest value, since it "
            "sets the step for all others.",
            (SMOOTH_LOUD, SMOOTH_LOUD.replace("amax(0)", "mean(0)")),
        ),
        mistake(
            "signed-largest",
            "the largest x instead of |x|",
            "outliers#smoothquant",
            "You took the largest x. Outlier channels are often all negative, and then their largest value is near "
            "zero.",
            (SMOOTH_LOUD, SMOOTH_LOUD.replace("x.abs()", "x")),
        ),
        mistake(
            "alpha-swapped",
            "alpha and 1 - alpha exchanged",
            "outliers#smoothquant",
            "Your exponents are exchanged. alpha says how much of the difficulty goes from the activations *into the "
            "weights*: at 1 all of it. At 0.5 nobody notices, which is why one tests another value.",
            (SMOOTH_RETURN, "return loudest ** (1 - alpha) / widest**alpha"),
        ),
        mistake(
            "alpha-ignored",
            "always 0.5",
            "outliers#smoothquant",
            "You take square roots whatever alpha is. Models with stronger outliers need 0.75 and more.",
            (SMOOTH_RETURN, "return loudest**0.5 / widest**0.5"),
        ),
        mistake(
            "first-reader-only",
            "only the first matrix",
            "outliers#smoothquant",
            "You looked at the first matrix. All that read x are multiplied by the same scales, so the largest weight "
            "of any of them counts.",
            (SMOOTH_WIDE, SMOOTH_WIDE.replace("torch.cat(weights)", "weights[0]")),
        ),
        mistake(
            "mean-over-readers",
            "the mean of the matrices' largest weights",
            "outliers#smoothquant",
            "You averaged the largest weights of the matrices. The grid of the widest is the one that suffers; take "
            "the largest over all.",
            (SMOOTH_WIDE, "widest = torch.stack([w.abs().amax(0) for w in weights]).mean(0).clamp(min=1e-5)"),
        ),
        mistake(
            "product",
            "multiplied instead of divided",
            "outliers#smoothquant",
            "You multiply by the weights' part. Where the weights are already large, less should be moved into them.",
            (SMOOTH_RETURN, "return loudest**alpha * widest ** (1 - alpha)"),
        ),
        mistake(
            "reciprocal",
            "the reciprocals",
            "outliers#smoothquant",
            "These are the reciprocals: dividing x by them would make its outliers larger.",
            (SMOOTH_RETURN, "return widest ** (1 - alpha) / loudest**alpha"),
        ),
        mistake(
            "weights-left-out",
            "the weights are left out",
            "outliers#smoothquant",
            "Only the activations decide in your version. Channels with large weights then get even larger ones.",
            (SMOOTH_RETURN, "return loudest**alpha / widest**0"),
        ),
        mistake(
            "per-output",
            "the largest weight of each output",
            "outliers#smoothquant",
            "You took the largest weight of each row, which is an output. Channels of x meet columns. In a square "
            "matrix nothing fails.",
            (SMOOTH_WIDE, "widest = torch.cat(weights).abs().amax(1).clamp(min=1e-5)"),
        ),
        mistake(
            "signed-weights",
            "the largest weight instead of its magnitude",
            "outliers#smoothquant",
            "You took the largest weight with its sign. A column whose largest magnitude is negative counts for less "
            "than it is.",
            (SMOOTH_WIDE, SMOOTH_WIDE.replace("torch.cat(weights).abs()", "torch.cat(weights)")),
        ),
        mistake(
            "first-text-only",
            "only the first text",
            "four-bits#calibration",
            "You look at the first text of the batch. The largest value may stand in any of them: flatten the leading "
            "dimensions.",
            (SMOOTH_LOUD, "loudest = (x[0] if x.ndim > 2 else x).abs().flatten(0, -2).amax(0).clamp(min=1e-5)"),
        ),
        mistake(
            "no-lower-bound",
            "zero scales",
            "outliers#smoothquant",
            "A channel that calibration never saw gets the scale 0, and x is divided by it; one without weights gets "
            "an infinite one. Both need the lower bound.",
            (SMOOTH_LOUD, SMOOTH_LOUD.replace(".clamp(min=1e-5)", "")),
            (SMOOTH_WIDE, SMOOTH_WIDE.replace(".clamp(min=1e-5)", "")),
        ),
    ),
    alternatives=(
        Alternative(
            "logarithms",
            "def smooth_scales(x, weights, alpha):\n"
            "    tokens = x.reshape(-1, x.shape[-1])\n"
            "    floor = torch.tensor(1e-5, dtype=x.dtype)\n"
            "    a = torch.maximum(torch.maximum(tokens.max(0).values, -tokens.min(0).values), floor)\n"
            "    b = torch.maximum(torch.stack([w.abs().max(0).values for w in weights]).max(0).values, floor)\n"
            "    return torch.exp(alpha * a.log() - (1 - alpha) * b.log())\n",
        ),
    ),
)

# 11. int8_matmul


def _off_halves(g: torch.Generator, rows: int, columns: int, scale: float, loud: tuple[int, ...] = ()) -> torch.Tensor:
    """Rows whose largest magnitude is 127 steps, and no value within a tenth of a step of a half."""
    inside = 0.8 * (torch.rand(rows, columns, generator=g) - 0.5)
    places = torch.randint(-125, 126, (rows, columns), generator=g) + inside
    quiet = torch.tensor([c for c in range(columns) if c not in loud])
    for row in places:
        sign = 1 if torch.rand(1, generator=g) < 0.5 else -1
        row[quiet[int(torch.randint(len(quiet), (1,), generator=g))]] = 127.0 * sign
    return places * scale * (0.6 + 0.4 * torch.rand(rows, 1, generator=g))


def _with_outliers(g: torch.Generator, tokens: int, columns: int, loud: tuple[int, ...]) -> torch.Tensor:
    """Inputs below 6 except in the channels `loud`, where one token in two or more is above it."""
    x = _off_halves(g, tokens, columns, 0.04, loud)
    for channel in loud:
        x[:, channel] = torch.randn(tokens, generator=g) * 4
        x[int(torch.randint(tokens, (1,), generator=g)), channel] = 40 * (1 if torch.rand(1, generator=g) < 0.5 else -1)
    return x


def int8_cases(seed: int, visible: bool) -> list[Case]:
    g = generator(seed, visible, "int8_matmul")
    n, wide, out = (5, 12, 4) if visible else (6, 16, 7)
    one, two, three = (tuple(torch.randperm(wide, generator=g)[:k].tolist()) for k in (1, 2, 3))

    def weights(rows: int, loud: tuple[int, ...] = (), columns: int = wide) -> torch.Tensor:
        w = _off_halves(g, rows, columns, 0.004, loud)
        w[:, list(loud)] = torch.randn(rows, len(loud), generator=g)  # larger than all others
        return w

    edge = _off_halves(g, n, wide, 0.04, two)
    edge[:, list(two)] = torch.rand(n, 2, generator=g) * 5
    edge[1, two[0]], edge[3, two[1]] = 6.0, -6.0
    quiet_tokens, quiet_rows = _with_outliers(g, n, wide, one), weights(out, one)
    keep = [c for c in range(wide) if c not in one]
    quiet_tokens[2, keep] = 0
    quiet_rows[1, keep] = 0
    strong = weights(out, two)
    strong[:, list(two)] *= 9
    signs = torch.where(torch.rand(1, 900, generator=g) < 0.5, -1.0, 1.0)
    sums = (_off_halves(g, 2, 900, 0.02).abs() * signs, _off_halves(g, 3, 900, 0.003).abs() * signs)
    halves = (torch.randint(-126, 126, (n, wide), generator=g) + 0.5) / 64
    halves[:, 0] = 127 / 64
    return [
        Case("no outliers", (_off_halves(g, n, wide, 0.04), weights(out), 6.0), tags=tags("plain")),
        Case("an infinite threshold", (_off_halves(g, n, wide, 0.9), weights(out), math.inf), tags=tags("plain")),
        Case("one outlier channel", (_with_outliers(g, n, wide, one), weights(out, one), 6.0), tags=tags("outliers")),
        Case(
            "three outlier channels",
            (_with_outliers(g, n, wide, three), weights(out, three), 6.0),
            tags=tags("outliers"),
        ),
        Case(
            "as many tokens as outputs",
            (_with_outliers(g, n, wide, two), weights(n, two), 6.0),
            tags=tags("outliers"),
        ),
        Case("exactly at the threshold", (edge, weights(out, two), 6.0), tags=tags("threshold")),
        Case("large weights are no outliers", (_off_halves(g, n, wide, 0.04), strong, 6.0), tags=tags("threshold")),
        Case("all channels are outliers", (_off_halves(g, n, wide, 0.04), weights(out), 1e-9), tags=tags("threshold")),
        Case("a silent token and a silent output", (quiet_tokens, quiet_rows, 6.0), tags=tags("silent")),
        Case("a sum of 900 products", (*sums, 6.0), tags=tags("sums")),
        Case("exact halves", (halves, weights(out), 6.0), tags=tags("halves")),
    ]


INT8_LOUD = "loud = (x.abs() >= threshold).any(0)"
INT8_QUIET = "quiet_x, quiet_w = x.masked_fill(loud, 0), weight.masked_fill(loud, 0)"
INT8_SCALE = "scale = t.abs().amax(1, keepdim=True) / 127"
INT8_ROUND = "return (t / scale).round(), scale"
INT8_SUM = "accumulator = codes_x.int() @ codes_w.int().T"
INT8_FLOAT = " + x[:, loud] @ weight[:, loud].T"
INT8 = Exercise(
    "int8_matmul",
    points=8,
    difficulty=2,
    cases=int8_cases,
    properties=(
        Property("codes and sums without outliers", hold.multiplies_integers, 1.5, tags=tags("plain")),
        Property("outliers stay in floating point", hold.multiplies_integers, 2.5, tags=tags("outliers")),
        Property("what an outlier is", hold.multiplies_integers, 1.5, tags=tags("threshold")),
        Property("rows of zeros", hold.multiplies_integers, 0.5, tags=tags("silent")),
        Property("sums that need 32 bits", hold.multiplies_integers, 1, tags=tags("sums")),
        Property("half-way cases to the even code", hold.multiplies_integers, 0.5, tags=tags("halves")),
        Property(
            "within half a step of the product in float",
            hold.stays_near_the_product,
            1.5,
            tags=tags("plain", "outliers", "silent", "sums"),
        ),
    ),
    mistakes=(
        mistake(
            "threshold-on-weights",
            "the threshold is held against the weights",
            "outliers#llm-int8",
            "You looked for large weights. There are hardly any: the outliers that ruin 8-bit inference are in the "
            "activations, in the same few channels for every token.",
            (INT8_LOUD, "loud = (weight.abs() >= threshold).any(0)"),
        ),
        mistake(
            "strictly-above",
            "> instead of >=",
            "outliers#llm-int8",
            "A value of exactly the threshold is an outlier too; the paper and the contract say at least.",
            (INT8_LOUD, "loud = (x.abs() > threshold).any(0)"),
        ),
        mistake(
            "signed-threshold",
            "negative outliers are missed",
            "outliers#llm-int8",
            "You compare x with its sign. An outlier of -40 is as bad as one of 40.",
            (INT8_LOUD, "loud = (x >= threshold).any(0)"),
        ),
        mistake(
            "every-token-loud",
            "a channel must be loud for all tokens",
            "outliers#llm-int8",
            "You ask that all tokens exceed the threshold. One is enough to widen that token's grid.",
            (INT8_LOUD, "loud = (x.abs() >= threshold).all(0)"),
        ),
        mistake(
            "scales-see-outliers",
            "the scales include the outliers",
            "outliers#llm-int8",
            "You compute the scales before you take the outliers out. The grid is as coarse as without the "
            "decomposition, so nothing is gained.",
            (INT8_SCALE, "scale = (x if t is quiet_x else weight).abs().amax(1, keepdim=True) / 127"),
        ),
        mistake(
            "one-scale-for-all",
            "one scale for the whole matrix",
            "outliers#w8a8",
            "You use one scale for all tokens and one for all outputs. Each row has its own: both factors can be taken "
            "out of the sum, so it costs nothing.",
            (INT8_SCALE, "scale = t.abs().amax().expand(len(t), 1) / 127"),
        ),
        mistake(
            "weight-scale-transposed",
            "the weights' scales go with the tokens",
            "outliers#w8a8",
            "You multiply by the weights' scales along the tokens. They belong to the outputs, the columns of the "
            "result; with as many tokens as outputs nothing fails.",
            ("* scale_x * scale_w.T", "* scale_x * scale_w"),
        ),
        mistake(
            "eight-bit-sums",
            "sums in 8 bits",
            "outliers#w8a8",
            "Your sums are int8: each product of two codes already overflows. Integer kernels multiply 8-bit numbers "
            "and add in 32 bits.",
            (INT8_SUM, "accumulator = (codes_x.to(torch.int8) @ codes_w.to(torch.int8).T).int()"),
        ),
        mistake(
            "sixteen-bit-sums",
            "sums in 16 bits",
            "outliers#w8a8",
            "Two products of 127 * 127 fill 16 bits. A layer adds hundreds: it needs 32.",
            (INT8_SUM, "accumulator = (codes_x.to(torch.int16) @ codes_w.to(torch.int16).T).int()"),
        ),
        mistake(
            "outliers-dropped",
            "the outliers are dropped",
            "outliers#llm-int8",
            "The outlier channels were taken out and never came back. A fraction of a percent of the values, and the "
            "model is worth nothing without them.",
            (INT8_FLOAT, ""),
        ),
        mistake(
            "outliers-twice",
            "the outliers count twice",
            "outliers#llm-int8",
            "You multiply the outlier channels in floating point and leave them in the integer part as well.",
            (INT8_QUIET, "quiet_x, quiet_w = x, weight"),
        ),
        mistake(
            "single-values",
            "single values instead of channels",
            "outliers#llm-int8",
            "You take out single values. LLM.int8 takes whole channels, so that both parts are plain matrix products; "
            "a scattered set of values is neither dense nor fast.",
            (INT8_QUIET, "quiet_x, quiet_w = x.masked_fill(x.abs() >= threshold, 0), weight"),
            (INT8_FLOAT, " + x.masked_fill(x.abs() < threshold, 0) @ weight.T"),
        ),
        mistake(
            "divided-by-128",
            "divided by 128",
            "outliers#w8a8",
            "You divide by 128, so the largest value gets the code 128, which int8 does not have: it becomes -128.",
            (INT8_SCALE, "scale = t.abs().amax(1, keepdim=True) / 128"),
        ),
        mistake(
            "truncated",
            "cut off instead of rounded",
            "outliers#w8a8",
            "You cut the fraction off. All values move towards zero, and the errors of a sum no longer cancel.",
            (INT8_ROUND, "return (t / scale).trunc(), scale"),
        ),
        mistake(
            "halves-up",
            "halves are rounded up",
            "outliers#w8a8",
            "You add a half and take the floor, which rounds halves up. torch.round goes to the even neighbor, as the "
            "contract says.",
            (INT8_ROUND, "return (t / scale + 0.5).floor(), scale"),
        ),
        mistake(
            "silent-rows",
            "a row of zeros becomes NaN",
            "outliers#w8a8",
            "A row of zeros has the scale 0, and 0 / 0 is NaN. With the outliers taken out such rows do occur.",
            ("        scale[scale == 0] = 1\n", ""),
        ),
    ),
    alternatives=(
        Alternative(
            "through double precision and columns that are picked out",
            "def int8_matmul(x, weight, threshold):\n"
            "    loudest = x.abs().max(dim=0).values\n"
            "    outliers = torch.where(loudest >= threshold)[0]\n"
            "    rest = torch.where(~(loudest >= threshold))[0]\n"
            "    def rows(t):\n"
            "        if t.shape[1] == 0:\n"
            "            return t, torch.ones(len(t), 1)\n"
            "        largest = t.abs().max(dim=1, keepdim=True).values\n"
            "        s = torch.where(largest > 0, largest / 127, 1.0)\n"
            "        return torch.round(t / s), s\n"
            "    a, sa = rows(x[:, rest])\n"
            "    b, sb = rows(weight[:, rest])\n"
            "    total = (a.double() @ b.double().T).round().to(torch.int32)\n"
            "    codes = torch.zeros(x.shape, dtype=torch.int8)\n"
            "    codes[:, rest] = a.to(torch.int8)\n"
            "    y = total.float() * (sa @ sb.T) + x[:, outliers] @ weight[:, outliers].T\n"
            "    return {'outliers': outliers, 'codes': codes, 'accumulator': total, 'y': y}\n",
        ),
    ),
)

# 12. allocate_bits


def allocate_cases(seed: int, visible: bool) -> list[Case]:
    """Budgets between 3 bits everywhere and 6; a student chooses on one text and is judged, hidden, on another."""
    table, text = read_table(), "evaluation" if visible else "hidden"
    least, most = (sum(row[b] for row in table["sizes"].values()) for b in (table["choices"][0], table["choices"][-1]))
    cases = []
    for name, shares in (("three", (0.1, 0.42, 0.74)), ("three unordered", (0.84, 0.2, 0.55))):
        # A little more or less room for other seeds and in the hidden exam, so that no list of plans fits all.
        more = 0.002 * (seed % 7) + (0.0 if visible else 0.03)
        budgets = [_worthwhile(table, int(least + (share + more) * (most - least))) for share in shares]
        arguments = (table["alone"]["evaluation"], table["sizes"], budgets)
        cases.append(Case(f"{name} budgets, {text} text", arguments))
    return cases


def _worthwhile(table: dict, budget: int) -> int:
    """The next budget at which some mixture has at least an eighth less divergence than any uniform choice."""

    def gain(text: str) -> float:
        fits = [plan for plan in table["plans"] if plan["bytes"] <= budget]
        uniform = min(plan["kl"][text] for plan in fits if len(set(plan["bits"].values())) == 1)
        return math.log(uniform / min(plan["kl"][text] for plan in fits))

    while min(gain("evaluation"), gain("hidden")) < 0.13:
        budget += budget // 200
    return budget


BITS_START = "plans = [(0, 0.0, {})]"
BITS_SIZE = "(size + sizes[kind][bits], total + kl, {**plan, kind: bits})"
BITS_FIT = "(p for p in plans if p[0] <= budget)"
BITS_KEY = "key=lambda p: p[1])"


def decide(code: str) -> tuple[str, str]:
    return (BITS_START, code.strip().replace("\n", "\n    ") + "\n    " + BITS_START)


ALLOCATE = Exercise(
    "allocate_bits",
    points=10,
    difficulty=3,
    cases=allocate_cases,
    properties=(
        Property("every choice fits its budget", hold.fits_every_budget, 0, gate=True),
        Property("measured divergence on the way from uniform to the best", hold.comes_near_the_best, 1),
    ),
    mistakes=(
        mistake(
            "uniform-bits",
            "the same bits everywhere",
            "four-bits#mixed-precision",
            "You give every kind the same bits, the most that fit. That is the baseline, and it scores 0: the room "
            "between 3 and 4 bits everywhere stays empty.",
            decide(
                """
result = []
for budget in budgets:
    choices = [b for b in next(iter(sizes.values())) if sum(row[b] for row in sizes.values()) <= budget]
    result.append(dict.fromkeys(sizes, max(choices)))
return result
"""
            ),
        ),
        mistake(
            "over-budget",
            "over the budget",
            "four-bits#mixed-precision",
            "You return the best choice whatever it costs. A budget that may be exceeded is a wish: the model does not "
            "fit the card.",
            (BITS_FIT, "(p for p in plans if p[0] <= 2 * budget)"),
        ),
        mistake(
            "smallest-budget-for-all",
            "one choice for all budgets",
            "four-bits#mixed-precision",
            "You return the choice for the smallest budget every time. Each budget has its own best.",
            ("for budget in budgets]", "for budget in [min(budgets)] * len(budgets)]"),
        ),
        mistake(
            "equal-kinds",
            "every kind counts as equally large",
            "four-bits#mixed-precision",
            "You charge each kind the same. In the pocket model gate and up together hold four times the weights of "
            "q and k and sixteen times those of v: your choices do not fit, or leave room.",
            (
                BITS_SIZE,
                "(size + sum(row[bits] for row in sizes.values()) // len(sizes), total + kl, {**plan, kind: bits})",
            ),
        ),
        mistake(
            "cheapest",
            "the cheapest choice",
            "four-bits#mixed-precision",
            "You return the smallest model that fits every budget: the fewest bits everywhere.",
            (BITS_KEY, "key=lambda p: p[0])"),
        ),
        mistake(
            "largest-kind-first",
            "the largest kinds get the bits",
            "four-bits#mixed-precision",
            "You serve the largest kinds first. Each of their bits costs most, and where the budget is tight nothing "
            "is left for v and o, whose bits are cheap.",
            decide(
                """
result = []
for budget in budgets:
    plan = {kind: min(row) for kind, row in sizes.items()}
    for kind in sorted(sizes, key=lambda k: -max(sizes[k].values())):
        for bits in sorted(sizes[kind]):
            bigger = {**plan, kind: bits}
            if sum(sizes[k][b] for k, b in bigger.items()) <= budget:
                plan = bigger
    result.append(plan)
return result
"""
            ),
        ),
    ),
    alternatives=(
        Alternative(
            "recursion with a remaining budget",
            "def allocate_bits(divergence, sizes, budgets):\n"
            "    kinds = list(sizes)\n"
            "    def best(i, room):\n"
            "        if i == len(kinds):\n"
            "            return 0.0, {}\n"
            "        found = None\n"
            "        rest = sum(min(sizes[k].values()) for k in kinds[i + 1:])\n"
            "        for bits, size in sizes[kinds[i]].items():\n"
            "            if size + rest <= room:\n"
            "                kl, plan = best(i + 1, room - size)\n"
            "                kl += divergence[kinds[i]][bits]\n"
            "                if found is None or kl < found[0]:\n"
            "                    found = kl, {kinds[i]: bits, **plan}\n"
            "        return found\n"
            "    return [best(0, budget)[1] for budget in budgets]\n",
        ),
    ),
    same_form=False,
)


EXAM = Exam(
    "04-llm-quantization",
    (
        PERPLEXITY,
        NEAREST,
        BYTES,
        SALIENT,
        FOLD,
        AWQ,
        GPTQ,
        LEVELS,
        BLOCKS,
        SMOOTH,
        INT8,
        ALLOCATE,
    ),
)
