# %% [markdown]
# # Lab 06. An inference engine
#
# A language model is a function from a text to a law of the next token. To make it *talk* somebody has to call it,
# again and again, and not do the same work each time. That somebody is the engine. It remembers keys and values, reads
# prompts in pieces, draws tokens, knows when to stop, serves several people at once, and with some luck gets more than
# one token out of a pass.
#
# You write its parts, and from section 3 on the model in this notebook runs on them. The model is SmolLM2-135M-Instruct
# again (`fourbit models fetch smollm2`, then all is offline). The lecture note is
# [Inference arithmetic](../../lecture_notes/inference.md). Before each measurement you write a guess down.

# %% role="setup"
import math

import torch
from torch.nn import functional as F

from fourbit.exam import check, confront, predict


def restored(q, block):
    """The numbers (heads, tokens, width) that the codes, scales and lows of `quantize_kv` stand for."""
    tokens = q["codes"].shape[1]
    each = 1 if q["scale"].shape[1] == tokens and q["scale"].shape[2] == 1 else block  # tokens that share a scale
    scale, low = (q[key].float().repeat_interleave(each, 1)[:, :tokens] for key in ("scale", "low"))
    return q["codes"].float() * scale + low

# %% [markdown]
# The model, a text for it to read, and a clock.

# %% role="measure"
import time

import matplotlib.pyplot as plt

from fourbit.llm.loading import load
from fourbit.llm.texts import CALIBRATION, EVALUATION, novel
from fourbit.plots import COLORS, label_line, use_style

use_style()
llm = load("smollm2")
model, tokenizer, config = llm.model, llm.tokenizer, llm.config
persuasion = tokenizer.encode(novel(EVALUATION))
print(f"{config.layers} layers, {config.heads} heads of queries on {config.kv_heads} of keys, {config.head_width} wide")


def seconds(run, times=3):
    """The fastest of a few runs: whatever disturbs a run only makes it longer."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return min(found)

# %% [markdown]
# ## 1 · Positions that turn
#
# Attention compares a query with all keys by dot products, and a dot product does not know where its factors stood.
# Rotary embeddings tell it: split the channels into pairs, take each pair as a point in the plane, and turn it by an
# angle that grows with the position, fast for the first pair and slowly for the last. A query at position $m$ and a key
# at position $n$ then meet at the angle of $m - n$: turning both by as much changes nothing.
#
# Which channels make a pair is a convention. Half of the world pairs channel $i$ with channel $i + w/2$, the other half
# with its neighbor. A file that was written for one and is read by the other gives a model that speaks nonsense
# fluently.

# %% exercise="rope"
def rope(x, positions, theta):
    """Turn pairs of channels by angles that grow with the position (Su et al., 2021).

    Channels i and i + width / 2 are a pair, for i = 0, ..., width / 2 - 1. At position p the pair (a, b) is turned by
    the angle p * theta**(-2 i / width): it becomes (a cos - b sin, b cos + a sin).

    Args:
        x: (batch, heads, tokens, width), float of any precision, width even.
        positions: int64 (batch, tokens), where the tokens of each text stand; theta: positive.

    Returns:
        Tensor of x's shape and dtype. Angles, sines and cosines are computed in float32 at least.

    Example:
        >>> rope(torch.tensor([[[[1.0, 5.0, 0.0, 0.0]]]]), torch.tensor([[0]]), 100.0)
        tensor([[[[1., 5., 0., 0.]]]])
        >>> rope(torch.tensor([[[[1.0, 5.0, 0.0, 0.0]]]]), torch.tensor([[1]]), 100.0)  # by 1 and by 0.1
        tensor([[[[0.5403, 4.9750, 0.8415, 0.4992]]]])
    """
    ### BEGIN SOLUTION
    half = x.shape[-1] // 2
    turns = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = positions[:, None, :, None] * turns  # (batch, 1, tokens, half)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    left, right = x[..., :half], x[..., half:]
    return torch.cat([left * cos - right * sin, right * cos + left * sin], -1)
    ### END SOLUTION

# %% check="rope"

# %% role="measure"
query, key = torch.randn(2, 1, 1, 1, config.head_width, dtype=torch.float64)


def met(m, n):
    """The product of the query at position m and the key at position n."""
    turned = (rope(x, torch.tensor([[place]]), config.rope_theta) for x, place in ((query, m), (key, n)))
    return float(torch.mul(*turned).sum())


for pairs in (((3, 0), (103, 100), (7003, 7000)), ((40, 0), (140, 100), (7040, 7000))):
    print("   ".join(f"q at {m:4}, k at {n:4}: {met(m, n):8.5f}" for m, n in pairs))

# %% [markdown]
# Only the distance counts. That is why keys can be turned once, when they are stored, and never again.

# %% [markdown]
# ## 2 · Remember
#
# The keys and values of a token never change once it has been read: nothing behind it can reach it. So keep them. The
# memory is taken once, for the whole conversation, and several texts of different lengths share it, each in
# its own row.
#
# You write the class; `replay` below it is given, and is what the check calls: it runs a list of steps on a fresh cache
# and tells what became of it.

# %% exercise="kv_cache"
class KVCache:
    """Room for the keys and values of one layer, of `batch` texts with up to `capacity` tokens each.

    keys, values: tensors (batch, kv_heads, capacity, width) of `dtype`, made once. lengths: list of ints, the tokens
    that each text has.

    Example:
        >>> cache = KVCache(2, 1, 8, 4)
        >>> cache.append(torch.ones(2, 1, 3, 4), torch.ones(2, 1, 3, 4))
        >>> cache.truncate([3, 1])
        >>> cache.append(torch.zeros(2, 1, 2, 4), torch.zeros(2, 1, 2, 4))
        >>> cache.lengths, tuple(cache.view()[0].shape), cache.nbytes
        ([5, 3], (2, 1, 5, 4), 512)
    """

    def __init__(self, batch, kv_heads, capacity, width, dtype=torch.float32):
        """Take the memory; all texts are empty."""
        ### BEGIN SOLUTION
        self.keys = torch.zeros(batch, kv_heads, capacity, width, dtype=dtype)
        self.values = torch.zeros(batch, kv_heads, capacity, width, dtype=dtype)
        self.lengths = [0] * batch
        ### END SOLUTION

    def append(self, keys, values):
        """Write keys and values (batch, kv_heads, new, width) of new tokens behind each text's own last one.

        Raises ValueError when a text has no room for them; the cache is then as it was before.
        """
        ### BEGIN SOLUTION
        new = keys.shape[2]
        if max(self.lengths) + new > self.keys.shape[2]:
            raise ValueError(f"no room for {new} more tokens behind {max(self.lengths)} in {self.keys.shape[2]}")
        for row, start in enumerate(self.lengths):
            self.keys[row, :, start : start + new] = keys[row]
            self.values[row, :, start : start + new] = values[row]
        self.lengths = [start + new for start in self.lengths]
        ### END SOLUTION

    def view(self):
        """Return (keys, values), each (batch, kv_heads, longest, width): up to the longest text, without copying.

        What stands behind the end of a shorter text is arbitrary.
        """
        ### BEGIN SOLUTION
        longest = max(self.lengths)
        return self.keys[:, :, :longest], self.values[:, :, :longest]
        ### END SOLUTION

    def truncate(self, lengths):
        """Forget the tokens of each text from position lengths[row] on.

        Raises ValueError when a text has fewer, or for a negative length; the cache is then as it was before.
        """
        ### BEGIN SOLUTION
        if any(not 0 <= kept <= have for kept, have in zip(lengths, self.lengths, strict=True)):
            raise ValueError(f"texts of {self.lengths} tokens cannot be cut to {lengths}")
        self.lengths = list(lengths)
        ### END SOLUTION

    @property
    def nbytes(self):
        """Bytes that the cache takes, used or not."""
        ### BEGIN SOLUTION
        return sum(part.numel() * part.element_size() for part in (self.keys, self.values))
        ### END SOLUTION


def replay(sizes, dtype, steps):
    """Run steps ["append", keys, values] or ["truncate", lengths] on a fresh cache; tell what it holds after each."""
    cache, seen = KVCache(*sizes, dtype=getattr(torch, dtype)), []
    first = cache.keys, cache.values  # held, so that no other memory gets their address
    for name, *arguments in steps:
        try:
            getattr(cache, name)(*arguments)
            refused = False
        except ValueError:
            refused = True
        view = cache.view()
        rows = [[part[row, :, :n].clone() for row, n in enumerate(cache.lengths)] for part in view]
        now, then = ([part.data_ptr() for part in pair] for pair in ((cache.keys, cache.values), first))
        copied = max(cache.lengths) > 0 and [part.data_ptr() for part in view] != now
        seen.append({"refused": refused, "lengths": list(cache.lengths), "longest": view[0].shape[2],
                     "keys": rows[0], "values": rows[1], "copied": copied, "moved": now != then})  # fmt: skip
    return {"steps": seen, "nbytes": cache.nbytes}

# %% check="kv_cache"

# %% [markdown]
# What does memory cost? Keys and values, in every layer, for every token. A model of 2023 has a head of keys for each
# head of queries; later ones share.

# %% prediction="cache-bytes"
predict("cache-bytes", ..., "KiB of 16-bit keys and values for each token of Llama-2-7B: 32 layers, 32 heads of 128")

# %% role="measure"
models = {"Llama-2-7B": (32, 32), "Mistral-7B": (32, 8), "Qwen2.5-7B": (28, 4)}  # layers, heads of keys; all 128 wide
each = {name: layers * KVCache(1, heads, 1, 128, torch.float16).nbytes for name, (layers, heads) in models.items()}
_, axes = plt.subplots()
contexts = [2**i for i in range(9, 16)]
for name, size in each.items():
    print(f"{name:11} {size / 1024:5.0f} KiB for each token, {size * 4096 / 1e9:5.2f} GB for 4096")
    (line,) = axes.plot(contexts, [size * t / 1e9 for t in contexts], "o-", markersize=3)
    label_line(line, name, x=4096)
axes.axhline(3.9, color=COLORS["gray"], linestyle="--")
axes.annotate("the weights in 4 bits", (600, 3.9), xytext=(0, 4), textcoords="offset points", color=COLORS["gray"])
axes.set(xscale="log", yscale="log", xlabel="tokens of context", ylabel="GB", title="The cache of a 7B in 16 bits")
axes.set_xticks(contexts, [f"{t:,}" for t in contexts])
plt.show()
confront("cache-bytes", each["Llama-2-7B"] / 1024)

# %% [markdown]
# ## 3 · Attention over what is remembered
#
# One function for everything that an engine does. In **prefill** many new tokens come at once, and each may see itself
# and what stands before it; in **decode** one new token sees all; in a **batch** every text has another length, and
# behind a text's end there is whatever the memory held before, NaN included. With grouped queries several heads of
# queries share a head of keys.

# %% exercise="attend"
def attend(query, keys, values, lengths):
    """Causal attention of new tokens over all tokens of their texts.

    Args:
        query: (batch, heads, new, width), of the last `new` tokens of each text.
        keys, values: (batch, kv_heads, room, width), of all its tokens in order. What stands behind them is arbitrary
            and must not matter, not even if it is NaN.
        lengths: list of ints, the tokens of each text, new ones included: new <= lengths[b] <= room.

    Query head h reads the head h // (heads // kv_heads) of keys and values. Scores are dot products / sqrt(width). A
    token sees itself and the tokens before it.

    Returns:
        (batch, heads, new, width)

    Example:
        >>> values = torch.tensor([[[[1.0], [5.0], [9.0], [math.nan]]]])
        >>> attend(torch.zeros(1, 2, 2, 1), torch.zeros(1, 1, 4, 1), values, [3])  # they see 2 and 3 equal keys
        tensor([[[[3.],
                  [5.]],
        <BLANKLINE>
                 [[3.],
                  [5.]]]])
    """
    ### BEGIN SOLUTION
    (_, heads, new, width), room = query.shape, keys.shape[2]
    place, ends = torch.arange(room), torch.tensor(lengths)[:, None]  # (room,), (batch, 1)
    seen = place <= (ends - new + torch.arange(new))[..., None]  # (batch, new, room)
    empty = (place >= ends)[:, None, :, None]  # a weight of 0 does not silence NaN
    keys, values = (part.masked_fill(empty, 0).repeat_interleave(heads // part.shape[1], 1) for part in (keys, values))
    scores = query @ keys.transpose(-1, -2) / math.sqrt(width)
    return scores.masked_fill(~seen[:, None], -math.inf).softmax(-1) @ values
    ### END SOLUTION

# %% check="attend"

# %% [markdown]
# Your three functions are the inside of an engine. The rest, the matrices and norms, is the model's own.

# %% role="measure"
class Engine:
    """The model of this notebook on your rope, KVCache and attend, for a batch of texts."""

    def __init__(self, batch=1, capacity=1024):
        self.context, self.tokens, self.reads, self.squeeze = capacity, [], [], None
        self.caches = [KVCache(batch, config.kv_heads, capacity, config.head_width) for _ in model.layers]

    def states(self, tokens):
        """Read tokens (batch, new), and return their final states (batch, new, width)."""
        lengths = torch.tensor(self.caches[0].lengths)
        places, x = lengths[:, None] + torch.arange(tokens.shape[1]), model.embed_tokens(tokens)
        for layer, cache in zip(model.layers, self.caches, strict=True):
            own, normed = layer.self_attn, layer.input_layernorm(x)
            parts = [project(normed).unflatten(-1, (-1, config.head_width)).transpose(1, 2)
                     for project in (own.q_proj, own.k_proj, own.v_proj)]  # fmt: skip
            q, k = (rope(part, places, config.rope_theta) for part in parts[:2])
            k, v = (k, parts[2]) if self.squeeze is None else self.squeeze(k, parts[2])  # section 9 needs this
            cache.append(k, v)
            mixed = attend(q, *cache.view(), cache.lengths)
            x = x + own.o_proj(mixed.transpose(1, 2).flatten(2))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return model.norm(x)

    def forward(self, tokens):
        """Read a list of tokens of one text, and return the logits (len, vocabulary) after each."""
        logits = model.lm_head(self.states(torch.tensor([tokens])))[0]
        self.tokens += tokens
        self.reads.append(len(tokens))
        return logits

    def truncate(self, length):
        """Forget the tokens of one text from `length` on."""
        del self.tokens[length:]
        for cache in self.caches:
            cache.truncate([length])


text = persuasion[5000:5064]
at_once = model(torch.tensor([text]))[0]  # the model of lab 04, without a cache
engine = Engine()
in_pieces = torch.cat([engine.forward(part) for part in (text[:20], text[20:50], *([token] for token in text[50:]))])
apart = float((in_pieces - at_once).abs().max())
print(f"logits up to {float(at_once.abs().max()):.1f}; with the cache, in pieces, they differ by {apart:.1e}")

# %% [markdown]
# Cached equals uncached, up to the rounding of float32. What has been gained? Without a cache token $T$ costs a pass
# over all $T$ tokens.

# %% prediction="with-cache"
predict("with-cache", ..., "how many times faster the 512th token comes with the cache than without")

# %% role="measure"
places, with_cache, without = (16, 64, 128, 256, 512, 768), [], []
engine = Engine()
for place in places:
    engine.forward(persuasion[5000 + len(engine.tokens) : 5000 + place - 1])


    def step():
        engine.forward([7])
        engine.truncate(place - 1)  # noqa: B023


    with_cache.append(seconds(step))
    tokens = torch.tensor([persuasion[5000 : 5000 + place]])
    without.append(seconds(lambda: model.lm_head(model.hidden(tokens)[:, -1]), 1 if place > 200 else 2))  # noqa: B023
_, axes = plt.subplots()
for found, name, x in ((with_cache, "with the cache", 400), (without, "all over again", 300)):
    (line,) = axes.plot(places, [1e3 * s for s in found], "o-")
    label_line(line, name, x=x)
axes.set(xlabel="position of the token", ylabel="ms for this token", title="What one more token costs")
plt.show()
confront("with-cache", without[places.index(512)] / with_cache[places.index(512)])

# %% [markdown]
# A text of $T$ tokens now takes $O(T)$ passes of one token instead of $O(T^2)$ tokens. The line with the cache still
# rises: each token looks at all before it.
#
# **Question 1.** A 7B in 4 bits reads 3.7 GB of weights for each token. From which context on does it spend more time
# reading the cache than the weights, with the keys of Llama-2-7B and with those of Qwen2.5-7B, in 16 bits? What does
# that mean for the choice of a model for long documents?

# %% [markdown] written="cache-against-weights" points=2
# Llama-2-7B has 512 KiB = 524,288 bytes for each token: 3.7e9 / 524,288, about 7,100 tokens. Qwen2.5-7B has 56 KiB:
# about 65,000. For long documents the cache decides memory and speed, so grouped queries (few heads of keys) or a cache
# of few bits matter more there than the bits of the weights; Llama-2-7B's own context ends at 4,096. (One point for
# both numbers, to 10 %; one for a conclusion that names the cache.)

# %% [markdown]
# ## 4 · Who tests the engine?
#
# Engines break quietly. The text still reads well, only a little worse, and only after the first chunk, or after the
# conversation was cut back and went on. No exact answer is needed to find that out: an engine must agree *with itself*.
# However a text was read, at once, in pieces, token by token, or after something else had been read and forgotten, the
# logits are the same up to rounding.
#
# Write that test. You are scored by the broken engines that it finds; refuse one that is right and you score nothing.

# %% exercise="is_consistent"
def is_consistent(engine, tokens):
    """A test of an engine: are the logits of a text the same however it is read?

    Args:
        engine: engine.forward(list of tokens) reads tokens behind those in its cache, and returns the logits
            (len, vocabulary) after each; engine.truncate(length) forgets those from `length` on; engine.tokens is the
            list of those in the cache, which need not be empty when you get it; engine.context is how many it has room
            for.
        tokens: list of at least 12 ints, a text that fits into the context.

    Returns:
        True for every right engine: its logits differ by at most 1e-5 of the largest |logit|, since sums are rounded in
        another order. False for every wrong one: somewhere they differ by more than 1e-3 of it.

    Example:
        >>> from fourbit.exam.engines import TinyEngine
        >>> is_consistent(TinyEngine(1, filled=[7, 7]), list(range(12)))
        True
        >>> is_consistent(TinyEngine(1, fault="positions"), list(range(12)))  # each chunk as if it began the text
        False
    """
    ### BEGIN SOLUTION
    def read(*parts, kept=0):
        engine.truncate(kept)
        return torch.cat([engine.forward(part) for part in parts])

    half = len(tokens) // 2
    whole = read(tokens)
    others = [
        read(*([token] for token in tokens)),
        read(tokens[:half], tokens[half:]),
        read(tokens[:half], *([token] for token in tokens[half:])),
    ]
    read(tokens[:half], tokens[half:][::-1])  # something else, which is forgotten again
    others.append(torch.cat([whole[:half], read(tokens[half:], kept=half)]))
    others.append(read(tokens))
    return all(bool((other - whole).abs().max() <= 1e-4 * whole.abs().max()) for other in others)
    ### END SOLUTION

# %% check="is_consistent"

# %% role="measure"
print("The engine of this notebook is consistent:", is_consistent(Engine(capacity=64), persuasion[9000:9024]))


class Forgetful(Engine):
    """Cuts the caches of all layers but the last."""

    def truncate(self, length):
        del self.tokens[length:]
        for cache in self.caches[:-1]:
            cache.truncate([length])


print("One that forgets to cut its last layer's cache:", is_consistent(Forgetful(), persuasion[9000:9024]))

# %% [markdown]
# ## 5 · Reading a prompt
#
# The second question of a conversation begins with the first question and its answer, which the cache has already. A
# good engine reads only what is new. And it reads in chunks: a prompt of thousands of tokens at once would need memory
# for all their activations, and nobody else would get a word in.

# %% exercise="read_prompt"
def read_prompt(model, prompt, chunk):
    """Read a prompt into a model whose cache may have its beginning already.

    Args:
        model: model.tokens, the list of tokens in its cache; model.context, how many it has room for;
            model.truncate(length), which forgets those from `length` on; model.forward(list of tokens), which reads
            tokens behind those in the cache and returns the logits (len, vocabulary) after each; model.reads, the list
            of how many tokens each call of forward has read.
        prompt: list of ints; chunk: tokens to read in one call at most.

    What prompt and cache have in common from the beginning is kept, the rest of the cache is forgotten. The last token
    of the prompt is always read, since its logits are wanted.

    Returns:
        {"logits": (vocabulary,), after the last token of the prompt; "reused": int, the tokens that were kept;
        "reads": model.reads}

    Raises:
        ValueError: when the prompt is empty or longer than the context; the model is then left alone.

    Example:
        >>> from fourbit.exam.engines import TinyEngine
        >>> out = read_prompt(TinyEngine(1, filled=[3, 1, 4, 1, 5]), [3, 1, 4, 9, 2, 6], 2)
        >>> out["reused"], out["reads"]
        (3, [2, 1])
    """
    ### BEGIN SOLUTION
    if not 0 < len(prompt) <= model.context:
        raise ValueError(f"a prompt has 1 to {model.context} tokens, not {len(prompt)}")
    reused = 0
    while reused < min(len(model.tokens), len(prompt) - 1) and model.tokens[reused] == prompt[reused]:
        reused += 1
    model.truncate(reused)
    for start in range(reused, len(prompt), chunk):
        logits = model.forward(prompt[start : start + chunk])
    return {"logits": logits[-1], "reused": reused, "reads": model.reads}
    ### END SOLUTION

# %% check="read_prompt"

# %% [markdown]
# How large should a chunk be? A pass over $n$ tokens reads the weights once and uses them $n$ times: on the roofline of
# lab 00 the chunk moves to the right, $n/2$ FLOP for each byte of a float32 matrix.

# %% prediction="prefill"
predict("prefill", ..., "tokens/s when a prompt is read in chunks of 128, if token by token there are 15")

# %% role="measure"
from fourbit.measure import figures, probe_machine

machine = probe_machine(threads=torch.get_num_threads())
in_matrices = sum(part.weight.numel() for name, part in model.named_modules() if name.endswith("_proj"))
prompt, speed, dots = persuasion[7000:7128], {}, {}
for chunk in (1, 2, 4, 8, 16, 32, 64, 128):
    part = prompt[: max(16, chunk)]
    taken = seconds(lambda: read_prompt(Engine(), part, chunk), 1 if chunk == 1 else 2)  # noqa: B023
    speed[chunk] = len(part) / taken
    dots[f"{chunk}"] = (chunk / 2, 2 * in_matrices * speed[chunk])
    print(f"chunks of {chunk:3}: {speed[chunk]:6.1f} tokens/s")
confront("prefill", speed[128])

# %% role="measure"
figures.roofline(machine, {"tokens read in one pass": dots}, "Decode on the left, prefill on the right")

# %% [markdown]
# One token waits for memory, a long chunk for arithmetic: the same model, the same weights, another part of the roof.
# Everything that follows from here on (batches, speculation) is a way to move decode to the right.

# %% [markdown]
# ## 6 · Softmax in one pass
#
# A prompt of $T$ tokens has $T^2$ scores in each head, and a softmax needs the sum over a whole row before it can weigh
# the first value. Must the row be kept? No. Keep the largest score so far, the sum relative to it, and the mixture
# relative to it; when a larger score comes, correct what was gathered. That is online softmax (Milakov and Gimelshein),
# and FlashAttention is built around it: memory for one tile instead of all.

# %% exercise="fold_tile"
def fold_tile(state, scores, values):
    """Take one more tile of keys into a running softmax.

    Args:
        state: of the tiles so far, for each row (a query) {"largest": (rows,), the largest score; "sum": (rows,), the
            sum of exp(score - largest); "mixed": (rows, width), the sum of exp(score - largest) * value}. It begins as
            -inf, 0 and 0.
        scores: (rows, tile) of the new tile, -inf where a query does not see a key, which may be all of a row.
        values: (tile, width).

    Returns:
        The new state, in the same form. mixed / sum[:, None] is the softmax attention over all tiles so far.

    Example:
        >>> state = {"largest": torch.tensor([0.0]), "sum": torch.tensor([1.0]), "mixed": torch.tensor([[8.0]])}
        >>> state = fold_tile(state, torch.tensor([[math.log(4.0), -math.inf]]), torch.tensor([[2.0], [5.0]]))
        >>> round(state["sum"].item(), 4), round(state["mixed"].item(), 4)  # in units of exp(log 4): 1/4 + 1, 8/4 + 2
        (1.25, 4.0)
    """
    ### BEGIN SOLUTION
    largest = torch.maximum(state["largest"], scores.amax(1))
    anchor = largest.masked_fill(largest == -math.inf, 0)  # nothing seen yet: exp(-inf - 0) is 0
    old = (state["largest"] - anchor).exp()
    new = (scores - anchor[:, None]).exp()
    mixed = state["mixed"] * old[:, None] + new @ values
    return {"largest": largest, "sum": state["sum"] * old + new.sum(1), "mixed": mixed}
    ### END SOLUTION

# %% check="fold_tile"

# %% [markdown]
# The loop around it is FlashAttention's, without the hardware. How large is the largest tensor that each way makes?

# %% prediction="largest-tensor"
predict("largest-tensor", ..., "MB of the largest tensor in plain attention, one head, 2,048 tokens, float32")

# %% role="measure"
from torch.utils._python_dispatch import TorchDispatchMode


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that is made, in bytes."""

    nbytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for part in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(part, torch.Tensor):
                self.nbytes = max(self.nbytes, part.nbytes)
        return made


def in_tiles(query, keys, values, tile):
    """Causal attention of (tokens, width) in tiles of `tile` keys and as many queries."""
    rows = []
    for start in range(0, len(query), tile):
        q = query[start : start + tile] / math.sqrt(query.shape[1])
        state = {"largest": torch.full((len(q),), -math.inf), "sum": torch.zeros(len(q)),
                 "mixed": torch.zeros(len(q), values.shape[1])}  # fmt: skip
        for first in range(0, start + tile, tile):  # tiles behind the diagonal are never computed
            scores = q @ keys[first : first + tile].T
            hidden = torch.ones_like(scores, dtype=torch.bool).triu(start - first + 1)
            state = fold_tile(state, scores.masked_fill(hidden, -math.inf), values[first : first + tile])
        rows.append(state["mixed"] / state["sum"][:, None])
    return torch.cat(rows)


query, keys, values = torch.randn(3, 2048, 64)
with Largest() as plain:
    wanted = attend(query[None, None], keys[None, None], values[None, None], [2048])[0, 0]
print(f"all at once:    largest tensor {plain.nbytes / 1e6:7.2f} MB")
for tile in (512, 128, 32):
    with Largest() as seen:
        found = in_tiles(query, keys, values, tile)
    apart = float((found - wanted).abs().max())
    print(f"tiles of {tile:4}:  largest tensor {seen.nbytes / 1e6:7.2f} MB, off by {apart:.1e}")
confront("largest-tensor", plain.nbytes / 1e6)

# %% [markdown]
# With small tiles what is left is the result itself. On a GPU the tile lives in the memory next to the arithmetic, so
# the $T^2$ scores never travel at all: that, not fewer operations, is why FlashAttention is fast.

# %% [markdown]
# ## 7 · Choosing a token
#
# The model gives a law; the engine has to draw. A model's law has a long tail of tokens that make no sense, each
# unlikely and all together not unlikely at all, so the tail is cut: to the $k$ most likely, to the smallest set that
# holds a share $p$ (the *nucleus*), or to what is not much less likely than the best (min-p).
#
# Your sampler gets its random number as an argument. So it can be checked to the last token; whether the law is right
# is then a question about numbers, not about luck.

# %% exercise="sample"
def sample(logits, temperature, top_k, top_p, min_p, u):
    """Cut the law of the next token, and draw from it with a given random number.

    1. The law is the softmax of logits / temperature. Temperature 0 is greedy: all probability on the first of the most
       likely tokens, whatever the other arguments are.
    2. top_k keeps the k most likely tokens (of equal ones the first in the vocabulary); 0 keeps all. Renormalize.
    3. top_p keeps the most likely tokens until together they have at least top_p of what step 2 left; the one that gets
       there is kept.
    4. min_p keeps the tokens with at least min_p times the probability of the most likely one. Renormalize.

    Args:
        logits: (V,) float; temperature: 0 or more; top_k: 0 to V; top_p: above 0, up to 1; min_p: 0 to below 1.
        u: a uniform random number, 0 <= u < 1.

    Returns:
        {"probabilities": float64 (V,), 0 for what was cut, sum 1; "token": int, the first token, in the order of the
        vocabulary, at which the cumulative probability exceeds u}

    Example:
        >>> out = sample(torch.tensor([0.1, 0.4, 0.2, 0.3]).log(), 1.0, 3, 0.7, 0.0, 0.5)
        >>> [round(p, 4) for p in out["probabilities"].tolist()], out["token"]  # of 4, 3, 2 ninths the nucleus is 4, 3
        ([0.0, 0.5714, 0.0, 0.4286], 1)
    """
    ### BEGIN SOLUTION
    if temperature == 0:
        probabilities = F.one_hot(logits.argmax(), len(logits)).double()
    else:
        law, order = (logits.double() / temperature).softmax(0).sort(descending=True, stable=True)
        law[top_k or len(law) :] = 0
        law = law / law.sum()
        law[law.cumsum(0) - law >= top_p] = 0  # those before it have reached p already
        law[law < min_p * law[0]] = 0
        probabilities = torch.zeros_like(law).scatter(0, order, law / law.sum())
    cumulative = probabilities.cumsum(0)
    return {"probabilities": probabilities, "token": int((cumulative > u * cumulative[-1]).nonzero()[0])}
    ### END SOLUTION

# %% check="sample"

# %% role="measure"
start = tokenizer.encode("Anne could not immediately fall into a quotation again. The sweet scenes of autumn were")
logits = read_prompt(Engine(), start, 64)["logits"]
laws = {
    "as it is": (1.0, 0, 1.0, 0.0),
    "temperature 0.5": (0.5, 0, 1.0, 0.0),
    "top-k 5": (1.0, 5, 1.0, 0.0),
    "top-p 0.5": (1.0, 0, 0.5, 0.0),
    "min-p 0.2": (1.0, 0, 1.0, 0.2),
}
print(f"{'':16} {'tokens left':>11}   the most likely")
for name, settings in laws.items():
    law = sample(logits, *settings, 0.5)["probabilities"]
    best = law.topk(4)
    words = "  ".join(f"{tokenizer.decode([int(t)])!r} {p:.2f}" for p, t in zip(*best, strict=True) if p > 0)
    print(f"{name:16} {int((law > 0).sum()):11,}   {words}")

# %% [markdown]
# The tail matters. Of all that the model gives, how much probability lies on tokens that are each less likely than one
# in a thousand?

# %% prediction="tail"
predict("tail", ..., "probability of drawing a token that is itself less likely than 1/1000, at temperature 1.5, %")

# %% role="measure"
law = sample(logits, 1.0, 0, 1.0, 0.0, 0.5)["probabilities"]
hot = sample(logits, 1.5, 0, 1.0, 0.0, 0.5)["probabilities"]
print(f"at temperature 1: {float(law[law < 1e-3].sum()):.1%} of the draws, by {int((law < 1e-3).sum()):,} tokens")
confront("tail", 100 * float(hot[hot < 1e-3].sum()))

# %% [markdown]
# ## 8 · When to stop
#
# A caller may name strings that end the answer. Tokens do not respect them: "###" may come as "#" and "##", or in the
# middle of "ok ##" and "# no". And text that was shown cannot be taken back, so the engine holds back what may still
# become a stop string, and no more than that: the reader waits for every character that is held.

# %% exercise="stream"
def stream(pieces, stops):
    """Show text as it is generated, up to a stop string.

    As each piece arrives it is put behind the text that is held back. If a stop string occurs in the held text, what
    stands before the one that begins first is shown, and that is the end: no further piece is read.
    Otherwise the longest end of the held text that is a beginning of some stop string stays held, and the rest is
    shown. After the last piece all that is held is shown.

    Args:
        pieces: list of strs, the text of each token; stops: list of strs, none empty, maybe no string at all.

    Returns:
        {"shown": list of strs, what was shown after each piece that was read, and one more for what is shown at the end
        if no stop string came; "stopped": bool, whether one came}

    Example:
        >>> stream(["Yes", ". #", "#", "# No", "!"], ["###"])
        {'shown': ['Yes', '. ', '', ''], 'stopped': True}
        >>> stream(["a #", "b"], ["###"])
        {'shown': ['a ', '#b', ''], 'stopped': False}
    """
    ### BEGIN SOLUTION
    shown, held = [], ""
    for piece in pieces:
        held += piece
        found = [held.index(stop) for stop in stops if stop in held]
        if found:
            return {"shown": [*shown, held[: min(found)]], "stopped": True}
        kept = max((n for stop in stops for n in range(len(stop)) if held.endswith(stop[:n])), default=0)
        shown.append(held[: len(held) - kept])
        held = held[len(held) - kept :]
    return {"shown": [*shown, held], "stopped": False}
    ### END SOLUTION

# %% check="stream"

# %% [markdown]
# Everything that talking needs is there.

# %% role="measure"
def answer(engine, prompt, limit=40, temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, stops=(), seed=0):
    """Yield text as it can be shown: your read_prompt, sample and stream, one after the other."""
    dice, spell, pieces = torch.Generator().manual_seed(seed), tokenizer.stream(), []
    logits = read_prompt(engine, prompt, 64)["logits"]
    while len(pieces) < limit:
        u = float(torch.rand(1, generator=dice))
        token = sample(logits, temperature, top_k, top_p, min_p, u)["token"]
        if token in tokenizer.stop:
            break
        pieces.append(spell(token))
        so_far = stream(pieces, list(stops))
        yield so_far["shown"][len(pieces) - 1]
        if so_far["stopped"]:
            return
        logits = engine.forward([token])[-1]
    yield stream(pieces, list(stops))["shown"][-1]


def chat(engine, messages, **options):
    """Answer a conversation, and add the answer to it."""
    prompt = tokenizer.encode(tokenizer.chat(messages), special=False)
    before, said = len(engine.reads), ""
    for part in answer(engine, prompt, **options):
        print(part, end="", flush=True)
        said += part
    read = sum(n for n in engine.reads[before:] if n > 1)
    print(f"\n    [a prompt of {len(prompt)} tokens, about {read} of them read]")
    messages.append({"role": "assistant", "content": said})


engine, messages = Engine(), [{"role": "user", "content": "What is the capital of France?"}]
chat(engine, messages)
messages.append({"role": "user", "content": "Name one river there."})
chat(engine, messages)

# %% [markdown]
# The second prompt contained the first question and its answer, and they were not read again. Now with chance, and with
# a stop string:

# %% role="measure"
opening = tokenizer.encode("The old house stood")
for temperature, min_p in ((0.0, 0.0), (0.8, 0.05), (1.5, 0.0), (1.5, 0.1)):
    words = "".join(answer(Engine(), opening, 24, temperature, min_p=min_p, seed=3, stops=["."]))
    print(f"temperature {temperature}, min-p {min_p}: {words!r}")

# %% [markdown]
# ## 9 · A smaller cache
#
# The cache can be rounded like weights. But what shares a scale? All numbers of one token, since a token arrives at
# once? Or one channel over many tokens?

# %% exercise="quantize_kv"
def quantize_kv(x, bits, by, block):
    """Round keys or values of a layer to few bits, asymmetrically, in groups that share a scale and a low.

    Args:
        x: float32 (heads, tokens, width); bits: 2 to 8.
        by: "token", a group is all channels of one token in one head; or "channel", a group is one channel of a head
            over `block` successive tokens (the last block may have fewer).
        block: at least 1; only for "channel".

    low, the smallest number of a group, is rounded to float16 *first*; then scale = (largest - low) / (2**bits - 1),
    rounded to float16, 1 where that is 0; then code = round((x - low) / scale), halves to even, clamped to the codes
    that there are.

    Returns:
        {"codes": uint8 (heads, tokens, width); "scale", "low": float16, (heads, tokens, 1) by token and
        (heads, blocks, width) by channel}. x is about codes * scale + low.

    Example:
        >>> x = torch.tensor([[[0.0, 10.0], [1.0, 13.0], [3.0, 16.0]]])
        >>> quantize_kv(x, 2, "channel", 4)["codes"].tolist()
        [[[0, 0], [1, 2], [3, 3]]]
        >>> quantize_kv(x, 2, "token", 4)["codes"].tolist()
        [[[0, 3], [0, 3], [0, 3]]]
    """
    ### BEGIN SOLUTION
    heads, tokens, width = x.shape
    size, axis = (1, 3) if by == "token" else (block, 2)
    blocks = math.ceil(tokens / size)
    filled = torch.cat([x, x[:, -1:].expand(-1, blocks * size - tokens, -1)], 1)  # the last token again: no new extreme
    groups = filled.view(heads, blocks, size, width)
    low = groups.amin(axis, keepdim=True).half()
    scale = ((groups.amax(axis, keepdim=True) - low) / (2**bits - 1)).half()
    scale[scale == 0] = 1
    codes = ((groups - low) / scale.float()).round().clamp(0, 2**bits - 1).byte()
    codes = codes.view(heads, -1, width)[:, :tokens].clone()
    return {"codes": codes, "scale": scale.squeeze(2), "low": low.squeeze(2)}
    ### END SOLUTION

# %% check="quantize_kv"

# %% [markdown]
# First look at what is to be rounded: the keys and values of one layer on real text.

# %% role="measure"
kept = []


def listen(k, v):
    kept.append((k[0], v[0]))  # (kv_heads, tokens, width)
    return k, v


engine = Engine()
engine.squeeze = listen
engine.states(torch.tensor([persuasion[20_000:20_256]]))
keys, values = kept[16]
_, axes = plt.subplots(1, 2, figsize=(9.5, 3.4), sharey=True)
for part, axis, title in ((keys, axes[0], "keys"), (values, axes[1], "values")):
    flat = part.transpose(0, 1).flatten(1)[1:]  # (tokens, channels), without the first token
    low, middle, high = flat.quantile(torch.tensor([0.05, 0.5, 0.95]), dim=0)
    axis.vlines(range(flat.shape[1]), low, high, color=COLORS["blue"], linewidth=1)
    axis.plot(middle, ".", color=COLORS["vermilion"], markersize=3)
    axis.set(xlabel="channel", title=f"{title} of layer 16: 90 % of the tokens")
axes[0].set_ylabel("value")
plt.show()

# %% [markdown]
# Channels of keys live far from zero and stay there for all tokens; values have no such channels. Judge it by the
# divergence of lab 04: how far do the next-token laws move when keys and values are rounded? (By channel in blocks of
# 32 tokens.)

# %% prediction="keys-by-channel"
predict("keys-by-channel", ..., "KL at 3 bits with keys by channel, if it is 0.5 with keys by token (values by token)")

# %% role="measure"
texts = torch.tensor([persuasion[s : s + 256] for s in (20_000, 45_000, 70_000)])


def laws_of(squeeze):
    """Log-probabilities (texts, tokens, vocabulary) with keys and values rounded."""
    found = []
    for row in texts:
        engine = Engine(capacity=256)
        engine.squeeze = squeeze
        found.append(model.lm_head(engine.states(row[None]))[0, 1:].log_softmax(-1))
    return torch.stack(found)


def rounding(bits, keys_by, values_by):
    def squeeze(k, v):
        return [restored(quantize_kv(part[0], bits, by, 32), 32)[None] for part, by in ((k, keys_by), (v, values_by))]

    return squeeze


exact, found = laws_of(None), {}
for bits, ways in ((8, ("tt",)), (4, ("tt", "ct", "tc", "cc")), (3, ("tt", "ct")), (2, ("tt", "ct"))):
    for way in ways:
        by = [{"t": "token", "c": "channel"}[letter] for letter in way]
        given = laws_of(rounding(bits, *by))
        found[bits, way] = float((exact.exp() * (exact - given)).sum(-1).mean())
        print(f"{bits} bits, keys by {by[0]:7}, values by {by[1]:7}: KL {found[bits, way]:.4f}")
confront("keys-by-channel", found[3, "ct"] / found[3, "tt"] * 0.5)

# %% [markdown]
# **Question 2.** Why do keys want scales by channel, and why is that awkward for an engine? (KIVI, which found this,
# keeps the newest tokens in 16 bits.)

# %% [markdown] written="keys-by-channel" points=1
# Single channels of keys are large and off center for all tokens; a scale by token has to span from the largest to the
# smallest channel, so quiet channels get few codes. By channel each range is narrow. Awkward: a block of tokens must be
# complete before its scale is known, while tokens come one at a time, so the newest must wait in full precision.

# %% [markdown]
# Another way to a small cache is to forget: keep the newest 128 tokens only. Old tokens are the least important, are
# they not? A mask tries it out.

# %% prediction="window"
predict("window", ..., "perplexity when a token sees the last 128 only, if it is 30 when it sees all of 640")

# %% role="measure"
from unittest import mock

row, place, attention = torch.tensor([persuasion[30_000:30_640]]), torch.arange(640), F.scaled_dot_product_attention


def perplexity_seeing(seen):
    """Perplexity of the later part of the text when token i sees key j where seen[i, j]."""

    def masked(q, k, v, **_):
        return attention(q, k, v, attn_mask=seen)

    with mock.patch.object(F, "scaled_dot_product_attention", masked):
        laws = model(row)[0, 191:-1].log_softmax(-1)
    return math.exp(-float(laws.gather(1, row[0, 192:, None]).mean()))


near, found = place[:, None] - place < 128, {}
for first in (640, 0, 1, 4):
    found[first] = perplexity_seeing((near | (place < first)).tril())
    name = {640: "all tokens", 0: "the last 128"}.get(first, f"the last 128 and the first {first}")
    print(f"sees {name:30} perplexity {found[first]:6.1f}")
confront("window", found[0])

# %% [markdown]
# One single token, the first, is worth more than what the window lost: heads that have nothing to say look at it, and
# their weight must go *somewhere*. It is an attention sink (Xiao et al.); the chapter has more of it.

# %% [markdown]
# ## 10 · How long do people wait?
#
# Two numbers describe what a reader feels: the time to the first token, waiting in line included, and the time for each
# token after it. A server has a third: how much it got done.

# %% exercise="latencies"
def latencies(requests, first_limit, each_limit):
    """What a server's trace says about waiting and throughput.

    Args:
        requests: list of {"arrived": s, "started": s, "tokens": [s, ...]}: when a request came, when the engine began
            to read its prompt, and when each of its tokens (at least one) was sent. All on one clock, in any order.
        first_limit, each_limit: seconds.

    Returns:
        {"ttft": list, seconds from arrival to the first token of each request;
        "tpot": list, mean seconds from token to token after the first, None for a request with one token;
        "ttft_p90": the smallest of the ttft which at least 90 % of the requests do not exceed;
        "throughput": tokens per second of all requests together, from the first arrival to the last token;
        "within": int, requests with a ttft of at most first_limit and a tpot (if they have one) of at most each_limit}

    Example:
        >>> first = {"arrived": 0.0, "started": 1.0, "tokens": [2.0, 2.5, 3.0]}
        >>> latencies([first, {"arrived": 1.0, "started": 3.0, "tokens": [4.0]}], 2.5, 1.0)
        {'ttft': [2.0, 3.0], 'tpot': [0.5, None], 'ttft_p90': 3.0, 'throughput': 1.0, 'within': 1}
    """
    ### BEGIN SOLUTION
    ttft = [r["tokens"][0] - r["arrived"] for r in requests]
    tpot = [(t[-1] - t[0]) / (len(t) - 1) if len(t) > 1 else None for t in (r["tokens"] for r in requests)]
    span = max(r["tokens"][-1] for r in requests) - min(r["arrived"] for r in requests)
    return {
        "ttft": ttft,
        "tpot": tpot,
        "ttft_p90": sorted(ttft)[(9 * len(ttft) + 9) // 10 - 1],
        "throughput": sum(len(r["tokens"]) for r in requests) / span,
        "within": sum(a <= first_limit and (b is None or b <= each_limit) for a, b in zip(ttft, tpot, strict=True)),
    }
    ### END SOLUTION

# %% check="latencies"

# %% [markdown]
# Now a batch: several texts share each pass over the weights. First that it is right, with prompts of different
# lengths: they are filled up behind their end, read together, and cut back to their own lengths.

# %% role="measure"
asked = ["Bath is", "The captain looked at the sea and", "It was a truth", "My dear Anne, I have to tell you that"]
prompts = [tokenizer.encode(words) for words in asked]
longest = max(map(len, prompts))
engine = Engine(batch=len(prompts), capacity=64)
states = engine.states(torch.tensor([p + [0] * (longest - len(p)) for p in prompts]))
for cache in engine.caches:
    cache.truncate([len(p) for p in prompts])
last = torch.stack([states[row, len(p) - 1] for row, p in enumerate(prompts)])
together = [model.lm_head(last).argmax(-1)]
for _ in range(11):
    together.append(model.lm_head(engine.states(together[-1][:, None]))[:, -1].argmax(-1))
for words, prompt, said in zip(asked, prompts, torch.stack(together, 1).tolist(), strict=True):
    alone = Engine(capacity=64)
    logits, single = read_prompt(alone, prompt, 64)["logits"], []
    while len(single) < 12:
        single.append(int(logits.argmax()))
        logits = alone.forward(single[-1:])[-1]
    print(f"{words} ...{tokenizer.decode(said)!r}   the same alone: {single == said}")

# %% prediction="batch"
predict("batch", ..., "tokens/s of a batch of 8, together, if one text alone gets 15")

# %% role="measure"
step_cost = {}
for batch in (1, 2, 4, 8, 16):
    engine = Engine(batch=batch, capacity=80)
    engine.states(torch.tensor([persuasion[7000:7064]]).expand(batch, -1))
    new = torch.full((batch, 1), 7)
    step_cost[batch] = seconds(lambda: model.lm_head(engine.states(new)[:, -1]), 4)  # noqa: B023
    print(f"batch of {batch:2}: {1e3 * step_cost[batch]:6.1f} ms for a step, {batch / step_cost[batch]:6.1f} tokens/s")
confront("batch", 8 / step_cost[8])

# %% [markdown]
# Twelve people ask within a few seconds. With the costs that you have measured: one after the other, or up to eight at
# a time? In the second a new prompt is read as soon as there is room, while the others wait for it; that is continuous
# batching in its simplest form.

# %% role="measure"
def serve(arrivals, prompt, answers, batch):
    """The trace of a server that decodes up to `batch` texts together."""
    costs = sorted(step_cost)
    line = [{"arrived": t, "started": 0.0, "tokens": [], "left": n} for t, n in zip(arrivals, answers, strict=True)]
    clock, active, done = 0.0, [], []
    while line or active:
        if line and len(active) < batch and line[0]["arrived"] <= clock:
            request = line.pop(0)
            request["started"] = clock
            clock += prompt / speed[64]
            request["tokens"].append(clock)
            active.append(request)
        elif active:
            clock += next(step_cost[size] for size in costs if size >= len(active))
            for request in active:
                request["tokens"].append(clock)
        else:
            clock = line[0]["arrived"]
        done += [r for r in active if len(r["tokens"]) >= r["left"]]
        active = [r for r in active if len(r["tokens"]) < r["left"]]
    return done


dice = torch.Generator().manual_seed(6)
arrivals = (4 * torch.rand(12, generator=dice, dtype=torch.float64)).sort().values.tolist()
answers = torch.randint(10, 50, (12,), generator=dice).tolist()
_, axes = plt.subplots(1, 2, figsize=(9.5, 3.8), sharex=True)
for batch, axis in ((1, axes[0]), (8, axes[1])):
    trace = sorted(serve(arrivals, 64, answers, batch), key=lambda r: r["arrived"])
    found = latencies(trace, 2.0, 0.2)
    for row, r in enumerate(trace):
        axis.plot([r["arrived"], r["started"]], [row, row], color=COLORS["gray"], linewidth=2)
        axis.plot([r["started"], r["tokens"][0]], [row, row], color=COLORS["vermilion"], linewidth=4)
        axis.plot(r["tokens"], [row] * len(r["tokens"]), "|", color=COLORS["blue"], markersize=7)
    axis.set(xlabel="seconds", yticks=[], title=f"up to {batch} at a time: {found['throughput']:.0f} tokens/s")
    each = [t for t in found["tpot"] if t is not None]
    print(f"up to {batch} at a time: 9 of 10 have their first token within {found['ttft_p90']:.1f} s, then")
    print(f"    {1e3 * sum(each) / len(each):.0f} ms for each; {found['within']} of 12 within 2 s and 200 ms")
axes[0].set_ylabel("request (gray waits, red is read, blue tokens)")
plt.show()

# %% [markdown]
# **Question 3.** Throughput rises with the batch; what gets worse, for whom, and where does the gain end? Answer with
# the roofline: at which batch would a 7B with 4-bit weights on a machine with 1 TFLOP/s and 50 GB/s stop to gain (FLOP
# as in lab 00, caches left aside)?

# %% [markdown] written="how-large-a-batch" points=2
# Each text gets its tokens a little later than alone (a step of the batch takes longer, and it waits while other
# prompts are read): the time per token gets worse for those already being served. A batch of b does 2 b FLOP for each
# weight of half a byte: intensity 4 b. The ridge is at 1000 / 50 = 20 FLOP for each byte, so decode is compute-bound
# from b = 5 on; beyond that throughput no longer grows and each step takes longer in proportion. Caches, which texts do
# not share, end it earlier at long contexts. (One point for who pays, one for 5 with its reason.)

# %% [markdown]
# ## 11 · Several tokens in one pass
#
# Decode waits for memory: a pass over eight tokens costs hardly more than a pass over one. If only we knew the tokens!
# **Speculative decoding** guesses them with something cheap and lets the large model judge all guesses in one pass.
# The rule by which it accepts makes the result *exactly* what the large model alone would have drawn, in law, however
# bad the guesses are. Nearly right is easy here, and nobody would notice.

# %% exercise="verify"
def verify(target, draft, tokens, accept, choose):
    """Judge drafted tokens so that the outcome has the law of the target model (Leviathan et al., 2023, algorithm 1).

    Token i was drawn from draft[i]. Go through them in order: token t is accepted if accept[i] is below
    target[i, t] / draft[i, t]. At the first that is not, the next token is drawn from max(target[i] - draft[i], 0),
    renormalized, and the rest is thrown away. If all are accepted, one more token is drawn from the last row of target.

    Args:
        target: float64 (n + 1, V), the target's law at each place, row i given tokens[:i] behind the text.
        draft: float64 (n, V), the draft's laws; tokens: list of n ints, n may be 0.
        accept: list of n uniform random numbers in [0, 1); choose: another one.

    Returns:
        {"accepted": int, how many drafted tokens stay; "token": int, the one that follows them: the first at which the
        cumulative sum of the law exceeds `choose`; "law": float64 (V,), the law that it is drawn from, sum 1}

    Example:
        >>> target = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.2, 0.6]]).double()
        >>> verify(target, torch.tensor([[0.75, 0.0, 0.25]]).double(), [0], [0.6], 0.1)["accepted"]  # 0.6 < 2/3
        1
        >>> out = verify(target, torch.tensor([[0.75, 0.0, 0.25]]).double(), [0], [0.7], 0.1)
        >>> out["accepted"], out["token"], out["law"].tolist()
        (0, 1, [0.0, 1.0, 0.0])
    """
    ### BEGIN SOLUTION
    accepted, law = 0, target[-1]
    for i, token in enumerate(tokens):
        if accept[i] * draft[i, token] >= target[i, token]:
            law = (target[i] - draft[i]).clamp(min=0)
            law = law / law.sum()
            break
        accepted += 1
    cumulative = law.cumsum(0)
    return {"accepted": accepted, "token": int((cumulative > choose * cumulative[-1]).nonzero()[0]), "law": law}
    ### END SOLUTION

# %% check="verify"

# %% [markdown]
# Two laws over eight tokens that have little in common, and 20,000 rounds: which law do the tokens have that come out?

# %% role="measure"
dice = torch.Generator().manual_seed(1)
target, draft = (2 * torch.randn(2, 8, generator=dice, dtype=torch.float64)).softmax(-1)
rounds, first = 20_000, torch.zeros(8)
drafted = torch.multinomial(draft, rounds, replacement=True, generator=dice).tolist()
uniform = torch.rand(rounds, 2, generator=dice, dtype=torch.float64).tolist()
both, kept = torch.stack([target, target]), 0
for token, (accept, choose) in zip(drafted, uniform, strict=True):
    out = verify(both, draft[None], [token], [accept], choose)
    kept += out["accepted"]
    first[token if out["accepted"] else out["token"]] += 1
_, axes = plt.subplots()
for place, (law, name) in enumerate(((target, "target"), (first / rounds, "what came out"), (draft, "draft"))):
    axes.bar(torch.arange(8) + 0.27 * (place - 1), law, 0.25, color=list(COLORS.values())[place], label=name)
axes.legend(frameon=False)
axes.set(xlabel="token", ylabel="probability", title="The law of the first token")
plt.show()
overlap = float(torch.minimum(target, draft).sum())
print(f"accepted {kept / rounds:.3f}; the overlap of both laws, the sum of min(p, q), is {overlap:.3f}")

# %% [markdown]
# The law is the target's, whatever the draft. What the draft decides is how often it is accepted: the overlap
# $\sum_t \min(p_t, q_t)$.
#
# In a model: the simplest draft looks for the last two tokens earlier in the text and proposes what followed them.
# It is worthless in a free text, and good where answers repeat their prompt: edits of a text, quotations, code.

# %% role="measure"
def speculate(engine, prompt, limit, guesses):
    """Greedy tokens with guesses looked up in the text so far; how many passes they took; guesses kept and refused."""
    text, passes, kept, refused = [*prompt, int(read_prompt(engine, prompt, 64)["logits"].argmax())], 0, 0, 0
    while len(text) < len(prompt) + limit:
        places = [i for i in range(len(text) - 2) if text[i : i + 2] == text[-2:]]
        guess = text[places[-1] + 2 : places[-1] + 2 + guesses] if places else []
        rows = F.one_hot(engine.forward([text[-1], *guess]).argmax(-1), config.vocabulary).double()
        draft = F.one_hot(torch.tensor(guess, dtype=torch.int64), config.vocabulary).double()
        out = verify(rows, draft, guess, [0.5] * len(guess), 0.5)
        text += [*guess[: out["accepted"]], out["token"]]
        engine.truncate(len(text) - 1)  # what was refused is forgotten
        passes += 1
        kept += out["accepted"]
        refused += out["accepted"] < len(guess)
    return text[len(prompt) : len(prompt) + limit], passes, kept, refused


passage, lookup = persuasion[30_000:30_090], {}
texts = {"a text that repeats itself": passage + passage[:12], "a free text": persuasion[40_000:40_080]}
for name, prompt in texts.items():
    plain, passes, *_ = speculate(Engine(), prompt, 48, 0)
    guessed, fewer, kept, refused = speculate(Engine(), prompt, 48, 6)
    lookup[name] = kept / max(1, kept + refused)
    print(f"{name}: {passes} passes without, {fewer} with guesses; the same tokens: {plain == guessed}")

# %% [markdown]
# ## 12 · How far to guess
#
# Each guess costs something, and a guess behind a wrong one is worth nothing.

# %% exercise="draft_length"
def draft_length(alpha, draft_cost, verify_cost):
    """How many tokens to draft: expected tokens, speed-up and the best length (Leviathan et al., 2023, section 3).

    Each drafted token is accepted with probability alpha, independently of the others, until the first that is not. A
    round with n drafted tokens yields the accepted ones and one more.

    Args:
        alpha: 0 to 1; draft_cost: time to draft one token.
        verify_cost: list; verify_cost[n] is the time of the target's pass that judges n drafted tokens. verify_cost[0],
            a pass without any, is the time of one token without speculation; draft_cost is in the same unit.

    Returns:
        {"tokens": list, expected tokens of a round with n = 0, 1, ... drafted tokens, floats;
        "speedup": list, how many times faster than without speculation, for each n;
        "best": int, the n with the largest speed-up, the smallest of several}

    Example:
        >>> out = draft_length(0.5, 0.25, [1.0, 1.0, 1.5])
        >>> out["tokens"], out["speedup"], out["best"]
        ([1.0, 1.5, 1.75], [1.0, 1.2, 0.875], 1)
    """
    ### BEGIN SOLUTION
    tokens = [float(sum(alpha**i for i in range(n + 1))) for n in range(len(verify_cost))]
    speedup = [
        expected * verify_cost[0] / (n * draft_cost + cost)
        for n, (expected, cost) in enumerate(zip(tokens, verify_cost, strict=True))
    ]
    return {"tokens": tokens, "speedup": speedup, "best": speedup.index(max(speedup))}
    ### END SOLUTION

# %% check="draft_length"

# %% [markdown]
# What could the pocket model gain? Candidates for a draft: a table of which token follows which in another novel, and
# the model's own first layers with its head. Overlap and cost of each, and the cost of a judging pass, can be measured
# on a text. (The lookup's share of accepted guesses is the one of the run above.)

# %% prediction="first-layers"
predict("first-layers", ..., "overlap of the law after 20 of the 30 layers with that after all, %")

# %% role="measure"
row = torch.tensor([persuasion[50_000:50_384]])
exits, states = {}, []
hooks = [layer.register_forward_hook(lambda _, __, out: states.append(out)) for layer in model.layers]
full = model(row)[0].softmax(-1)
for hook in hooks:
    hook.remove()
for depth in (10, 20, 25):
    law = model.lm_head(model.norm(states[depth - 1]))[0].softmax(-1)
    exits[f"{depth} of 30 layers"] = (float(torch.minimum(full, law).sum(-1).mean()), depth / 30)
other = torch.tensor(tokenizer.encode(novel(CALIBRATION)))
overlap = []
for place, token in enumerate(row[0].tolist()):
    after = other[1:][other[:-1] == token]
    law = torch.bincount(after, minlength=config.vocabulary) / max(1, len(after))
    overlap.append(float(torch.minimum(full[place], law).sum()))
exits["a table of followers"] = (sum(overlap) / len(overlap), 0.0)
exits["looked up in a text that repeats"] = (lookup["a text that repeats itself"], 0.0)
confront("first-layers", 100 * exits["20 of 30 layers"][0])

# %% role="measure"
engine, judge = Engine(), []
engine.forward(persuasion[50_000:50_128])
for n in range(10):


    def judging():
        engine.forward([7] * (n + 1))  # noqa: B023
        engine.truncate(128)


    judge.append(seconds(judging, 3))
_, axes = plt.subplots()
for name, (alpha, share) in exits.items():
    out = draft_length(alpha, share * judge[0], judge)
    gain = out["speedup"][out["best"]]
    print(f"{name:32} accepted {alpha:4.0%}, cost {share:.2f}: best {out['best']} guesses, {gain:.2f} times as fast")
    if not name.startswith(("10", "25")):  # the three layers' lines lie on one another
        (line,) = axes.plot(out["speedup"], "o-", markersize=3)
        label_line(line, name, x=7.0)
axes.axhline(1, color=COLORS["gray"], linestyle="--")
axes.set(xlabel="guesses in a round", ylabel="times as fast", title="What a draft would bring, from measured costs")
plt.show()

# %% [markdown]
# Layers of the model itself are far too dear for what they know. A small model that was trained for it, cheap *and*
# often right, is what makes speculation pay.
#
# ## 13 · The same thing, fast
#
# The course's own engine, `fourbit.llm.engine`, has the parts that you wrote: a cache that was taken once, chunks,
# common prefixes, stop strings, speculation. Its matrices stay in the file's 4 bits, and its kernels are the
# course's own (lab 05).

# %% role="measure"
from fourbit.llm.engine import Engine as FastEngine
from fourbit.llm.generation import generate

prompt = persuasion[60_000:60_064]
fast = FastEngine.open("smollm2", context=1024, threads=1)
running = generate(fast, prompt, limit=64, stop_tokens=())
said = "".join(piece.text for piece in running)
engine = Engine()
read_prompt(engine, prompt, 64)
mine = 1 / seconds(lambda: engine.forward([7]), 5)
theirs = running.usage.tokens_per_second
print(f"yours: {mine:.0f} tokens/s in float32; the course's: {theirs:.0f} tokens/s, "
      f"{fast.weight_bytes / 1e6:.0f} MB of weights, {fast.cache_bytes / 1e6:.0f} MB of cache")  # fmt: skip
print(said)

# %% [markdown]
# Both do the same arithmetic on the same tokens. The difference is the bytes, and the kernel that reads them. Lab 07
# puts a 7B behind this engine.
