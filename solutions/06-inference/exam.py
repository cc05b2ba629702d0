"""The exam of lab 06: cases, properties, named mistakes and equivalent alternatives.

Mistakes come from issues of inference engines and from published implementations; each is a small patch of the
reference. Random numbers that decide are arguments, so that every answer is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import properties as hold
import torch

from fourbit.codec import Ref
from fourbit.exam import Alternative, Case, Exam, Exercise, Mistake, Property

CHAPTER = "lecture_notes/inference.md#"


def tags(*names: str) -> frozenset[str]:
    return frozenset(names)


def mistake(id: str, name: str, anchor: str, why: str, *patch: tuple[str, str]) -> Mistake:
    return Mistake(id, name, patch, why, CHAPTER + anchor)


def generator(seed: int, visible: bool, exercise: str) -> torch.Generator:
    """Other numbers for each exercise, and for hidden and visible cases."""
    salt = sum(ord(letter) * 31**i for i, letter in enumerate(exercise)) + (0 if visible else 7919)
    return torch.Generator().manual_seed((seed * 1_000_003 + salt) % 2**31)


def doubles(g: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def redrawn(draw: Callable[[], Any], clear: Callable[[Any], bool]) -> Any:
    """The first draw that is not so near a threshold that rounding decides."""
    return next(t for t in (draw() for _ in range(1000)) if clear(t))


# 1. rope


def rope_cases(seed: int, visible: bool) -> list[Case]:
    g, n = generator(seed, visible, "rope"), 0 if visible else 1

    def positions(*starts: int, tokens: int) -> torch.Tensor:
        return torch.tensor(starts)[:, None] + torch.arange(tokens)

    jumps = torch.randint(200, (2, 5), generator=g)
    return [
        Case("from the first token", (doubles(g, 1, 2, 6 + n, 8), positions(0, tokens=6 + n), 1e4), tags=tags("turn")),
        Case("one pair", (doubles(g, 1, 1, 5, 2), positions(0, tokens=5), 100.0 + n), tags=tags("turn")),
        Case("another theta", (doubles(g, 1, 3, 4, 16 + 4 * n), positions(0, tokens=4), 1e5), tags=tags("turn")),
        Case("as many heads as tokens", (doubles(g, 1, 4, 4, 6), positions(0, tokens=4), 50.0), tags=tags("turn")),
        Case("in the middle of a text", (doubles(g, 1, 2, 3, 8), positions(70 + n, tokens=3), 1e4), tags=tags("place")),
        Case("one token", (doubles(g, 1, 3, 1, 10), positions(41 + 3 * n, tokens=1), 1e3), tags=tags("place")),
        Case("texts of different lengths", (doubles(g, 3, 2, 2, 6), positions(9, 0, 33 + n, tokens=2), 1e3),
             tags=tags("place")),
        Case("positions in any order", (doubles(g, 2, 1, 5, 4), jumps, 500.0), tags=tags("place")),
        Case("far into a text, float32", (doubles(g, 1, 1, 3, 8).float(), positions(3001 + n, tokens=3), 1e4),
             tags=tags("precision")),
        Case("far into a text, bfloat16", (doubles(g, 1, 2, 4, 8).bfloat16(), positions(517 + n, tokens=4), 1e4),
             tags=tags("precision")),
    ]  # fmt: skip


ROPE_TURNS = "turns = theta ** (-torch.arange(half, dtype=torch.float64) / half)"
ROPE_ANGLES = "angles = positions[:, None, :, None] * turns"
ROPE_SPLIT = "left, right = x[..., :half], x[..., half:]"
ROPE_JOIN = "return torch.cat([left * cos - right * sin, right * cos + left * sin], -1)"
ROPE = Exercise(
    "rope",
    points=8,
    difficulty=2,
    cases=rope_cases,
    properties=(
        Property("turns each pair by its angle", hold.turns_each_pair, 3, tags=tags("turn")),
        Property("counts from where the text stands", hold.turns_each_pair, 2.5, tags=tags("place")),
        Property("far positions keep their precision", hold.turns_each_pair, 1.5, tags=tags("precision")),
        Property("no pair changes its length", hold.keeps_lengths, 1, tags=tags("turn", "place")),
    ),
    mistakes=(
        mistake(
            "neighbors-paired",
            "neighbors are paired",
            "rope",
            "You pair channels 0 and 1, 2 and 3, and so on. That is the other convention, the one of Meta's original "
            "code and of GGUF files. Both are right for weights that were stored for them, and nonsense for others.",
            (ROPE_SPLIT, "left, right = x[..., ::2], x[..., 1::2]"),
            (ROPE_JOIN, "return torch.stack([left * cos - right * sin, right * cos + left * sin], -1).flatten(-2)"),
        ),
        mistake(
            "mixed-conventions",
            "neighbors in, halves out",
            "rope",
            "You take neighbors as pairs and write the results as halves, so channels also change places. If queries "
            "and keys both do it their products survive, but a cache that another part of the engine wrote does not.",
            (ROPE_SPLIT, "left, right = x[..., ::2], x[..., 1::2]"),
        ),
        mistake(
            "turned-backwards",
            "turned the other way",
            "rope",
            "You turn by the negative angle. Products of queries and keys then depend on n - m instead of m - n, which "
            "the model has never seen. One sign in the rotation matrix is on the wrong side of the diagonal.",
            (ROPE_JOIN, "return torch.cat([left * cos + right * sin, right * cos - left * sin], -1)"),
        ),
        mistake(
            "no-rotation",
            "the same sign twice",
            "rope",
            "Both parts of your formula subtract. A rotation has one plus and one minus; yours mirrors, and stretches "
            "and shrinks pairs on the way.",
            (ROPE_JOIN, "return torch.cat([left * cos - right * sin, right * cos - left * sin], -1)"),
        ),
        mistake(
            "half-the-exponent",
            "the exponent is half as large",
            "rope",
            "You use theta**(-i / width). Pair i has the exponent 2 i / width, since i only counts to width / 2: the "
            "slowest pair should turn by nearly 1 / theta for each token, not by 1 / sqrt(theta).",
            (ROPE_TURNS, "turns = theta ** (-torch.arange(half, dtype=torch.float64) / half / 2)"),
        ),
        mistake(
            "inverse-frequencies",
            "later pairs turn faster",
            "rope",
            "Your angles grow with the pair's number. The first pair is the fast one, with one radian for each token, "
            "and the others are slower.",
            (ROPE_TURNS, "turns = theta ** (torch.arange(half, dtype=torch.float64) / half)"),
        ),
        mistake(
            "positions-from-zero",
            "every call begins at position 0",
            "rope-and-the-cache",
            "You number the tokens of the call. In decode each call has one token, so all of them would stand at "
            "position 0. Where a token stands in its text is an argument.",
            (ROPE_ANGLES, "angles = torch.arange(x.shape[2])[None, None, :, None] * turns"),
        ),
        mistake(
            "first-text-for-all",
            "all texts use the first one's positions",
            "rope-and-the-cache",
            "You take the positions of the first text for the whole batch. The texts of a batch have different "
            "lengths, and each has its own positions.",
            (ROPE_ANGLES, "angles = positions[:1, None, :, None] * turns"),
        ),
        mistake(
            "positions-along-heads",
            "the heads are turned, not the tokens",
            "rope",
            "Your positions run along the dimension of the heads. It only runs at all where there are as many heads as "
            "tokens, or one token; x is (batch, heads, tokens, width).",
            (ROPE_ANGLES, "angles = positions[:, :, None, None] * turns"),
        ),
        mistake(
            "positions-in-half-precision",
            "positions in half precision",
            "rope-precision",
            "You compute the angles in x's own precision. bfloat16 has 8 bits for a number: above 256 it cannot tell "
            "successive positions apart. Engines have shipped this, and failed on long texts only.",
            (ROPE_ANGLES, "angles = positions[:, None, :, None].to(x.dtype) * turns.to(x.dtype)"),
        ),
    ),
    alternatives=(
        Alternative(
            "complex numbers",
            "def rope(x, positions, theta):\n"
            "    w = x.shape[-1]\n"
            "    speed = torch.tensor([theta ** (-2 * i / w) for i in range(w // 2)], dtype=torch.float64)\n"
            "    unit = torch.exp(1j * (positions.double()[..., None] * speed)).unsqueeze(1)\n"
            "    pairs = torch.complex(x[..., : w // 2].double(), x[..., w // 2 :].double()) * unit\n"
            "    return torch.cat([pairs.real, pairs.imag], dim=-1).to(x.dtype)\n",
        ),
        Alternative(
            "rotate_half, as in transformers",
            "def rope(x, positions, theta):\n"
            "    w = x.shape[-1]\n"
            "    inverse = 1.0 / theta ** (torch.arange(0, w, 2).double() / w)\n"
            "    angle = torch.cat([positions[..., None] * inverse] * 2, -1)[:, None]\n"
            "    turned = torch.cat([-x[..., w // 2 :], x[..., : w // 2]], -1)\n"
            "    return x * angle.cos().to(x.dtype) + turned * angle.sin().to(x.dtype)\n",
        ),
    ),
)

# 2. kv_cache


def cache_cases(seed: int, visible: bool) -> list[Case]:
    g, n = generator(seed, visible, "kv_cache"), 0 if visible else 1

    def add(batch: int, heads: int, new: int, width: int, dtype: torch.dtype = torch.float32) -> list[Any]:
        return ["append", *(torch.randn(batch, heads, new, width, generator=g).to(dtype) for _ in range(2))]

    half = torch.float16
    growing = [add(1, 2, 5 + n, 4), *(add(1, 2, 1, 4) for _ in range(3)), add(1, 2, 2, 4)]
    batch = [add(3, 1, 4, 2), ["truncate", [4, 1, 2 + n]], add(3, 1, 2, 2), add(3, 1, 1, 2)]
    back = [add(2, 2, 6, 3), ["truncate", [2 + n, 5]], add(2, 2, 1, 3), ["truncate", [0, 3]], add(2, 2, 3, 3)]
    emptied = [add(1, 1, 3 + n, 2), ["truncate", [0]], add(1, 1, 2, 2)]
    full = [add(2, 1, 5 + n, 2), add(2, 1, 2, 2), ["truncate", [3, 7 + n]], add(2, 1, 1, 2), ["truncate", [3, 1]],
            add(2, 1, 5, 2)]  # fmt: skip
    last = [add(1, 1, 6 + n, 2), add(1, 1, 2, 2), add(1, 1, 1, 2)]
    too_far = [add(2, 1, 4, 2), ["truncate", [2, 4]], ["truncate", [3, 2]], ["truncate", [1, -1]], ["truncate", [1, 4]]]
    whole = [add(1, 3, 9 + n, 4)]
    return [
        Case("a text that grows", ([1, 2, 16, 4], "float32", growing), tags=tags("append")),
        Case("texts of different lengths", ([3, 1, 12, 2], "float32", batch), tags=tags("append", "cut")),
        Case("cut back and written again", ([2, 2, 10, 3], "float32", back), tags=tags("cut")),
        Case("emptied", ([1, 1, 6, 2], "float32", emptied), tags=tags("cut")),
        Case("filled to the last place", ([1, 1, 8 + n, 2], "float32", last), tags=tags("full")),
        Case("one text is full", ([2, 1, 7 + n, 2], "float32", full), tags=tags("full")),
        Case("more than there is", ([2, 1, 9, 2], "float32", too_far), tags=tags("full")),
        Case("full at once", ([1, 3, 9 + n, 4], "float32", whole), tags=tags("append", "full")),
        Case("in half precision", ([2, 2, 20 + n, 8], "float16", [add(2, 2, 3, 8, half)]), tags=tags("append")),
    ]


CACHE_ROOM = "if max(self.lengths) + new > self.keys.shape[2]:"
CACHE_LOOP = "for row, start in enumerate(self.lengths):"
CACHE_KEYS = "self.keys[row, :, start : start + new] = keys[row]"
CACHE_VALUES = "self.values[row, :, start : start + new] = values[row]"
CACHE_COUNT = "self.lengths = [start + new for start in self.lengths]"
CACHE_VIEW = "return self.keys[:, :, :longest], self.values[:, :, :longest]"
CACHE_CUT = "self.lengths = list(lengths)"
CACHE_BYTES = "part.numel() * part.element_size()"
CACHE = Exercise(
    "kv_cache",
    entry="replay",
    points=8,
    difficulty=2,
    cases=cache_cases,
    properties=(
        Property("writes behind each text's own end", hold.holds_what_was_appended, 2.5, tags=tags("append")),
        Property("forgets, and writes over what was forgotten", hold.holds_what_was_appended, 2, tags=tags("cut")),
        Property("refuses what does not fit and changes nothing", hold.refuses_what_does_not_fit, 2, tags=tags("full")),
        Property("memory is taken once and never copied", hold.views_without_copying, 1),
        Property("counts its bytes", hold.counts_its_bytes, 0.5),
    ),
    mistakes=(
        mistake(
            "concatenated",
            "the cache is concatenated anew",
            "preallocation",
            "You join old and new keys with torch.cat. Each token then copies all tokens before it: the quadratic work "
            "that the cache was to avoid comes back as memory traffic, and for a moment twice the memory is needed.",
            (CACHE_KEYS, "self.keys = torch.cat([self.keys[:, :, :start], self.keys[:, :, start:]], 2)\n"
             "            self.keys[row, :, start : start + new] = keys[row]"),
        ),
        mistake(
            "always-from-the-start",
            "new tokens are written at the beginning",
            "kv-cache",
            "You write to positions 0 to new - 1 each time. The first prompt is right, and the first new token "
            "overwrites its first key.",
            (CACHE_KEYS, "self.keys[row, :, :new] = keys[row]"),
            (CACHE_VALUES, "self.values[row, :, :new] = values[row]"),
        ),
        mistake(
            "behind-the-longest",
            "all texts are written behind the longest",
            "kv-cache",
            "You write every text at the end of the longest. The shorter ones get a hole of old memory in their "
            "middle, and their last tokens are never looked at.",
            (CACHE_LOOP, "for row, start in enumerate([max(self.lengths)] * len(self.lengths)):"),
        ),
        mistake(
            "one-length-for-all",
            "cutting one text cuts all",
            "kv-cache",
            "You keep one length for the whole batch. The other texts lose tokens that nobody asked them to forget.",
            (CACHE_CUT, "self.lengths = [min(lengths)] * len(lengths)"),
        ),
        mistake(
            "one-token-at-a-time",
            "the length grows by one",
            "kv-cache",
            "You count one token for each call. That is right in decode and wrong in prefill, where many come at once.",
            (CACHE_COUNT, "self.lengths = [start + 1 for start in self.lengths]"),
        ),
        mistake(
            "values-over-keys",
            "keys are stored as values",
            "kv-cache",
            "Your values are a second copy of the keys. Attention still looks where it should, and then reads out "
            "where it looked instead of what stands there.",
            (CACHE_VALUES, "self.values[row, :, start : start + new] = keys[row]"),
        ),
        mistake(
            "no-limit",
            "no room is no reason to refuse",
            "preallocation",
            "You do not compare with the capacity. Torch refuses the slice with an error about shapes; a kernel in C "
            "would write into somebody else's memory. Say it before anything is written.",
            (CACHE_ROOM, "if False:"),
        ),
        mistake(
            "half-written",
            "refused after some texts were written",
            "preallocation",
            "You notice that a text is full when you come to it, and by then other texts have their new token. After a "
            "refusal the cache must be as it was, or a retry stores tokens twice.",
            (CACHE_ROOM, "if min(self.lengths) + new > self.keys.shape[2]:"),
            (CACHE_KEYS, "if start + new > self.keys.shape[2]:\n"
             "                raise ValueError(f'text {row} is full')\n"
             "            self.keys[row, :, start : start + new] = keys[row]\n"
             "            self.lengths[row] += new"),
            ("        " + CACHE_COUNT + "\n", ""),
            (CACHE_LOOP, "for row, start in enumerate(list(self.lengths)):"),
        ),
        mistake(
            "last-place-unused",
            "the last place is never used",
            "preallocation",
            "You refuse when the cache would be exactly full. Exactly full fits; the token after it does not.",
            (CACHE_ROOM, "if max(self.lengths) + new >= self.keys.shape[2]:"),
        ),
        mistake(
            "cut-beyond-the-end",
            "cutting can lengthen a text",
            "kv-cache",
            "You set the lengths without looking. A length beyond the end of a text would bring memory back that holds "
            "no token of it.",
            ("if any(not 0 <= kept <= have for", "if any(kept < 0 for"),
        ),
        mistake(
            "copies-on-view",
            "each look copies the cache",
            "preallocation",
            "Your view returns copies. Decode looks at the cache of each layer for each token, so it would copy all of "
            "it each time. A slice is a view of the same memory.",
            (CACHE_VIEW, "return self.keys[:, :, :longest].clone(), self.values[:, :, :longest].clone()"),
        ),
        mistake(
            "keys-only",
            "the values' bytes are forgotten",
            "kv-bytes",
            "You count the keys. The values take as much again: the 2 in 2 x layers x heads x width is theirs.",
            (CACHE_BYTES, "part.numel() * part.element_size() // 2"),
        ),
        mistake(
            "four-bytes",
            "every number counts four bytes",
            "kv-bytes",
            "You count four bytes for a number. In float16 it has two; ask the tensor.",
            (CACHE_BYTES, "part.numel() * 4"),
        ),
    ),
    alternatives=(
        Alternative(
            "one tensor for both, filled by advanced indexing",
            "class KVCache:\n"
            "    def __init__(self, batch, kv_heads, capacity, width, dtype=torch.float32):\n"
            "        self.both = torch.empty(2, batch, kv_heads, capacity, width, dtype=dtype)\n"
            "        self.keys, self.values = self.both\n"
            "        self.lengths = batch * [0]\n"
            "    def append(self, keys, values):\n"
            "        count = keys.size(2)\n"
            "        ends = [n + count for n in self.lengths]\n"
            "        if any(end > self.both.size(3) for end in ends):\n"
            "            raise ValueError('full')\n"
            "        for i, end in enumerate(ends):\n"
            "            self.both[0, i, :, end - count : end].copy_(keys[i])\n"
            "            self.both[1, i, :, end - count : end].copy_(values[i])\n"
            "        self.lengths = ends\n"
            "    def view(self):\n"
            "        return tuple(part.narrow(2, 0, max(self.lengths)) for part in (self.keys, self.values))\n"
            "    def truncate(self, lengths):\n"
            "        for old, new in zip(self.lengths, lengths):\n"
            "            if new < 0 or new > old:\n"
            "                raise ValueError('there are fewer')\n"
            "        self.lengths = [int(n) for n in lengths]\n"
            "    @property\n"
            "    def nbytes(self):\n"
            "        return self.both.nbytes\n"
            "def replay(sizes, dtype, steps):\n"
            "    cache, seen = KVCache(*sizes, dtype=getattr(torch, dtype)), []\n"
            "    first = cache.keys, cache.values\n"
            "    for name, *arguments in steps:\n"
            "        try:\n"
            "            getattr(cache, name)(*arguments)\n"
            "            refused = False\n"
            "        except ValueError:\n"
            "            refused = True\n"
            "        view = cache.view()\n"
            "        rows = [[part[row, :, :n].clone() for row, n in enumerate(cache.lengths)] for part in view]\n"
            "        now, then = ([part.data_ptr() for part in pair] for pair in ((cache.keys, cache.values), first))\n"
            "        copied = max(cache.lengths) > 0 and [part.data_ptr() for part in view] != now\n"
            "        seen.append({'refused': refused, 'lengths': list(cache.lengths), 'longest': view[0].shape[2],\n"
            "                     'keys': rows[0], 'values': rows[1], 'copied': copied, 'moved': now != then})\n"
            "    return {'steps': seen, 'nbytes': cache.nbytes}\n",
        ),
    ),
)

# 3. attend


def attend_cases(seed: int, visible: bool) -> list[Case]:
    g, n = generator(seed, visible, "attend"), 0 if visible else 1

    def inputs(heads: int, kv_heads: int, new: int, width: int, lengths: list[int], behind: float | None = None,
               room: int = 0) -> tuple[Any, ...]:  # fmt: skip
        room = room or max(lengths)
        query = doubles(g, len(lengths), heads, new, width)
        keys, values = (doubles(g, len(lengths), kv_heads, room, width) for _ in range(2))
        for row, length in enumerate(lengths):
            for part in (keys, values):
                part[row, :, length:] = 3 * part[row, :, length:] if behind is None else behind
        return query, keys, values, lengths

    sharp = inputs(2, 1, 3, 4, [6])
    low = inputs(1, 1, 2, 4, [5 + n])
    low[0].copy_(torch.ones(1, 1, 2, 4))
    low[1].copy_(-10_000 - torch.rand(low[1].shape, generator=g, dtype=torch.float64))  # all scores near -20,000
    return [
        Case("a prompt", inputs(2, 2, 5 + n, 4, [5 + n]), tags=tags("causal")),
        Case("a second chunk", inputs(2, 2, 3, 6, [8 + n]), tags=tags("causal")),
        Case("one new token", inputs(3, 3, 1, 4, [9 + n]), tags=tags("causal")),
        Case("square", inputs(4, 4, 4, 4, [4]), tags=tags("causal")),
        Case("the first token of all", inputs(2, 2, 1, 3 + n, [1]), tags=tags("causal")),
        Case("four heads share two", inputs(4, 2, 3, 4, [7 + n]), tags=tags("grouped")),
        Case("six heads share two", inputs(6, 2, 1, 8, [5 + n]), tags=tags("grouped")),
        Case("six heads share one", inputs(6, 1, 2, 4, [4]), tags=tags("grouped")),
        Case("room behind the text", inputs(2, 1, 2, 4, [5 + n], room=9), tags=tags("padding")),
        Case("texts of different lengths", inputs(4, 2, 1, 4, [7, 2 + n, 5]), tags=tags("padding")),
        Case("chunks of different texts", inputs(2, 2, 3, 4, [3, 8 + n, 5], room=10), tags=tags("padding")),
        Case("NaN behind the text", inputs(2, 1, 2, 4, [4 + n], math.nan, room=7), tags=tags("garbage")),
        Case("infinity behind a shorter text", inputs(4, 2, 1, 3, [6, 3 + n], math.inf), tags=tags("garbage")),
        Case("large scores", (400 * sharp[0], *sharp[1:]), tags=tags("scores")),
        Case("scores near -20,000", low, tags=tags("scores")),
    ]


ATT_ENDS = "seen = place <= (ends - new + torch.arange(new))[..., None]"
ATT_FILL = "part.masked_fill(empty, 0).repeat_interleave(heads // part.shape[1], 1)"
ATT_SCORES = "scores = query @ keys.transpose(-1, -2) / math.sqrt(width)"
ATT_SOFTMAX = "return scores.masked_fill(~seen[:, None], -math.inf).softmax(-1) @ values"
ATTEND = Exercise(
    "attend",
    points=11,
    difficulty=3,
    cases=attend_cases,
    properties=(
        Property("each token sees itself and what came before", hold.attends, 4, tags=tags("causal")),
        Property("heads of queries share heads of keys", hold.attends, 2, tags=tags("grouped")),
        Property("texts of different lengths", hold.attends, 2.5, tags=tags("padding")),
        Property("what stands behind a text does not matter", hold.attends, 1.5, tags=tags("garbage")),
        Property("large and very negative scores", hold.attends, 1, tags=tags("scores")),
    ),
    mistakes=(
        mistake(
            "mask-without-offset",
            "the mask forgets the cache",
            "causal-attention",
            "Your mask is that of a text without a past: the first new token sees one key, the oldest. With `new` "
            "tokens behind others the diagonal is shifted by what was there before. Without a cache nobody notices.",
            (ATT_ENDS, "seen = place <= (0 * ends + torch.arange(new))[..., None]"),
        ),
        mistake(
            "strictly-before",
            "a token does not see itself",
            "causal-attention",
            "Your tokens see what came before them, not themselves. The first token of a text then sees nothing, and a "
            "softmax over nothing is NaN.",
            (ATT_ENDS, "seen = place < (ends - new + torch.arange(new))[..., None]"),
        ),
        mistake(
            "future-seen",
            "tokens see those behind them",
            "causal-attention",
            "Your tokens see all of the text. One token at a time this is right, since nothing stands behind it; in "
            "prefill each token reads the answer to its own question.",
            (ATT_ENDS, "seen = place <= (ends - 1 + 0 * torch.arange(new))[..., None]"),
        ),
        mistake(
            "softmax-over-padding",
            "the room behind the text is text",
            "padding",
            "You let the last new token see up to the end of the room. What stands there belongs to nobody, and it "
            "takes its share of the softmax from the tokens that are real.",
            (ATT_ENDS, "seen = place <= (room - new + 0 * ends + torch.arange(new))[..., None]"),
        ),
        mistake(
            "first-length-for-all",
            "all texts are as long as the first",
            "padding",
            "You use the first text's length for the whole batch. Shorter texts look into the padding, and longer ones "
            "lose their end.",
            (ATT_ENDS, "seen = place <= (ends[:1] - new + torch.arange(new))[..., None]"),
        ),
        mistake(
            "zero-times-nan",
            "0 times NaN",
            "padding",
            "You mask the scores only. The weights behind the text are 0, but 0 * NaN is NaN, and memory that nobody "
            "has written may hold one. Engines with an uninitialized cache fail this way once in a while, and nowhere "
            "else.",
            (ATT_FILL, "part.repeat_interleave(heads // part.shape[1], 1)"),
        ),
        mistake(
            "cache-changed-in-place",
            "the cache is changed in place",
            "padding",
            "You zero what stands behind the texts in the keys and values that you were given. They are the cache, "
            "and others look at it too: what is behind one reader's end may be another's text, when several share a "
            "prefix. masked_fill without the underscore makes a copy.",
            (ATT_FILL, "part.masked_fill_(empty, 0).repeat_interleave(heads // part.shape[1], 1)"),
        ),
        mistake(
            "heads-interleaved",
            "query heads read the wrong keys",
            "grouped-queries",
            "You repeat all heads of keys one after the other: 0, 1, 0, 1. Query heads 0 and 1 share head 0: the "
            "order is 0, 0, 1, 1, repeat_interleave. With one head of keys, or as many as queries, both are the same.",
            (ATT_FILL, "part.masked_fill(empty, 0).repeat(1, heads // part.shape[1], 1, 1)"),
        ),
        mistake(
            "not-scaled",
            "not divided by sqrt(width)",
            "causal-attention",
            "The dot product of two vectors of `width` channels grows with sqrt(width). Without the division the "
            "softmax is far too sharp.",
            (ATT_SCORES, "scores = query @ keys.transpose(-1, -2)"),
        ),
        mistake(
            "divided-by-width",
            "divided by width, not by its root",
            "causal-attention",
            "You divide by the width. The spread of a sum of `width` products grows with the root: divided by the "
            "width all scores are nearly 0, and attention is nearly an average.",
            (ATT_SCORES, "scores = query @ keys.transpose(-1, -2) / width"),
        ),
        mistake(
            "softmax-over-queries",
            "the softmax runs over the queries",
            "causal-attention",
            "You normalize over the queries. Each query's weights over the keys make a sum of 1; the keys are the last "
            "dimension.",
            (ATT_SOFTMAX, "return scores.masked_fill(~seen[:, None], -math.inf).softmax(-2) @ values"),
        ),
        mistake(
            "masked-with-zero",
            "hidden scores become 0",
            "causal-attention",
            "You set the scores of hidden keys to 0. exp(0) is 1: they keep an ordinary weight. Only minus infinity "
            "becomes 0.",
            (ATT_SOFTMAX, "return scores.masked_fill(~seen[:, None], 0).softmax(-1) @ values"),
        ),
        mistake(
            "masked-afterwards",
            "masked after the softmax",
            "causal-attention",
            "You take the softmax over all keys and set hidden weights to 0 afterwards. What is left no longer sums to "
            "1, and how much is missing tells a token about those behind it.",
            (ATT_SOFTMAX, "return scores.nan_to_num(0).softmax(-1).masked_fill(~seen[:, None], 0) @ values"),
        ),
        mistake(
            "large-but-finite",
            "hidden scores become -10,000",
            "causal-attention",
            "You mask with -10,000, as early implementations did. Where true scores are lower still, the hidden keys "
            "win. Minus infinity is what you mean.",
            (ATT_SOFTMAX, "return scores.masked_fill(~seen[:, None], -1e4).softmax(-1) @ values"),
        ),
        mistake(
            "exp-overflows",
            "exp of large scores",
            "online-softmax",
            "You take exp of the scores as they are. From about 700 on (89 in float32) that is infinite. Subtract the "
            "row's largest score first; it cancels.",
            (ATT_SOFTMAX, "weights = scores.masked_fill(~seen[:, None], -math.inf).exp()\n"
             "    return weights / weights.sum(-1, keepdim=True) @ values"),
        ),
    ),
    alternatives=(
        Alternative(
            "text by text, with torch's own attention",
            "def attend(query, keys, values, lengths):\n"
            "    out, share = [], query.shape[1] // keys.shape[1]\n"
            "    for q, k, v, n in zip(query, keys, values, lengths):\n"
            "        k, v = k[:, :n].repeat_interleave(share, 0), v[:, :n].repeat_interleave(share, 0)\n"
            "        mask = torch.ones(q.shape[1], n).tril(n - q.shape[1]).bool()\n"
            "        out.append(F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=mask)[0])\n"
            "    return torch.stack(out)\n",
        ),
        Alternative(
            "grouped by einsum",
            "def attend(query, keys, values, lengths):\n"
            "    b, h, t, w = query.shape\n"
            "    g = keys.shape[1]\n"
            "    n = torch.tensor(lengths)\n"
            "    at = torch.arange(keys.shape[2])\n"
            "    real = (at < n[:, None])[:, None, :, None]\n"
            "    k, v = torch.where(real, keys, 0.0), torch.where(real, values, 0.0)\n"
            "    s = torch.einsum('bgstw,bgrw->bgstr', query.view(b, g, h // g, t, w), k) * w**-0.5\n"
            "    last = n[:, None] - t + torch.arange(t)\n"
            "    hidden = at > last[:, :, None]\n"
            "    s = s.masked_fill(hidden[:, None, None], float('-inf')).softmax(dim=-1)\n"
            "    return torch.einsum('bgstr,bgrw->bgstw', s, v).reshape(b, h, t, w)\n",
        ),
    ),
)

# 4. is_consistent


def consistent_cases(seed: int, visible: bool) -> list[Case]:
    g, n = generator(seed, visible, "is_consistent"), 0 if visible else 1

    def engine(fault: str, filled: bool = True) -> Ref:
        number = int(torch.randint(10_000, (1,), generator=g))
        before = torch.randint(19, (5 + n,), generator=g).tolist() if filled else []
        return Ref("engine", {"seed": number, "fault": fault, "filled": before})

    def text() -> list[int]:
        return torch.randint(19, (13 + 2 * n + int(torch.randint(4, (1,), generator=g)),), generator=g).tolist()

    right = [("", "a right engine"), ("noise", "rounding of 1e-6"), ("noise", "other rounding"), ("", "another seed")]
    wrong = [
        ("mask", "the mask of a chunk ignores the cache", "chunks"),
        ("positions", "each chunk begins at position 0", "chunks"),
        ("window", "later chunks see ten tokens", "chunks"),
        ("coarse", "cached keys are rounded", "chunks"),
        ("future", "tokens see those behind them", "future"),
        ("turned twice", "decode turns cached keys again", "decode"),
        ("late", "a token is stored after it has looked", "decode"),
        ("last", "every row has the last token's logits", "rows"),
        ("stale", "truncate leaves the keys", "truncate"),
        ("wear", "reading changes the weights", "wear"),
    ]
    cases = [Case(f"right: {name}", (engine(fault), text()), tags=tags("right")) for fault, name in right]
    cases.append(Case("right: an empty cache", (engine("", filled=False), text()), tags=tags("right")))
    return cases + [Case(f"wrong: {name}", (engine(fault), text()), tags=tags(kind)) for fault, name, kind in wrong]


CON_SINGLE = "        read(*([token] for token in tokens)),\n"
CON_HALVES = "        read(tokens[:half], tokens[half:]),\n"
CON_MIXED = "        read(tokens[:half], *([token] for token in tokens[half:])),\n"
CON_CUT = "others.append(torch.cat([whole[:half], read(tokens[half:], kept=half)]))"
CON_BOUND = "(other - whole).abs().max() <= 1e-4 * whole.abs().max()"
CONSISTENT = Exercise(
    "is_consistent",
    points=8,
    difficulty=2,
    cases=consistent_cases,
    properties=(
        Property("accepts every right engine", hold.accepts, 0, gate=True, tags=tags("right")),
        Property("finds what is wrong with chunks", hold.finds, 2, tags=tags("chunks")),
        Property("finds a look into the future", hold.finds, 1.5, tags=tags("future")),
        Property("finds what is wrong with single tokens", hold.finds, 1.5, tags=tags("decode")),
        Property("finds what truncation leaves behind", hold.finds, 1.5, tags=tags("truncate")),
        Property("finds logits in the wrong rows", hold.finds, 0.75, tags=tags("rows")),
        Property("finds that reading wears the model", hold.finds, 0.75, tags=tags("wear")),
    ),
    mistakes=(
        mistake(
            "compared-with-itself",
            "one result is compared with itself",
            "equivalence-tests",
            "Your test compares a result with itself, and no engine in the world fails it. A well-known course graded "
            "an exercise this way for years.",
            ("for other in others)", "for other in [whole])"),
        ),
        mistake(
            "equal-to-the-bit",
            "equal to the last bit",
            "equivalence-tests",
            "You ask for equality. One pass over twelve tokens and twelve passes over one add the same numbers in "
            "another order, so right engines differ in the last bits, and your test refuses them.",
            (CON_BOUND, "other.equal(whole)"),
        ),
        mistake(
            "nearly-anything",
            "a tolerance that hides everything",
            "equivalence-tests",
            "You accept differences of a third of the largest logit. A tolerance is derived from rounding, not "
            "stretched until the test is green.",
            (CON_BOUND, "(other - whole).abs().max() <= 0.35 * whole.abs().max()"),
        ),
        mistake(
            "last-logits-only",
            "only the last logits are compared",
            "equivalence-tests",
            "You compare the logits after the last token. An engine may get those right and the others wrong, and then "
            "perplexities and speculation, which read them all, are wrong. Compare every row.",
            (CON_BOUND, "(other - whole)[-1].abs().max() <= 1e-4 * whole.abs().max()"),
        ),
        mistake(
            "same-choice",
            "only the most likely token is compared",
            "equivalence-tests",
            "You compare which token is the most likely. Small faults do not change it at most places, until they do. "
            "The logits say more than the choice.",
            (CON_BOUND, "(other.argmax(-1) == whole.argmax(-1)).double().mean() > 0.5"),
        ),
        mistake(
            "halves-only",
            "single tokens are never tried",
            "equivalence-tests",
            "You read in chunks and never token by token. Decode is another path in most engines, with mistakes of its "
            "own, and it is the one that runs all day.",
            (CON_SINGLE, ""),
            (CON_MIXED, ""),
        ),
        mistake(
            "never-cut",
            "truncation is not tried",
            "equivalence-tests",
            "You never cut the text back and go on in another way. That is what a conversation does whenever somebody "
            "edits a question, and what speculation does all the time.",
            (CON_CUT, "pass"),
        ),
        mistake(
            "not-emptied",
            "the cache is not emptied first",
            "equivalence-tests",
            "You read behind what the cache held when you got it. Your first reading then has another past than the "
            "rest, and right engines are refused. Cut it to 0 first.",
            ("whole = read(tokens)", "whole = engine.forward(tokens)"),
        ),
        mistake(
            "beginning-only",
            "only the first tokens are tried",
            "equivalence-tests",
            "You try four tokens. Windows, rings and precision fail on long texts; use all that you were given.",
            ("half = len(tokens) // 2", "tokens = tokens[:4]\n    half = len(tokens) // 2"),
        ),
    ),
    alternatives=(
        Alternative(
            "random cuts against a token-by-token reading",
            "def is_consistent(engine, tokens):\n"
            "    def fresh(cuts):\n"
            "        engine.truncate(0)\n"
            "        ends = [*cuts, len(tokens)]\n"
            "        return torch.cat([engine.forward(tokens[a:b]) for a, b in zip([0, *cuts], ends)])\n"
            "    base = fresh(range(1, len(tokens)))\n"
            "    bound = 2e-4 * base.abs().max()\n"
            "    for cuts in ([], [5], [3, 7], [len(tokens) - 1], [1]):\n"
            "        if not torch.all((fresh(cuts) - base).abs() <= bound):\n"
            "            return False\n"
            "    for kept in (4, 9):\n"
            "        engine.truncate(kept)\n"
            "        engine.forward([(t + 1) % 19 for t in tokens[kept:]])\n"
            "        engine.truncate(kept)\n"
            "        again = engine.forward(tokens[kept:])\n"
            "        if not torch.all((again - base[kept:]).abs() <= bound):\n"
            "            return False\n"
            "        engine.truncate(kept)\n"
            "        engine.forward(tokens[kept:])\n"
            "    return torch.allclose(fresh(range(1, len(tokens))), base, rtol=0, atol=float(bound))\n",
        ),
    ),
)

# 5. read_prompt


def prompt_cases(seed: int, visible: bool) -> list[Case]:
    g, n = generator(seed, visible, "read_prompt"), 0 if visible else 1

    def words(count: int) -> list[int]:
        return torch.randint(19, (count,), generator=g).tolist()

    def engine(filled: list[int], context: int = 32) -> Ref:
        number = int(torch.randint(10_000, (1,), generator=g))
        return Ref("engine", {"seed": number, "filled": filled, "context": context})

    def other(tokens: list[int], place: int) -> list[int]:
        """The same tokens with another one at a place."""
        return [*tokens[:place], (tokens[place] + 1 + n) % 19, *tokens[place + 1 :]]

    old = words(9 + n)
    turned = [*other(old, 4), *words(3)]
    return [
        Case("an empty cache", (engine([]), words(11 + n), 4), tags=tags("chunks")),
        Case("chunks that fit exactly", (engine([]), words(12), 4 - n), tags=tags("chunks")),
        Case("one chunk", (engine([]), words(7 + n), 16), tags=tags("chunks")),
        Case("token by token", (engine([]), words(5 + n), 1), tags=tags("chunks")),
        Case("a conversation goes on", (engine(old), old + words(6), 4), tags=tags("reuse")),
        Case("an edited question", (engine(old), turned, 3), tags=tags("reuse")),
        Case("equal again behind the difference", (engine(old), other(old, 2) + words(2), 5), tags=tags("reuse")),
        Case("another beginning", (engine(old), other(old, 0), 4), tags=tags("reuse")),
        Case("a shorter question", (engine(old), old[:5] + other(old, 5)[5:7], 4), tags=tags("reuse")),
        Case("the same prompt again", (engine(old), list(old), 4), tags=tags("last")),
        Case("a prompt that the cache goes beyond", (engine(old), old[: 6 + n], 4), tags=tags("last")),
        Case("one token", (engine(old), old[:1], 4), tags=tags("last")),
        Case("a full context", (engine([], 10 + n), words(10 + n), 6), tags=tags("chunks")),
        Case("too long", (engine(old[:4], 10 + n), old[:4] + words(7 + n), 6), tags=tags("refused")),
        Case("nothing to read", (engine(old), [], 4), tags=tags("refused")),
    ]


READ_ROOM = "if not 0 < len(prompt) <= model.context:"
READ_SAME = "while reused < min(len(model.tokens), len(prompt) - 1) and model.tokens[reused] == prompt[reused]:"
READ_CUT = "model.truncate(reused)"
READ_LOOP = "for start in range(reused, len(prompt), chunk):"
READ_CALL = "logits = model.forward(prompt[start : start + chunk])"
READ = Exercise(
    "read_prompt",
    points=8,
    difficulty=2,
    cases=prompt_cases,
    properties=(
        Property("reads all of it, in chunks", hold.reads_what_is_new, 2.5, tags=tags("chunks")),
        Property("keeps what prompt and cache share", hold.reads_what_is_new, 2.5, tags=tags("reuse")),
        Property("always reads the last token", hold.reads_what_is_new, 1.5, tags=tags("last")),
        Property("refuses what is empty or too long", hold.refuses, 1, tags=tags("refused")),
        Property("returns the logits after the prompt", hold.has_the_logits, 0.5),
    ),
    mistakes=(
        mistake(
            "nothing-left-to-read",
            "all of a known prompt is kept",
            "prefix-reuse",
            "When the cache has the whole prompt already, you keep it all and have nothing to read, so there are no "
            "logits. The cache holds keys and values, not logits: the last token has to be read once more.",
            ("min(len(model.tokens), len(prompt) - 1)", "min(len(model.tokens), len(prompt))"),
        ),
        mistake(
            "one-token-less",
            "one known token is read again",
            "prefix-reuse",
            "You keep one token less than you could. It costs little, but the cache has it: only the prompt's very "
            "last token must be read.",
            ("model.truncate(reused)", "reused = max(0, reused - 1)\n    model.truncate(reused)"),
        ),
        mistake(
            "old-text-left",
            "what no longer belongs is not forgotten",
            "prefix-reuse",
            "You find what is shared and do not cut the cache there. The old continuation stays between the shared "
            "beginning and the new text, and the model reads both.",
            (READ_CUT, "pass"),
        ),
        mistake(
            "never-reused",
            "everything is read again",
            "prefix-reuse",
            "You empty the cache each time. The answer is right, and the tenth question of a conversation takes ten "
            "times as long as it needs to.",
            ("and model.tokens[reused] == prompt[reused]:", "and False:"),
        ),
        mistake(
            "length-trusted",
            "the tokens are not compared",
            "prefix-reuse",
            "You keep as many tokens as cache and prompt both have, without looking whether they are the same. "
            "Somebody who edits an earlier question gets an answer to the old one.",
            (" and model.tokens[reused] == prompt[reused]:", ":"),
        ),
        mistake(
            "counts-equal-places",
            "equal tokens behind a difference count",
            "prefix-reuse",
            "You count the places at which both are equal. Only the common *beginning* can be kept: keys and values "
            "depend on every token before them, so those behind a difference are of another text.",
            (
                "    " + READ_CUT + "\n",
                "    pairs = zip(model.tokens, prompt[:-1])\n"
                "    reused = sum(a == b for a, b in pairs)\n    model.truncate(reused)\n",
            ),
        ),
        mistake(
            "whole-prompt-at-once",
            "the prompt is read at once",
            "prefill",
            "You read everything in one call. The activations of a prompt of thousands of tokens take more memory than "
            "the cache, and nobody else is served in the meantime.",
            (READ_LOOP, "for start in [reused]:"),
            (READ_CALL, "logits = model.forward(prompt[start:])"),
        ),
        mistake(
            "token-by-token",
            "the prompt is read token by token",
            "prefill",
            "You read one token in each call. That is decode: every token fetches all weights once more, and a prompt "
            "takes as long as an answer of its length.",
            (READ_LOOP, "for start in range(reused, len(prompt)):"),
            (READ_CALL, "logits = model.forward(prompt[start : start + 1])"),
        ),
        mistake(
            "rest-dropped",
            "the last, shorter chunk is dropped",
            "prefill",
            "You read full chunks only. The end of the prompt, which is the question, is missing.",
            (READ_LOOP, "for start in range(reused, max(len(prompt) - chunk, reused) + 1, chunk):"),
        ),
        mistake(
            "first-of-the-chunk",
            "the logits after the first token of a chunk",
            "prefill",
            "You return the logits after the first token of the last chunk. Each row belongs to the token that was "
            "read there; the next token of the text follows from the last row.",
            ('"logits": logits[-1]', '"logits": logits[0]'),
        ),
        mistake(
            "no-limit",
            "a prompt that is too long is read",
            "preallocation",
            "You let the model find out that there is no room, after the old text has been thrown away. Say it before "
            "anything is touched; the caller can still shorten the prompt.",
            (READ_ROOM, "if not prompt:"),
        ),
        mistake(
            "too-careful",
            "a prompt that just fits is refused",
            "preallocation",
            "You refuse a prompt as long as the context. It fits; there is just no room for more than one token of an "
            "answer behind it.",
            (READ_ROOM, "if not 0 < len(prompt) < model.context:"),
        ),
    ),
    alternatives=(
        Alternative(
            "a slice that shrinks",
            "def read_prompt(model, prompt, chunk):\n"
            "    if len(prompt) == 0 or len(prompt) > model.context:\n"
            "        raise ValueError('does not fit')\n"
            "    same = 0\n"
            "    for a, b in zip(model.tokens, prompt[:-1]):\n"
            "        if a != b:\n"
            "            break\n"
            "        same += 1\n"
            "    model.truncate(same)\n"
            "    rest = prompt[same:]\n"
            "    while rest:\n"
            "        part, rest = rest[:chunk], rest[chunk:]\n"
            "        last = model.forward(part)\n"
            "    return {'logits': last[-1].clone(), 'reused': same, 'reads': list(model.reads)}\n",
        ),
    ),
)

# 6. fold_tile


def tile_cases(seed: int, visible: bool) -> list[Case]:
    g, n = generator(seed, visible, "fold_tile"), 0 if visible else 1

    def state(rows: int, width: int, base: float | None = 0.0) -> dict[str, torch.Tensor]:
        """The state after some tiles whose largest scores lie near `base`; None for the beginning."""
        if base is None:
            zero = torch.zeros(rows, dtype=torch.float64)
            return {"largest": zero - math.inf, "sum": zero, "mixed": torch.zeros(rows, width, dtype=torch.float64)}
        total = 1 + 3 * torch.rand(rows, generator=g, dtype=torch.float64)
        return {"largest": base + doubles(g, rows), "sum": total, "mixed": total[:, None] * doubles(g, rows, width)}

    def hidden(scores: torch.Tensor, *rows: int) -> torch.Tensor:
        scores[list(rows)] = -math.inf
        return scores

    started = state(4, 3)
    for key, value in state(4, 3, None).items():
        started[key][1] = value[1]  # one row has seen nothing yet
    partly = doubles(g, 4, 5)
    partly[:, 2:][torch.rand(4, 3, generator=g) < 0.5] = -math.inf
    return [
        Case("the first tile", (state(3, 2 + n, None), doubles(g, 3, 4), doubles(g, 4, 2 + n)), tags=tags("first")),
        Case("one key", (state(2, 3, None), doubles(g, 2, 1), doubles(g, 1, 3)), tags=tags("first")),
        Case("a louder tile", (state(3, 4), 4 + doubles(g, 3, 5 + n), doubles(g, 5 + n, 4)), tags=tags("later")),
        Case("a quieter tile", (state(3, 4), -4 + doubles(g, 3, 5), doubles(g, 5, 4)), tags=tags("later")),
        Case("a tile like the others", (state(6, 2), doubles(g, 6, 3 + n), doubles(g, 3 + n, 2)), tags=tags("later")),
        Case("scores of a thousand", (state(2, 3, 900.0), 1000 + 30 * doubles(g, 2, 4), doubles(g, 4, 3)),
             tags=tags("size")),
        Case("scores of minus a thousand", (state(2, 3, None), -1000 + doubles(g, 2, 4 + n), doubles(g, 4 + n, 3)),
             tags=tags("size")),
        Case("some keys are hidden", (state(4, 3), partly, doubles(g, 5, 3)), tags=tags("hidden")),
        Case("a row that sees nothing here", (state(3, 2), hidden(doubles(g, 3, 4), 1), doubles(g, 4, 2)),
             tags=tags("hidden")),
        Case("a row that has seen nothing yet", (state(3, 2, None), hidden(doubles(g, 3, 4), 0, 2), doubles(g, 4, 2)),
             tags=tags("hidden")),
        Case("a row that saw nothing before", (started, doubles(g, 4, 3), doubles(g, 3, 3)), tags=tags("hidden")),
    ]  # fmt: skip


TILE_LARGEST = 'largest = torch.maximum(state["largest"], scores.amax(1))'
TILE_ANCHOR = "anchor = largest.masked_fill(largest == -math.inf, 0)"
TILE_OLD = 'old = (state["largest"] - anchor).exp()'
TILE_NEW = "new = (scores - anchor[:, None]).exp()"
TILE_MIXED = 'mixed = state["mixed"] * old[:, None] + new @ values'
TILE_SUM = '"sum": state["sum"] * old + new.sum(1)'
TILE = Exercise(
    "fold_tile",
    points=8,
    difficulty=2,
    cases=tile_cases,
    properties=(
        Property("begins", hold.folds, 1, tags=tags("first")),
        Property("goes on", hold.folds, 3, tags=tags("later")),
        Property("large scores do not overflow", hold.folds, 1, tags=tags("size")),
        Property("rows that see nothing", hold.folds, 2, tags=tags("hidden")),
        Property("the largest score is the largest so far", partial(hold.folds, keys=("largest",)), 1),
    ),
    mistakes=(
        mistake(
            "old-sum-not-rescaled",
            "the old sum keeps its old unit",
            "online-softmax",
            "You rescale the mixture and not the sum. Both were gathered relative to the old largest score; when that "
            "grows, both shrink by exp(old - new).",
            (TILE_SUM, '"sum": state["sum"] + new.sum(1)'),
        ),
        mistake(
            "old-mixture-not-rescaled",
            "the old mixture keeps its old unit",
            "online-softmax",
            "You rescale the sum and not the mixture. Values of earlier tiles then weigh more than they should, by "
            "exp(new - old).",
            (TILE_MIXED, 'mixed = state["mixed"] + new @ values'),
        ),
        mistake(
            "nothing-rescaled",
            "nothing is rescaled",
            "online-softmax",
            "You subtract the new largest score from new scores and leave what was gathered before in the old unit. "
            "Right for the first tile only, or when the first has the largest score of all.",
            (TILE_OLD, 'old = torch.ones_like(state["largest"])'),
        ),
        mistake(
            "rescaled-upwards",
            "rescaled by the inverse",
            "online-softmax",
            "You multiply what was gathered by exp(new - old). A larger reference makes every term relative to it "
            "smaller: the factor is exp(old - new), at most 1.",
            (TILE_OLD, 'old = (anchor - state["largest"].masked_fill(state["largest"] == -math.inf, 0)).exp()'),
        ),
        mistake(
            "largest-of-this-tile",
            "the largest score of this tile only",
            "online-softmax",
            "You take this tile's largest score. When a tile is quieter than those before, the factor exp(old - new) "
            "is above 1 and can overflow. The largest score *so far* never falls.",
            (TILE_LARGEST, "largest = scores.amax(1)"),
        ),
        mistake(
            "no-largest",
            "exp of the scores as they are",
            "online-softmax",
            "You do not subtract the largest score. In exact arithmetic it cancels; in floating point exp overflows, "
            "and infinity divided by infinity is NaN.",
            (TILE_ANCHOR, "anchor = torch.zeros_like(largest)"),
            (TILE_OLD, 'old = torch.ones_like(state["largest"])'),
        ),
        mistake(
            "one-largest-for-all-rows",
            "one largest score for all rows",
            "online-softmax",
            "You take the largest score of the whole tile. It is a valid reference for every row, but in a row with "
            "far lower scores all terms underflow to 0. Each row has its own.",
            (TILE_LARGEST, 'largest = torch.maximum(state["largest"], scores.max())'),
        ),
        mistake(
            "minus-infinity-minus-itself",
            "-inf minus -inf",
            "online-softmax",
            "A row that sees nothing has the largest score -inf, and -inf - (-inf) is NaN. Kernels meet such rows in "
            "every causal mask that is cut into tiles.",
            (TILE_ANCHOR, "anchor = largest"),
        ),
        mistake(
            "normalized-at-each-tile",
            "divided by the sum at each tile",
            "online-softmax",
            "You divide the mixture by the sum in each tile and add to it in the next as if you had not. Divide once, "
            "at the end, as FlashAttention 2 does; or multiply by the old sum first.",
            (TILE_MIXED, 'mixed = (state["mixed"] * old[:, None] + new @ values)\n'
             '    mixed = mixed / (state["sum"] * old + new.sum(1))[:, None]'),
        ),
        mistake(
            "softmax-within-the-tile",
            "a softmax within the tile",
            "online-softmax",
            "You normalize within the tile and add. Each tile then has the weight 1, whether its scores are high or "
            "low.",
            (TILE_NEW, "new = scores.masked_fill((scores == -math.inf).all(1, keepdim=True), 0).softmax(1)"),
        ),
    ),
    alternatives=(
        Alternative(
            "the old state as one more key",
            "def fold_tile(state, scores, values):\n"
            "    top = torch.cat([state['largest'][:, None], scores], dim=1).max(dim=1).values\n"
            "    safe = torch.where(top.isinf() & (top < 0), torch.zeros_like(top), top)\n"
            "    p = torch.exp(scores - safe.unsqueeze(1))\n"
            "    decay = torch.exp(state['largest'] - safe)\n"
            "    total = decay * state['sum'] + p.sum(dim=1)\n"
            "    out = decay.unsqueeze(1) * state['mixed'] + torch.einsum('rt,tw->rw', p, values)\n"
            "    return {'largest': top, 'sum': total, 'mixed': out}\n",
        ),
    ),
)

# 7. sample


def _kept(logits: torch.Tensor, temperature: float, top_k: int) -> torch.Tensor:
    """What steps 1 and 2 leave, most likely first."""
    law = (logits.double() / temperature).softmax(0).sort(descending=True).values
    return law[: top_k or len(law)] / law[: top_k or len(law)].sum()


def sample_cases(seed: int, visible: bool) -> list[Case]:
    g, n = generator(seed, visible, "sample"), 0 if visible else 1

    def uniform() -> float:
        return float(torch.rand(1, generator=g, dtype=torch.float64))

    def case(name: str, kind: str, size: int, temperature: float = 1.0, k: int = 0, p: float = 1.0, m: float = 0.0,
             spread: float = 2.0) -> Case:  # fmt: skip
        def clear(logits: torch.Tensor) -> bool:
            left = _kept(logits, temperature, k)
            nucleus = float((left.cumsum(0) - p).abs().min()) if p < 1 else 1.0
            return min(nucleus, float((left / left[0] - m).abs().min()) if m else 1.0) > 1e-4

        logits = redrawn(lambda: spread * torch.randn(size, generator=g), clear)
        return Case(name, (logits, temperature, k, p, m, uniform()), tags=tags(kind, "draw"))

    ties = torch.tensor([1.0, 3.0, 2.0, 3.0, 2.0, 0.0, 3.0])[torch.randperm(7, generator=g)]
    nothing = torch.cat([torch.full((2 + n,), -math.inf), torch.randn(4, generator=g)])
    sure = torch.tensor([0.0, 30.0, 1.0, 2.0 + n])
    many = [case(f"draw {i + 1}", "many", 9 + n, 0.8, 0, 0.95) for i in range(6)]
    return [
        case("the law as it is", "temperature", 8 + n),
        case("cooler", "temperature", 10, 0.5 + 0.1 * n),
        case("hotter", "temperature", 6 + n, 1.7),
        case("the three most likely", "top_k", 9 + n, 1.0, 3),
        case("one token", "top_k", 7 + n, 1.3, 1),
        Case("three equal ones for two places", (ties, 1.0, 2, 1.0, 0.0, 0.9), tags=tags("top_k", "draw")),
        case("a nucleus", "top_p", 12 + n, 1.0, 0, 0.8),
        case("a nucleus of what is cooler", "top_p", 12 + n, 0.6, 0, 0.7),
        case("a nucleus of what is hotter", "top_p", 12 + n, 1.8, 0, 0.6),
        case("a small nucleus", "top_p", 10, 1.0, 0, 0.05 + 0.01 * n),
        Case("a nucleus of one sure token", (sure, 1.0, 0, 0.9, 0.0, uniform()), tags=tags("top_p", "draw")),
        case("no less than a fifth of the best", "min_p", 14 + n, 1.0, 0, 1.0, 0.2),
        case("min-p of what is hotter", "min_p", 14 + n, 1.6, 0, 1.0, 0.1),
        case("a nucleus of the five most likely", "all", 12 + n, 1.0, 5, 0.75, spread=1.0),
        case("all at once", "all", 15 + n, 1.2, 8, 0.9, 0.05),
        Case("greedy", (2 * torch.randn(9 + n, generator=g), 0.0, 0, 1.0, 0.0, 0.9), tags=tags("greedy", "draw")),
        Case("greedy with equal ones", (ties, 0.0, 5, 0.3, 0.5, 0.99), tags=tags("greedy", "draw")),
        Case("u of 0 and impossible tokens", (nothing, 1.0, 0, 1.0, 0.0, 0.0), tags=tags("zero", "draw")),
        Case("u of 0 and the first token cut", (torch.tensor([-1.0, 2.0, 1.0 + n, 0.5]), 1.0, 2, 1.0, 0.0, 0.0),
             tags=tags("zero", "draw")),
        *many,
    ]  # fmt: skip


SAMPLE_LAW = "law, order = (logits.double() / temperature).softmax(0).sort(descending=True, stable=True)"
SAMPLE_K = "law[top_k or len(law) :] = 0"
SAMPLE_NORM = "        law = law / law.sum()\n"
SAMPLE_P = "law[law.cumsum(0) - law >= top_p] = 0"
SAMPLE_MIN = "law[law < min_p * law[0]] = 0"
SAMPLE_BACK = "probabilities = torch.zeros_like(law).scatter(0, order, law / law.sum())"
SAMPLE_DRAW = "int((cumulative > u * cumulative[-1]).nonzero()[0])"
SAMPLE = Exercise(
    "sample",
    points=9,
    difficulty=2,
    cases=sample_cases,
    properties=(
        Property("temperature", hold.cuts_the_law, 1.5, tags=tags("temperature")),
        Property("top-k", hold.cuts_the_law, 1.5, tags=tags("top_k")),
        Property("top-p", hold.cuts_the_law, 2, tags=tags("top_p")),
        Property("min-p", hold.cuts_the_law, 1, tags=tags("min_p")),
        Property("all cuts, one after the other", hold.cuts_the_law, 1, tags=tags("all")),
        Property("greedy", hold.cuts_the_law, 0.5, tags=tags("greedy")),
        Property("draws the token that u points at", hold.draws, 1, tags=tags("many", "draw")),
        Property("never a token of probability 0", hold.draws, 0.5, tags=tags("zero")),
    ),
    mistakes=(
        mistake(
            "temperature-last",
            "the temperature comes after the cuts",
            "sampling-order",
            "You cut the law at temperature 1 and warm up what is left. Some engines do so on purpose; the contract "
            "says temperature first. A hotter law needs more tokens for the same share, so the nucleus is another one.",
            (SAMPLE_LAW, "law, order = logits.double().softmax(0).sort(descending=True, stable=True)"),
            (SAMPLE_BACK, "law = law ** (1 / temperature)\n"
             "        probabilities = torch.zeros_like(law).scatter(0, order, law / law.sum())"),
        ),
        mistake(
            "multiplied-by-temperature",
            "multiplied by the temperature",
            "sampling",
            "You multiply. A high temperature must make the law flatter, so logits are divided by it.",
            (SAMPLE_LAW, "law, order = (logits.double() * temperature).softmax(0).sort(descending=True, stable=True)"),
        ),
        mistake(
            "crossing-token-cut",
            "the token that reaches p is cut",
            "top-p",
            "You keep tokens while their sum is at most p. The one that gets the sum to p belongs to the nucleus; "
            "without it the most likely token itself is cut as soon as it is more likely than p, and nothing is left.",
            (SAMPLE_P, "law[law.cumsum(0) > top_p] = 0"),
        ),
        mistake(
            "one-token-too-many",
            "one token beyond the nucleus",
            "top-p",
            "You keep one token too many: the nucleus ends with the token that reaches p. Shifting the mask by one "
            "place is right when it is computed with the sum *including* each token, and one too many otherwise.",
            (SAMPLE_P, "law[(law.cumsum(0) - law).roll(1) * (torch.arange(len(law)) > 0) >= top_p] = 0"),
        ),
        mistake(
            "nucleus-of-the-whole",
            "the nucleus is not that of what top-k left",
            "sampling-order",
            "You do not renormalize between top-k and top-p. p is a share of what the step before left; of the whole "
            "vocabulary's probability the k tokens may never reach it.",
            (SAMPLE_NORM, ""),
        ),
        mistake(
            "absolute-min-p",
            "min-p as an absolute probability",
            "min-p",
            "You cut what is below min_p. The point of min-p is that it scales with the best token: strict when the "
            "model is sure, generous when it is not. Where no token reaches min_p, yours cuts everything.",
            (SAMPLE_MIN, "law[law < min_p] = 0"),
        ),
        mistake(
            "not-renormalized",
            "what is left does not sum to 1",
            "sampling",
            "You do not divide by the sum after the cuts. The probabilities of the tokens that are left must sum to 1.",
            (SAMPLE_BACK, "probabilities = torch.zeros_like(law).scatter(0, order, law)"),
        ),
        mistake(
            "order-of-likelihood",
            "the tokens stay sorted",
            "sampling",
            "Your probabilities are in the order of likelihood. Index 0 is then the most likely token, not token 0 of "
            "the vocabulary: sorting has to be undone.",
            (SAMPLE_BACK, "probabilities = law / law.sum()"),
        ),
        mistake(
            "all-equal-ones-kept",
            "more than k tokens are kept",
            "sampling",
            "You keep every token that is as likely as the k-th. Where several are equal these are more than k; the "
            "contract keeps exactly k.",
            (SAMPLE_K, "law[law < law[(top_k or len(law)) - 1]] = 0"),
        ),
        mistake(
            "temperature-zero-divides",
            "division by a temperature of 0",
            "sampling",
            "You divide by 0: the logits become infinite, and the law NaN. Temperature 0 is a convention for greedy.",
            ("if temperature == 0:", "if False:"),
        ),
        mistake(
            "impossible-token-drawn",
            ">= where > is meant",
            "sampling",
            "You take the first token at which the sum reaches u. With u = 0 that is token 0, even when its "
            "probability is 0. Random numbers of 0 do occur, once in 16 million in float32.",
            (SAMPLE_DRAW, "int((cumulative >= u * cumulative[-1]).nonzero()[0])"),
        ),
        mistake(
            "own-dice",
            "the engine rolls its own dice",
            "sampling",
            "You draw with torch's generator instead of u. The law may be right, but the same call gives other tokens, "
            "and nobody can test it or reproduce an answer.",
            (SAMPLE_DRAW, "int(torch.multinomial(probabilities.nan_to_num(1.0), 1))"),
        ),
        mistake(
            "always-the-best",
            "always the most likely token",
            "sampling",
            "You return the most likely token whatever u is. That is greedy decoding.",
            (SAMPLE_DRAW, "int(probabilities.argmax())"),
        ),
    ),
    alternatives=(
        Alternative(
            "masks on the logits, as in transformers",
            "def sample(logits, temperature, top_k, top_p, min_p, u):\n"
            "    z = logits.to(torch.float64)\n"
            "    if temperature == 0:\n"
            "        best = int(torch.argmax(z))\n"
            "        p = torch.zeros_like(z)\n"
            "        p[best] = 1.0\n"
            "        return {'probabilities': p, 'token': best}\n"
            "    z = z / temperature\n"
            "    if top_k > 0:\n"
            "        rank = torch.empty(len(z), dtype=torch.long)\n"
            "        rank[torch.argsort(-z, stable=True)] = torch.arange(len(z))\n"
            "        z = torch.where(rank < top_k, z, -math.inf)\n"
            "    if top_p < 1:\n"
            "        rising, at = torch.sort(z.softmax(0), stable=True)\n"
            "        drop = rising.cumsum(0) <= 1 - top_p\n"
            "        drop[-1] = False\n"
            "        z = z.masked_fill(torch.zeros(len(z), dtype=torch.bool).scatter(0, at, drop), -math.inf)\n"
            "    p = z.softmax(0)\n"
            "    p = torch.where(p < min_p * p.max(), 0.0, p)\n"
            "    p = p / p.sum()\n"
            "    token = int(torch.searchsorted(p.cumsum(0), torch.tensor(u, dtype=torch.float64), right=True))\n"
            "    return {'probabilities': p, 'token': token}\n",
        ),
    ),
)

# 8. stream


def stream_cases(seed: int, visible: bool) -> list[Case]:
    g, n = generator(seed, visible, "stream"), 0 if visible else 1

    def cut(text: str, longest: int) -> list[str]:
        """A text in pieces of random length, up to `longest` characters."""
        pieces = []
        while text:
            size = 1 + int(torch.randint(longest, (1,), generator=g))
            pieces.append(text[:size])
            text = text[size:]
        return pieces

    end, user = ("###", "User:") if visible else ("<<>>", "Q: ")
    letters = "".join("ab"[int(i)] for i in torch.randint(2, (24 + n,), generator=g))
    return [
        Case("no stop string", (["It ", "is", " so", "." * (1 + n)], []), tags=tags("plain")),
        Case("none of them comes", (["one ", "two ", "three"], [end, "STOP"]), tags=tags("plain")),
        Case("no piece at all", ([], [end]), tags=tags("plain")),
        Case("a stop string is a piece", (["Paris", ".", end, " more"], [end]), tags=tags("plain")),
        Case("in the middle of a piece", (["Paris", f".{end} and", " more"], ["STOP", end]), tags=tags("plain")),
        Case("across two pieces", (["Yes. ", end[:1], end[1:], "!"], [end]), tags=tags("across")),
        Case("across three pieces, with text around", ([f"a{end[0]}", end[1], f"{end[2:]}b", "c"], [end]),
             tags=tags("across")),
        Case("letter by letter", (list(f"The answer.\n{user} no"), [f"\n{user}"]), tags=tags("across")),
        Case("a false start", (["x", end[:-1], "y" * (1 + n), end[:1], "z"], [end]), tags=tags("held")),
        Case("ends with a false start", (["so ", end[:-1]], [end]), tags=tags("held")),
        Case("a start within a start", (["aab" * n + "aa", "a", "b", "c"], ["aab"]), tags=tags("held")),
        Case("the longer start counts", (["x1212", "3" * n, "13", "4"], ["12134", "1214"]), tags=tags("held")),
        Case("one long and one short", (["ab", "c", "d" * (n + 1)], ["abcde-long-enough", "zz"]), tags=tags("held")),
        Case("two, the first in the text counts", ([f"1 {user} 2 {end}", "3"], [end, user]), tags=tags("several")),
        Case("two that overlap", (["xy", "ab", "bc" * (1 + n)], ["bbcc", "abbc"]), tags=tags("several")),
        Case("three in one piece", (["so", f" on {user} {end} STOP"], [end, "STOP", user]), tags=tags("several")),
        Case("many letters", (cut(letters, 3), ["abba", "bbb"]), tags=tags("several")),
        Case("more letters", (cut(letters[::-1], 4), ["aabab", "babba"]), tags=tags("several")),
    ]  # fmt: skip


STREAM_FOUND = "found = [held.index(stop) for stop in stops if stop in held]"
STREAM_END = 'return {"shown": [*shown, held[: min(found)]], "stopped": True}'
STREAM_KEPT = "kept = max((n for stop in stops for n in range(len(stop)) if held.endswith(stop[:n])), default=0)"
STREAM_REST = 'return {"shown": [*shown, held], "stopped": False}'
STREAM = Exercise(
    "stream",
    points=6,
    difficulty=2,
    cases=stream_cases,
    properties=(
        Property("shows text, and stops", hold.shows, 1.5, tags=tags("plain")),
        Property("stop strings across tokens", hold.shows, 2, tags=tags("across")),
        Property("holds back what may become one, and no more", hold.shows, 1.5, tags=tags("held")),
        Property("several stop strings", hold.shows, 1, tags=tags("several")),
    ),
    mistakes=(
        mistake(
            "within-a-piece",
            "only within a piece",
            "stop-strings",
            "You look for stop strings in each piece alone. Tokens cut text where they like; a stop string that comes "
            "in two pieces runs through, and the model goes on with both parts of the conversation.",
            (STREAM_KEPT, "kept = 0"),
        ),
        mistake(
            "shown-too-early",
            "its beginning has been shown already",
            "stop-strings",
            "You keep all text to search in, and show each piece as it comes. The stop string is found, but its "
            "beginning is on the screen by then, and cannot be taken back.",
            (
                STREAM_FOUND,
                'text = "".join(pieces[: len(shown) + 1])\n'
                "        found = [max(0, text.index(stop) - len(text) + len(piece)) for stop in stops if stop in text]",
            ),
            (STREAM_KEPT, "kept = 0"),
        ),
        mistake(
            "stop-string-shown",
            "the stop string is shown",
            "stop-strings",
            "You show the stop string too. It ends the text and is no part of it.",
            (STREAM_END, 'return {"shown": [*shown, held[: min(found) + max(map(len, stops))]], "stopped": True}'),
        ),
        mistake(
            "rest-lost",
            "what was held at the end is lost",
            "stop-strings",
            "The text ends while you hold something back, and you never show it. An answer that ends with what might "
            "have become a stop string loses its last characters.",
            (STREAM_REST, 'return {"shown": [*shown, ""], "stopped": False}'),
        ),
        mistake(
            "always-the-longest",
            "always as much as the longest stop string",
            "stop-strings",
            "You hold back as many characters as the longest stop string has, whatever they are. Nothing wrong is "
            "shown, but the reader always sees the text late.",
            (STREAM_KEPT, "kept = min(len(held), max((len(stop) - 1 for stop in stops), default=0))"),
        ),
        mistake(
            "shortest-start",
            "the shortest start is held",
            "stop-strings",
            'You hold the shortest beginning that fits. Behind "aa" with the stop string "aab" that is one "a"; then '
            '"ab" comes and the stop string is missed.',
            (
                STREAM_KEPT,
                "kept = min((n for stop in stops for n in range(1, len(stop)) if held.endswith(stop[:n])), default=0)",
            ),
        ),
        mistake(
            "one-for-all",
            "only starts of the first stop string are held",
            "stop-strings",
            "You hold back what may become the first stop string. The others can begin at the end of a piece as well.",
            (
                STREAM_KEPT,
                "kept = max((n for stop in stops[:1] for n in range(len(stop)) if held.endswith(stop[:n])), default=0)",
            ),
        ),
        mistake(
            "in-the-order-of-the-list",
            "the first of the list wins",
            "stop-strings",
            "You stop at the stop string that comes first in the list. What counts is which begins first in the text: "
            "everything behind it should never have been shown.",
            (STREAM_END, 'return {"shown": [*shown, held[: found[0]]], "stopped": True}'),
        ),
        mistake(
            "last-occurrence",
            "the last occurrence",
            "stop-strings",
            "You cut at the last place where a stop string occurs. The text ended at the first.",
            (STREAM_END, 'return {"shown": [*shown, held[: max(found)]], "stopped": True}'),
        ),
        mistake(
            "everything-held",
            "nothing is shown until the end",
            "stop-strings",
            "You collect the whole text and show it at the end. It is right, and it is no streaming: the time to the "
            "first word is the time to the last.",
            (STREAM_KEPT, "kept = len(held)"),
        ),
    ),
    alternatives=(
        Alternative(
            "scanning by places",
            "def stream(pieces, stops):\n"
            "    out, text, done = [], '', 0\n"
            "    for piece in pieces:\n"
            "        text += piece\n"
            "        hits = sorted(i for i in (text.find(s, done) for s in stops) if i >= 0)\n"
            "        if hits:\n"
            "            out.append(text[done : hits[0]])\n"
            "            return {'shown': out, 'stopped': True}\n"
            "        safe = done\n"
            "        while safe < len(text) and not any(s.startswith(text[safe:]) for s in stops):\n"
            "            safe += 1\n"
            "        out.append(text[done:safe])\n"
            "        done = safe\n"
            "    out.append(text[done:])\n"
            "    return {'shown': out, 'stopped': False}\n",
        ),
    ),
)

# 9. quantize_kv


def _clear_of_ties(x: torch.Tensor, bits: int, by: str, block: int) -> bool:
    """No number within 1e-3 steps of the middle between two codes, unless its group is flat."""
    size, axis = (1, 2) if by == "token" else (block, 1)
    for start in range(0, x.shape[1], size):
        group = x[:, start : start + size].double()
        low = group.amin(axis, keepdim=True).half().double()
        exact = (group.amax(axis, keepdim=True) - low) / (2**bits - 1)
        scale = exact.half().double()
        steps = (group - low) / torch.where(scale == 0, 1.0, scale)
        if ((steps - steps.floor() - 0.5).abs() < 1e-3).any():
            return False
    return True


def kv_cases(seed: int, visible: bool) -> list[Case]:
    g, n = generator(seed, visible, "quantize_kv"), 0 if visible else 1

    def case(name: str, kind: str, shape: tuple[int, ...], bits: int, by: str, block: int = 4,
             shift: float = 0.0, spread: float = 1.0) -> Case:  # fmt: skip
        loud = 1 + 4 * (torch.arange(shape[2]) % 3 == 1)  # some channels are larger than others
        heads = torch.tensor([1.0, 5.0, 0.3, 2.0])[: shape[0], None, None]

        def draw() -> torch.Tensor:
            return shift + spread * heads * loud * torch.randn(shape, generator=g)

        x = redrawn(draw, lambda x: _clear_of_ties(x, bits, by, block))
        return Case(name, (x, bits, by, block), tags=tags(kind))

    flat = torch.randn(2, 6, 3, generator=g)
    flat[0, :, 1] = 0.75 + n  # a channel that never changes
    flat[1, 2] = -1.5  # a token whose numbers are all equal
    flat = redrawn(lambda: flat + torch.randint(1, 9, (1, 1, 1), generator=g),
                   lambda x: _clear_of_ties(x, 4, "channel", 3) and _clear_of_ties(x, 4, "token", 3))  # fmt: skip
    return [
        case("by token, 4 bits", "token", (2, 5 + n, 6), 4, "token"),
        case("by token, 8 bits", "token", (1, 4, 8 + n), 8, "token"),
        case("as many tokens as channels, by token", "token", (3, 5, 5), 3, "token"),
        case("one token", "token", (2, 1, 7 + n), 4, "token", 8),
        case("by channel, 4 bits", "channel", (2, 8, 5 + n), 4, "channel"),
        case("by channel, 2 bits", "channel", (2, 12, 3 + n), 2, "channel", 6),
        case("as many tokens as channels, by channel", "channel", (2, 6, 6), 3, "channel", 3),
        case("one block", "channel", (1, 7 + n, 4), 4, "channel", 7 + n),
        case("the last block is shorter", "ragged", (2, 10 + n, 3), 4, "channel", 4, shift=6.0),
        case("fewer tokens than a block", "ragged", (2, 3 + n, 4), 3, "channel", 8, shift=-5.0),
        case("blocks of one token", "ragged", (1, 4, 3 + n), 4, "channel", 1),
        case("far from zero, 8 bits", "far", (1, 6, 4), 8, "channel", 6, shift=40.0 + n, spread=0.02),
        case("far from zero, by token", "far", (2, 4 + n, 5), 8, "token", shift=-35.0, spread=0.02),
        Case("a channel that never changes", (flat, 4, "channel", 3), tags=tags("flat")),
        Case("a token of equal numbers", (flat, 4, "token", 3), tags=tags("flat")),
    ]


KV_SIZE = 'size, axis = (1, 3) if by == "token" else (block, 2)'
KV_FILLED = "filled = torch.cat([x, x[:, -1:].expand(-1, blocks * size - tokens, -1)], 1)"
KV_LOW = "low = groups.amin(axis, keepdim=True).half()"
KV_SCALE = "scale = ((groups.amax(axis, keepdim=True) - low) / (2**bits - 1)).half()"
KV_FLAT = "    scale[scale == 0] = 1\n"
KV_CODES = "codes = ((groups - low) / scale.float()).round().clamp(0, 2**bits - 1).byte()"
QUANTIZE = Exercise(
    "quantize_kv",
    points=9,
    difficulty=3,
    cases=kv_cases,
    properties=(
        Property("groups by token", hold.rounds_in_groups, 2, tags=tags("token")),
        Property("groups by channel", hold.rounds_in_groups, 2.5, tags=tags("channel")),
        Property("blocks that are not full", hold.rounds_in_groups, 2, tags=tags("ragged")),
        Property("numbers far from zero", hold.rounds_in_groups, 1.5, tags=tags("far")),
        Property("groups without a range", hold.rounds_in_groups, 1, tags=tags("flat")),
    ),
    mistakes=(
        mistake(
            "axes-exchanged",
            "token and channel are exchanged",
            "kv-quantization",
            "By token means that one token's channels share a scale, so the extremes are taken *over the channels*. "
            "You take them over the tokens. For keys this is the whole point: their loud channels must not share a "
            "scale with quiet ones.",
            (KV_SIZE, 'size, axis = (1, 2) if by == "token" else (block, 3)'),
        ),
        mistake(
            "heads-share-a-scale",
            "all heads share a scale",
            "kv-quantization",
            "You take the extremes over the heads too. Heads differ in size by far; each has its own groups.",
            (KV_LOW, "low = groups.amin((0, axis), keepdim=True).expand(heads, -1, -1, -1).half()"),
            (KV_SCALE, "scale = ((groups.amax((0, axis), keepdim=True) - low) / (2**bits - 1)).half()"),
        ),
        mistake(
            "one-scale-for-the-layer",
            "one scale for everything",
            "kv-quantization",
            "You take one scale for the whole layer. One loud channel sets the step of all.",
            (KV_LOW, "low = groups.amin().half().expand(*groups.amin(axis, keepdim=True).shape).clone()"),
            (KV_SCALE, "scale = ((groups.amax() - low) / (2**bits - 1)).half()"),
        ),
        mistake(
            "one-block-for-the-text",
            "a channel has one scale for the whole text",
            "kv-quantization",
            "You use one group for all tokens of a channel. With every token that arrives the range of the whole text "
            "could change; blocks are closed once and never touched again.",
            (KV_SIZE, 'size, axis = (1, 3) if by == "token" else (tokens, 2)'),
        ),
        mistake(
            "filled-with-zeros",
            "a short block is filled up with zeros",
            "kv-quantization",
            "You fill the last block with zeros, and they count in its range. Where a channel is far from zero the "
            "step becomes many times too large.",
            (KV_FILLED, "filled = F.pad(x, (0, 0, 0, blocks * size - tokens))"),
        ),
        mistake(
            "symmetric-range",
            "a symmetric range",
            "kv-quantization",
            "You use a range from -max to max. Channels of keys are often all on one side of zero, and half of your "
            "codes are never used.",
            (KV_LOW, "low = -groups.abs().amax(axis, keepdim=True).half()"),
            (KV_SCALE, "scale = (-2 * low.float() / (2**bits - 1)).half()"),
        ),
        mistake(
            "a-step-too-many",
            "2**bits steps",
            "kv-quantization",
            "You divide the range into 2**bits steps. That many codes have one step less between them: the largest "
            "number would get the code 2**bits, which does not exist.",
            (KV_SCALE, "scale = ((groups.amax(axis, keepdim=True) - low) / 2**bits).half()"),
        ),
        mistake(
            "codes-of-another-scale",
            "codes made with the unrounded scale",
            "kv-quantization",
            "You round with the exact scale and store its float16 neighbor. Whoever reads multiplies with the stored "
            "one, so the codes must be made with it.",
            (KV_CODES, "exact = (groups.amax(axis, keepdim=True) - low) / (2**bits - 1)\n"
             "    exact[exact == 0] = 1\n"
             "    codes = ((groups - low) / exact).round().clamp(0, 2**bits - 1).byte()"),
        ),
        mistake(
            "codes-of-another-low",
            "codes made with the unrounded low",
            "kv-quantization",
            "You measure from the exact smallest number and store its float16 neighbor. Far from zero float16 is "
            "coarse: at 40 its steps are 0.03, and every number of the group comes back shifted by that much.",
            (KV_CODES, "codes = ((groups - groups.amin(axis, keepdim=True)) / scale.float()).round()"
             ".clamp(0, 2**bits - 1).byte()"),
        ),
        mistake(
            "not-clamped",
            "codes are not clamped",
            "kv-quantization",
            "You do not clamp. low was rounded to float16 and may lie above the smallest number: the code is then "
            "negative, and a byte makes 255 of -1.",
            (KV_CODES, "codes = ((groups - low) / scale.float()).round().to(torch.int64).byte()"),
        ),
        mistake(
            "cut-off",
            "cut off instead of rounded",
            "kv-quantization",
            "You cut the fraction off: all numbers come back too small, by half a step on average.",
            (KV_CODES, "codes = ((groups - low) / scale.float()).floor().clamp(0, 2**bits - 1).byte()"),
        ),
        mistake(
            "flat-groups",
            "a group without a range divides by 0",
            "kv-quantization",
            "A group of equal numbers has the scale 0, and 0 / 0 is NaN. Let it be 1; the codes are 0 then.",
            (KV_FLAT, ""),
        ),
    ),
    alternatives=(
        Alternative(
            "block by block",
            "def quantize_kv(x, bits, by, block):\n"
            "    top = 2**bits - 1\n"
            "    step = 1 if by == 'token' else block\n"
            "    dim = 2 if by == 'token' else 1\n"
            "    codes, scales, lows = [], [], []\n"
            "    for part in x.split(step, dim=1):\n"
            "        low = part.min(dim=dim, keepdim=True).values.to(torch.float16)\n"
            "        high = part.max(dim=dim, keepdim=True).values\n"
            "        scale = ((high - low.float()) / top).to(torch.float16)\n"
            "        scale = torch.where(scale == 0, torch.ones_like(scale), scale)\n"
            "        code = torch.round((part - low.float()) / scale.float())\n"
            "        codes.append(torch.clamp(code, 0, top).to(torch.uint8))\n"
            "        scales.append(scale)\n"
            "        lows.append(low)\n"
            "    return {'codes': torch.cat(codes, 1), 'scale': torch.cat(scales, 1), 'low': torch.cat(lows, 1)}\n",
        ),
    ),
)

# 10. latencies


def latency_cases(seed: int, visible: bool) -> list[Case]:
    g, n = generator(seed, visible, "latencies"), 0 if visible else 1

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=g, dtype=torch.float64))

    def request(arrived: float, wait: float, tokens: int) -> dict[str, Any]:
        started = arrived + wait
        times = [started + uniform(0.1, 0.6)]
        for _ in range(tokens - 1):
            times.append(times[-1] + uniform(0.02, 0.2))
        return {"arrived": arrived, "started": started, "tokens": times}

    def requests(count: int, most: int, wait: float = 1.5) -> list[dict[str, Any]]:
        return [request(10 + 0.4 * i, uniform(0, wait), 2 + (i * 7 + n) % most) for i in range(count)]

    ten = requests(10 + 10 * n, 6)
    edge = [{"arrived": 2.0, "started": 2.25, "tokens": [2.5, 2.75, 3.0 + n]}]
    edge.append({"arrived": 0.0, "started": 1.0, "tokens": [1.0]})
    stalled = request(3.0, 0.5, 4)
    stalled["tokens"] = [*stalled["tokens"], stalled["tokens"][-1] + 2.0 + n]
    return [
        Case("one request", ([request(5.0 + n, 0.25, 4)], 1.0, 0.1), tags=tags("plain")),
        Case("requests in line", (requests(4 + n, 5), 1.0, 0.11), tags=tags("plain")),
        Case("requests that did not come in order", (requests(5, 4)[::-1], 0.8, 0.12), tags=tags("plain")),
        Case("a token that came late", ([stalled, request(2.0, 0.1, 3)], 1.0, 0.2), tags=tags("plain")),
        Case("answers of one token", ([request(1.0, 0.5, 1), request(1.5, 0.2, 1 + n)], 0.8, 0.1), tags=tags("single")),
        Case("long and short answers", ([request(0.0, 0.1, 20), request(0.5, 0.3, 1), request(0.7, 0.2, 3)], 0.9, 0.11),
             tags=tags("single", "plain")),
        Case("ten requests" if visible else "twenty requests", (ten, 1.2, 0.12), tags=tags("tail")),
        Case("eleven requests", (requests(11 + 2 * n, 4, 3.0), 2.0, 0.11), tags=tags("tail")),
        Case("nine requests", (requests(9, 3, 3.0), 2.0, 0.11), tags=tags("tail")),
        Case("exactly the limits", (edge, 0.5, 0.25 + n / 2), tags=tags("edge")),
        Case("strict limits", (requests(6 + n, 4), 0.55, 0.09), tags=tags("edge")),
    ]  # fmt: skip


LAT_TTFT = 'ttft = [r["tokens"][0] - r["arrived"] for r in requests]'
LAT_TPOT = "(t[-1] - t[0]) / (len(t) - 1) if len(t) > 1 else None"
LAT_SPAN = 'span = max(r["tokens"][-1] for r in requests) - min(r["arrived"] for r in requests)'
LAT_P90 = "sorted(ttft)[(9 * len(ttft) + 9) // 10 - 1]"
LAT_COUNT = 'sum(len(r["tokens"]) for r in requests) / span'
LAT_WITHIN = "sum(a <= first_limit and (b is None or b <= each_limit) for a, b in zip(ttft, tpot, strict=True))"
LATENCIES = Exercise(
    "latencies",
    points=6,
    difficulty=1,
    cases=latency_cases,
    properties=(
        Property("time to the first token", partial(hold.times, key="ttft"), 1.5),
        Property("time for each token after it", partial(hold.times, key="tpot"), 1.5),
        Property("answers of one token", partial(hold.times, key="tpot"), 0.5, tags=tags("single")),
        Property("the ninetieth percentile", partial(hold.times, key="ttft_p90"), 1),
        Property("throughput", partial(hold.times, key="throughput"), 1),
        Property("requests within both limits", partial(hold.times, key="within"), 0.5, tags=tags("edge", "tail")),
    ),
    mistakes=(
        mistake(
            "waiting-not-counted",
            "the time in line is not counted",
            "latency",
            "You start the clock when the engine begins to read. The reader waits from the moment the question was "
            "sent; a server that hides its queue looks best when it is overloaded.",
            (LAT_TTFT, 'ttft = [r["tokens"][0] - r["started"] for r in requests]'),
        ),
        mistake(
            "reading-not-counted",
            "only the waiting is counted",
            "latency",
            "You stop the clock when the engine begins to read the prompt. Nobody has seen a token by then.",
            (LAT_TTFT, 'ttft = [r["started"] - r["arrived"] for r in requests]'),
        ),
        mistake(
            "divided-by-all-tokens",
            "divided by all tokens",
            "latency",
            "You divide by the number of tokens. Between n tokens there are n - 1 steps; with two tokens your figure "
            "is half of the truth.",
            (LAT_TPOT, "(t[-1] - t[0]) / len(t) if len(t) > 1 else None"),
        ),
        mistake(
            "first-token-in-tpot",
            "the first token counts as any other",
            "latency",
            "You divide the whole time by all tokens. Prefill and waiting are in it, so short answers look slow and "
            "long ones fast, and two effects with different causes become one number.",
            ("for t in (r[\"tokens\"] for r in requests)]",
             "for t in ([r[\"arrived\"], *r[\"tokens\"]] for r in requests)]"),
        ),
        mistake(
            "median-step",
            "the median step",
            "latency",
            "You take the median time between tokens. It hides the one step that stalled for seconds; the mean is "
            "what the contract asks for, and what the total adds up to.",
            (LAT_TPOT, "sorted(b - a for a, b in zip(t, t[1:]))[(len(t) - 1) // 2] if len(t) > 1 else None"),
        ),
        mistake(
            "single-token-zero",
            "an answer of one token has a step of 0",
            "latency",
            "You report 0 seconds for an answer of one token. It has no step at all; a 0 in the average makes a server "
            "look faster the shorter its answers are.",
            (LAT_TPOT, "(t[-1] - t[0]) / max(1, len(t) - 1)"),
        ),
        mistake(
            "sum-of-durations",
            "the durations are added up",
            "latency",
            "You divide by the sum of the requests' times. They overlap: eight texts in one batch take as long as one. "
            "Throughput is tokens over the time that passed.",
            (LAT_SPAN, 'span = sum(r["tokens"][-1] - r["arrived"] for r in requests)'),
        ),
        mistake(
            "from-the-first-start",
            "throughput from the first start",
            "latency",
            "You measure from when the engine first began, or count until the last request in the list ended. Take the "
            "first arrival and the last token of all.",
            (LAT_SPAN, 'span = requests[-1]["tokens"][-1] - requests[0]["arrived"]'),
        ),
        mistake(
            "requests-not-tokens",
            "requests per second",
            "latency",
            "You count requests. Answers differ in length; the engine's work is tokens.",
            (LAT_COUNT, "len(requests) / span"),
        ),
        mistake(
            "percentile-off-by-one",
            "one place too far",
            "latency",
            "You take the element at index 0.9 n. In a list that counts from 0 that is one too far: of ten requests "
            "nine do not exceed the ninth, index 8.",
            (LAT_P90, "sorted(ttft)[min(9 * len(ttft) // 10, len(ttft) - 1)]"),
        ),
        mistake(
            "mean-for-percentile",
            "the mean in place of the percentile",
            "latency",
            "You report the mean. Waiting times have a long tail, and the tail is what people complain about.",
            (LAT_P90, "sum(ttft) / len(ttft)"),
        ),
        mistake(
            "limits-exclusive",
            "exactly the limit counts as missed",
            "latency",
            "You compare with <. The limits are what is still good enough.",
            (LAT_WITHIN,
             "sum(a < first_limit and (b is None or b < each_limit) for a, b in zip(ttft, tpot, strict=True))"),
        ),
        mistake(
            "either-limit",
            "one of the two limits is enough",
            "latency",
            "You count requests that keep either limit. A reader wants the answer to begin soon *and* to go on.",
            (LAT_WITHIN,
             "sum(a <= first_limit or (b is None or b <= each_limit) for a, b in zip(ttft, tpot, strict=True))"),
        ),
    ),
    alternatives=(
        Alternative(
            "a loop, and the percentile by counting",
            "def latencies(requests, first_limit, each_limit):\n"
            "    ttft, tpot, good, total = [], [], 0, 0\n"
            "    for r in requests:\n"
            "        times = r['tokens']\n"
            "        wait = times[0] - r['arrived']\n"
            "        steps = [after - before for before, after in zip(times[:-1], times[1:])]\n"
            "        each = sum(steps) / len(steps) if steps else None\n"
            "        ttft.append(wait)\n"
            "        tpot.append((times[-1] - times[0]) / len(steps) if steps else None)\n"
            "        good += int(wait <= first_limit and (tpot[-1] is None or tpot[-1] <= each_limit))\n"
            "        total += len(times)\n"
            "    p90 = min(x for x in ttft if 10 * sum(y <= x for y in ttft) >= 9 * len(ttft))\n"
            "    first = min(r['arrived'] for r in requests)\n"
            "    last = max(max(r['tokens']) for r in requests)\n"
            "    return {'ttft': ttft, 'tpot': tpot, 'ttft_p90': p90, 'throughput': total / (last - first),\n"
            "            'within': good}\n",
        ),
    ),
)

# 11. verify


def verify_cases(seed: int, visible: bool) -> list[Case]:
    g, n = generator(seed, visible, "verify"), 0 if visible else 1

    def laws(count: int, words: int, spread: float = 1.0) -> torch.Tensor:
        return (spread * doubles(g, count, words)).softmax(-1)

    def uniform() -> float:
        return float(torch.rand(1, generator=g, dtype=torch.float64))

    def case(name: str, kind: str, length: int, words: int, accepted: int, near: float = 0.6) -> Case:
        """The first `accepted` drafts pass, with random numbers clear of the threshold, and the next does not."""
        target = laws(length + 1, words)
        draft = (1 - near) * laws(length, words) + near * target[:length]
        tokens, accept = [], []
        for i in range(length):
            ratio = target[i] / draft[i]
            below = i == accepted  # this one must be refusable: the draft likes it more than the target does
            token = int(ratio.argmin() if below else torch.multinomial(draft[i], 1, generator=g))
            share = float(ratio[token])
            tokens.append(token)
            accept.append(share + (1 - share) * (0.2 + 0.7 * uniform()) if below else min(1.0, share) * 0.9 * uniform())
        return Case(name, (target, draft, tokens, accept, uniform()), tags=tags(kind, "all"))

    sure = torch.eye(5, dtype=torch.float64)[torch.tensor([1, 3, 0, 2])]
    apart = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.25, 0.25, 0.25, 0.25]]).double()
    far = torch.tensor([[0.5, 0.5, 0.0, 0.0]]).double()
    equal = laws(3, 6)
    later = [case(f"refused at place {i}", "refused", 4 + n, 5 + n, i - 1) for i in (2, 3)]
    return [
        case("all accepted", "accepted", 3 + n, 6, 9),
        case("all of one", "accepted", 1, 4 + n, 9),
        case("the first is refused", "refused", 3, 6 + n, 0),
        case("the last is refused", "refused", 3, 6, 2),
        *later,
        case("a poor draft", "refused", 4, 7 + n, 1, near=0.0),
        Case("nothing was drafted", (laws(1, 5 + n), torch.zeros(0, 5 + n, dtype=torch.float64), [], [], uniform()),
             tags=tags("edge", "all")),
        Case("the draft is the target", (equal, equal[:2].clone(), [4, 1], [0.999, 0.9999], uniform()),
             tags=tags("edge", "all")),
        Case("nothing in common", (apart, far, [n], [0.0], uniform()), tags=tags("edge", "all")),
        Case("greedy, a draft that agrees", (sure, sure[:3].clone(), [1, 3, 0], [0.9, 0.0, 0.5], 0.3 + 0.1 * n),
             tags=tags("edge", "all")),
        Case("greedy, a draft that does not", (sure, sure.roll(1, 1)[:3], [2, 4, 1], [0.0, 0.4, 0.5], 0.3 + 0.1 * n),
             tags=tags("edge", "all")),
    ]  # fmt: skip


VERIFY_TEST = "if accept[i] * draft[i, token] >= target[i, token]:"
VERIFY_REST = "law = (target[i] - draft[i]).clamp(min=0)"
VERIFY_NORM = "            law = law / law.sum()\n"
VERIFY_BREAK = "            break\n"
VERIFY_FREE = "accepted, law = 0, target[-1]"
VERIFY_DRAW = "int((cumulative > choose * cumulative[-1]).nonzero()[0])"
VERIFY = Exercise(
    "verify",
    points=9,
    difficulty=3,
    cases=verify_cases,
    properties=(
        Property("all are accepted, and one more is drawn", hold.chooses, 2, tags=tags("accepted")),
        Property("accepts with the right probability", hold.accepts_as_many, 2, tags=tags("refused")),
        Property("draws from what the draft left over", hold.chooses, 3, tags=tags("refused")),
        Property("sure, equal and disjoint laws", hold.chooses, 1, tags=tags("edge")),
        Property("no law loses or gains probability", hold.has_the_law, 1, tags=tags("all")),
    ),
    mistakes=(
        mistake(
            "drawn-from-the-target",
            "a refused token is replaced by one of the target's law",
            "speculation-exact",
            "After a refusal you draw from the target's law. It sounds right, and it is the classic mistake: tokens "
            "that the draft likes have had their chance in the acceptance already, and get a second one. Only what "
            "the draft left over, max(p - q, 0), makes the sum come out as p.",
            (VERIFY_REST, "law = target[i].clone()"),
        ),
        mistake(
            "not-renormalized",
            "the rest does not sum to 1",
            "speculation-exact",
            "You do not divide by the sum. max(p - q, 0) sums to the probability of a refusal, not to 1.",
            (VERIFY_NORM, ""),
        ),
        mistake(
            "absolute-difference",
            "the absolute difference",
            "speculation-exact",
            "You take |p - q|. Where the draft gives a token more than the target does, nothing is left over for it: "
            "the difference is negative there, and counts as 0.",
            (VERIFY_REST, "law = (target[i] - draft[i]).abs()"),
        ),
        mistake(
            "difference-turned-round",
            "q - p where p - q is meant",
            "speculation-exact",
            "You draw from what the draft has too much of. It is the target that still lacks something.",
            (VERIFY_REST, "law = (draft[i] - target[i]).clamp(min=0)"),
        ),
        mistake(
            "ratio-turned-round",
            "the ratio is upside down",
            "speculation-exact",
            "You accept with q / p. A token that the target likes more than the draft does must always pass: the "
            "ratio is p / q.",
            (VERIFY_TEST, "if accept[i] * target[i, token] >= draft[i, token]:"),
        ),
        mistake(
            "probability-of-the-target",
            "accepted with the target's probability",
            "speculation-exact",
            "You accept with probability p. The token came with probability q in the first place; accepted with p it "
            "would come out with p q.",
            (VERIFY_TEST, "if accept[i] >= target[i, token]:"),
        ),
        mistake(
            "never-by-chance",
            "accepted only if the target likes it more",
            "speculation-exact",
            "You accept when p >= q and refuse otherwise. No random number is used, and tokens that the draft likes "
            "more come out too rarely.",
            (VERIFY_TEST, "if draft[i, token] > target[i, token]:"),
        ),
        mistake(
            "most-likely-only",
            "accepted only if it is the target's first choice",
            "speculation-exact",
            "You accept the target's most likely token only. That is right for greedy decoding; in sampling it "
            "changes the law.",
            (VERIFY_TEST, "if token != int(target[i].argmax()):"),
        ),
        mistake(
            "goes-on-after-a-refusal",
            "goes on after a refusal",
            "speculation",
            "You judge the tokens behind a refused one as well. They were drafted for a text that contains it, and the "
            "target's rows too; once one is refused, the rest is worthless.",
            (VERIFY_BREAK, "            continue\n"),
        ),
        mistake(
            "refused-token-kept",
            "the refused token is counted",
            "speculation",
            "You count the token at which you stopped as accepted. The text then has the refused token, and its "
            "replacement behind it.",
            (VERIFY_BREAK, "            accepted += 1\n            break\n"),
        ),
        mistake(
            "no-token-for-free",
            "the last row is not used",
            "speculation",
            "When all are accepted you draw from the row of the last drafted token. The target has computed one row "
            "more, the law behind all of them: a token for free.",
            (VERIFY_FREE, "accepted, law = 0, target[max(len(tokens) - 1, 0)]"),
        ),
        mistake(
            "next-row-after-a-refusal",
            "the row behind the refused token",
            "speculation",
            "After a refusal you use the target's row behind the refused token. That row is about a text with a token "
            "that was just thrown away.",
            (VERIFY_REST, "law = (target[i + 1] - draft[i]).clamp(min=0)"),
        ),
        mistake(
            "impossible-token-accepted",
            "> where >= is meant",
            "speculation-exact",
            "With a random number of 0 you accept a token to which the target gives probability 0. The comparison "
            "must be strict.",
            (VERIFY_TEST, "if accept[i] * draft[i, token] > target[i, token]:"),
        ),
    ),
    alternatives=(
        Alternative(
            "counting with a cumulative product",
            "def verify(target, draft, tokens, accept, choose):\n"
            "    n = len(tokens)\n"
            "    at = torch.arange(n)\n"
            "    t = torch.tensor(tokens, dtype=torch.long)\n"
            "    ratio = target[at, t] / draft[at, t]\n"
            "    passed = (torch.tensor(accept, dtype=torch.float64) < ratio).long()\n"
            "    count = int(passed.cumprod(0).sum())\n"
            "    if count == n:\n"
            "        law = target[n].clone()\n"
            "    else:\n"
            "        left = torch.relu(target[count] - draft[count])\n"
            "        law = left / left.sum()\n"
            "    at = torch.tensor(choose, dtype=torch.float64)\n"
            "    token = int(torch.searchsorted(law.cumsum(0), at, right=True))\n"
            "    return {'accepted': count, 'token': token, 'law': law}\n",
        ),
    ),
)

# 12. draft_length


def draft_cases(seed: int, visible: bool) -> list[Case]:
    g, n = generator(seed, visible, "draft_length"), 0 if visible else 1

    def costs(first: float, slope: float, count: int) -> list[float]:
        wobble = torch.rand(count, generator=g, dtype=torch.float64) * 0.05
        return [first * (1 + slope * i + float(w)) for i, w in enumerate(wobble)]

    return [
        Case("a good draft", (0.8 + 0.03 * n, 0.05, costs(1.0, 0.02, 8 + n)), tags=tags("plain")),
        Case("a fair draft", (0.6, 0.1 + 0.02 * n, costs(1.0, 0.05, 7)), tags=tags("plain")),
        Case("a poor draft", (0.3 - 0.05 * n, 0.1, costs(1.0, 0.04, 6)), tags=tags("plain")),
        Case("in milliseconds", (0.75, 4.0 + n, costs(60.0, 0.03, 9)), tags=tags("plain")),
        Case("a pass that grows", (0.7 + 0.04 * n, 0.0, costs(2.0, 0.3, 8)), tags=tags("plain")),
        Case("no choice", (0.5 + 0.1 * n, 0.2, [1.0]), tags=tags("edge")),
        Case("always right", (1.0, 0.1, costs(1.0, 0.1, 6 + n)), tags=tags("edge")),
        Case("never right", (0.0, 0.1 * n, costs(1.5, 0.02, 5)), tags=tags("edge")),
        Case("a draft as dear as the target", (0.9, 1.0 + 0.1 * n, costs(1.0, 0.05, 5)), tags=tags("edge")),
        Case("two equally good", (0.5, 0.5, [1.0 + n, 1.0 + n + 0.5 * n, 3.0 + n]), tags=tags("edge")),
    ]


DRAFT_TOKENS = "float(sum(alpha**i for i in range(n + 1)))"
DRAFT_SPEED = "expected * verify_cost[0] / (n * draft_cost + cost)"
DRAFT_BEST = "speedup.index(max(speedup))"
DRAFT = Exercise(
    "draft_length",
    points=5,
    difficulty=1,
    cases=draft_cases,
    properties=(
        Property("expected tokens of a round", partial(hold.estimates, key="tokens"), 2),
        Property("drafts always or never right", partial(hold.estimates, key="tokens"), 0.5, tags=tags("edge")),
        Property("speed-up", partial(hold.estimates, key="speedup"), 1.5),
        Property("the best length", partial(hold.estimates, key="best"), 1),
    ),
    mistakes=(
        mistake(
            "no-token-for-free",
            "the last token is not counted",
            "draft-length",
            "You count accepted tokens only. Each round also yields the token that is drawn at the end: after a "
            "refusal from the rest, otherwise from the last row.",
            (DRAFT_TOKENS, "float(sum(alpha**i for i in range(1, n + 1)))"),
        ),
        mistake(
            "independent-of-the-first-refusal",
            "tokens behind a refusal count",
            "draft-length",
            "You count n alpha + 1. Tokens behind the first refusal are thrown away even if they would have passed: "
            "the i-th counts only if all before it passed, with alpha**i.",
            (DRAFT_TOKENS, "float(1 + n * alpha)"),
        ),
        mistake(
            "one-power-short",
            "one power too few",
            "draft-length",
            "Your sum ends one term early. n drafted tokens can yield n + 1: 1 + alpha + ... + alpha**n.",
            (DRAFT_TOKENS, "float(sum(alpha**i for i in range(max(n, 1))))"),
        ),
        mistake(
            "divided-by-zero",
            "division by 1 - alpha",
            "draft-length",
            "You use the closed form (1 - alpha**(n + 1)) / (1 - alpha), which is 0 / 0 for a draft that is always "
            "right. The sum is n + 1 there.",
            (DRAFT_TOKENS, "(1 - alpha ** (n + 1)) / (1 - alpha)"),
        ),
        mistake(
            "drafts-for-free",
            "drafting costs nothing",
            "draft-length",
            "You leave the draft's time out. Then longer drafts can only help; in truth each drafted token costs, "
            "whether or not it is used.",
            (DRAFT_SPEED, "expected * verify_cost[0] / cost"),
        ),
        mistake(
            "judging-costs-one",
            "the judging pass costs one token",
            "draft-length",
            "You charge the target's pass as if it had one token. That is the idea of a memory-bound machine; on a "
            "real one a pass over n + 1 tokens takes measurably longer, and here you are told how much.",
            (DRAFT_SPEED, "expected * verify_cost[0] / (n * draft_cost + verify_cost[0])"),
        ),
        mistake(
            "one-draft-too-many",
            "one draft too many is charged",
            "draft-length",
            "You charge n + 1 drafted tokens. The last token of a round comes from the target.",
            (DRAFT_SPEED, "expected * verify_cost[0] / ((n + 1) * draft_cost + cost)"),
        ),
        mistake(
            "unit-of-time",
            "not compared with a plain token",
            "draft-length",
            "You return tokens per unit of time. A speed-up is a ratio: multiply by the time of a token without "
            "speculation, verify_cost[0].",
            (DRAFT_SPEED, "expected / (n * draft_cost + cost)"),
        ),
        mistake(
            "most-tokens",
            "the length with the most tokens",
            "draft-length",
            "You choose the n with the most tokens in a round. That is always the longest. What counts is tokens over "
            "time.",
            (DRAFT_BEST, "tokens.index(max(tokens))"),
        ),
        mistake(
            "longest-of-equals",
            "the longest of equally good ones",
            "draft-length",
            "Of lengths that are equally fast you return the longest. The shortest wastes the least work.",
            (DRAFT_BEST, "max(n for n, value in enumerate(speedup) if value == max(speedup))"),
        ),
    ),
    alternatives=(
        Alternative(
            "by the probability of each count",
            "def draft_length(alpha, draft_cost, verify_cost):\n"
            "    tokens, gains = [], []\n"
            "    for n in range(len(verify_cost)):\n"
            "        chance = [alpha**k * (1 - alpha) for k in range(n)] + [alpha**n]\n"
            "        tokens.append(float(math.fsum((k + 1) * p for k, p in enumerate(chance))))\n"
            "        seconds = draft_cost * n + verify_cost[n]\n"
            "        gains.append(tokens[-1] / (seconds / verify_cost[0]))\n"
            "    best = max(range(len(gains)), key=lambda n: (round(gains[n], 12), -n))\n"
            "    return {'tokens': tokens, 'speedup': gains, 'best': best}\n",
        ),
    ),
)


EXAM = Exam(
    "06-inference",
    (
        ROPE,
        CACHE,
        ATTEND,
        CONSISTENT,
        READ,
        TILE,
        SAMPLE,
        STREAM,
        QUANTIZE,
        LATENCIES,
        VERIFY,
        DRAFT,
    ),
)
