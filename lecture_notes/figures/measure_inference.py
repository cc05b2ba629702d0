"""Measure what the chapter on inference reports, on the pocket language model, and write inference.json.

    python lecture_notes/figures/measure_inference.py [PART ...]     all parts, or these alone; the others stay

Ten minutes of one core. The engine runs on lab 06's reference solutions in float32; texts are from Persuasion, the
table of followers from Northanger Abbey. Times are CPU time of one thread, the least of several runs that are
interleaved: other programs on the machine can only add to them.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from unittest import mock

import torch
import torch.nn.functional as F
from _parts import MACHINE, measure

from fourbit.exam.reference import load_lab
from fourbit.llm.catalog import find
from fourbit.llm.evaluate import windows
from fourbit.llm.loading import Loaded, load
from fourbit.llm.texts import CALIBRATION, EVALUATION, novel

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = Path(__file__).parent / "inference.json"
WINDOWS = (6, 256)  # of the evaluation text, and their length
SHOWN = 16  # the layer whose keys and values are drawn
BLOCK = 32  # tokens that share a scale by channel
PLACES = (16, 64, 128, 256, 384, 512, 768, 1024)
CHUNKS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
BATCHES = (1, 2, 4, 8, 16)
DEPTHS = (10, 15, 20, 25, 28)
WAYS = ("tt", "ct", "tc", "cc")  # keys by token or channel, values by token or channel
SINK_WINDOW, SINK_LENGTH = 128, 768
Lab = Mapping[str, Any]
Squeeze = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, eq=False)
class Pocket:
    """The pocket model, the evaluation text, and the functions of lab 06."""

    lab: Lab
    llm: Loaded
    tokens: list[int]

    @classmethod
    def load(cls, name: str | Path = "smollm2") -> Pocket:
        llm = load(name)
        lab = load_lab(ROOT / "solutions/06-inference").namespace()
        return cls(lab, llm, llm.tokenizer.encode(novel(EVALUATION)))


class Engine:
    """The model on the lab's rope, KVCache and attend, for a batch of texts; as in the lab's notebook."""

    def __init__(self, pocket: Pocket, batch: int = 1, capacity: int = 1100, squeeze: Squeeze | None = None) -> None:
        self.pocket, self.model, self.config, self.squeeze = pocket, pocket.llm.model, pocket.llm.config, squeeze
        make = pocket.lab["KVCache"]
        self.caches = [make(batch, self.config.kv_heads, capacity, self.config.head_width) for _ in self.model.layers]
        self.context, self.tokens, self.reads = capacity, list[int](), list[int]()

    def states(self, tokens: torch.Tensor) -> torch.Tensor:
        """Read tokens (batch, new), and return their final states (batch, new, width)."""
        lab, width = self.pocket.lab, self.config.head_width
        places = torch.tensor(self.caches[0].lengths)[:, None] + torch.arange(tokens.shape[1])
        x, layers = self.model.embed_tokens(tokens), cast(Any, self.model.layers)
        for layer, cache in zip(layers, self.caches, strict=True):
            own, normed = layer.self_attn, layer.input_layernorm(x)
            parts = [p(normed).unflatten(-1, (-1, width)).transpose(1, 2) for p in (own.q_proj, own.k_proj, own.v_proj)]
            q, k = (lab["rope"](part, places, self.config.rope_theta) for part in parts[:2])
            k, v = (k, parts[2]) if self.squeeze is None else self.squeeze(k, parts[2])
            cache.append(k, v)
            x = x + own.o_proj(lab["attend"](q, *cache.view(), cache.lengths).transpose(1, 2).flatten(2))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return torch.as_tensor(self.model.norm(x))

    def forward(self, tokens: list[int]) -> torch.Tensor:
        """Read a list of tokens of one text, and return the logits (len, vocabulary) after each."""
        logits = self.model.lm_head(self.states(torch.tensor([tokens])))[0]
        self.tokens += tokens
        self.reads.append(len(tokens))
        return torch.as_tensor(logits)

    def truncate(self, length: int) -> None:
        """Forget the tokens of each text from `length` on."""
        del self.tokens[length:]
        for cache in self.caches:
            cache.truncate([length] * len(cache.lengths))


def least(runs: Sequence[Callable[[], Any]], times: int = 9) -> list[float]:
    """The least CPU time of each of several runs, seconds; they take turns, so that a busy minute disturbs all."""
    found = [math.inf] * len(runs)
    for _ in range(times):
        for i, run in enumerate(runs):
            start = time.process_time()
            run()
            found[i] = min(found[i], time.process_time() - start)
    return found


def short(values: Any, digits: int = 4) -> Any:
    """Numbers with a few significant digits, in lists as they were."""
    return [short(v, digits) for v in values] if isinstance(values, list) else float(f"{values:.{digits}g}")


# parts


def consistency(pocket: Pocket) -> dict[str, Any]:
    """How far cached logits are from uncached ones, by how a text was read."""
    text, engine = pocket.tokens[5000:5064], Engine(pocket, capacity=80)
    whole = pocket.llm.model(torch.tensor([text]))[0]
    apart = {}
    for name, cuts in (("chunks", (0, 20, 50, 64)), ("tokens", tuple(range(65)))):
        engine.truncate(0)
        parts = [engine.forward(text[a:b]) for a, b in itertools.pairwise(cuts)]
        apart[name] = short(float((torch.cat(parts) - whole).abs().max()), 2)
    return {"largest": short(float(whole.abs().max())), "apart": apart}


def positions(pocket: Pocket) -> dict[str, Any]:
    """CPU seconds of one more token, by its position, with the cache and without."""
    engine, model = Engine(pocket), pocket.llm.model
    engine.forward(pocket.tokens[5000 : 5000 + PLACES[-1]])
    full = [tuple(part.clone() for part in cache.view()) for cache in engine.caches]

    def at(place: int) -> Callable[[], Any]:
        engine = Engine(pocket, capacity=place)
        for cache, pair in zip(engine.caches, full, strict=True):
            cache.append(*(part[:, :, : place - 1] for part in pair))

        def step() -> None:
            engine.forward([7])
            engine.truncate(place - 1)

        return step

    rows = [torch.tensor([pocket.tokens[5000 : 5000 + place]]) for place in PLACES]
    again = [lambda row=row: model.lm_head(model.hidden(row)[:, -1]) for row in rows]
    found = {"cached": least([at(place) for place in PLACES]), "again": least(again, 3)}
    return {"places": PLACES} | {name: short(values) for name, values in found.items()}


def chunks(pocket: Pocket) -> dict[str, Any]:
    """CPU seconds of a pass over so many tokens behind 128 others; matrices alone have `weights` weights."""
    engine = Engine(pocket, capacity=400)
    engine.forward(pocket.tokens[5000:5128])

    def read(count: int) -> Callable[[], None]:
        def run() -> None:
            engine.forward(pocket.tokens[5128 : 5128 + count])
            engine.truncate(128)

        return run

    model = pocket.llm.model
    weights = sum(p.numel() for name, p in model.named_parameters() if name.endswith("_proj.weight"))
    taken = least([read(n) for n in CHUNKS]), least([read(n + 1) for n in range(13)])
    return {"chunks": CHUNKS, "weights": weights, "seconds": short(taken[0]), "judging": short(taken[1])}


def batches(pocket: Pocket) -> dict[str, Any]:
    """CPU seconds of one step of so many texts, each with 64 tokens behind it, and with 512."""

    def stepping(batch: int, context: int) -> Callable[[], Any]:
        first, engine = Engine(pocket, 1, context), Engine(pocket, batch, context + 1)
        first.states(torch.tensor([pocket.tokens[7000 : 7000 + context]]))
        for cache, full in zip(engine.caches, first.caches, strict=True):
            cache.append(*(part.expand(batch, -1, -1, -1) for part in full.view()))

        def step() -> None:
            engine.model.lm_head(engine.states(torch.full((batch, 1), 7))[:, -1])
            engine.truncate(context)

        return step

    found = {str(context): short(least([stepping(b, context) for b in BATCHES], 7)) for context in (64, 512)}
    return {"batches": BATCHES} | found


def channels(pocket: Pocket) -> dict[str, Any]:
    """Keys and values of one layer: by channel, the 5th, 50th and 95th percentile over tokens."""
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def listen(k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        kept.append((k[0], v[0]))
        return k, v

    Engine(pocket, squeeze=listen).states(torch.tensor([pocket.tokens[20_000:20_512]]))
    found: dict[str, Any] = {"layer": SHOWN}
    for name, part in zip(("keys", "values"), kept[SHOWN], strict=True):
        flat = part.transpose(0, 1).flatten(1)[1:]  # without the first token
        found[name] = short(flat.quantile(torch.tensor([0.05, 0.5, 0.95]), dim=0).tolist(), 3)
    return found


def rounding(pocket: Pocket, bits: int, way: str) -> Squeeze:
    """Keys and values rounded and restored, each by token (t) or by channel (c)."""
    lab, by = pocket.lab, {"t": "token", "c": "channel"}

    def squeeze(k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pair = zip((k, v), way, strict=True)
        k, v = (lab["restored"](lab["quantize_kv"](x[0], bits, by[w], BLOCK), BLOCK)[None] for x, w in pair)
        return k, v

    return squeeze


def laws(pocket: Pocket, row: torch.Tensor, squeeze: Squeeze | None = None) -> torch.Tensor:
    """Log-probabilities (tokens - 1, vocabulary) behind all tokens of a row but the first."""
    states = Engine(pocket, capacity=len(row), squeeze=squeeze).states(row[None])[0, 1:]
    return torch.as_tensor(pocket.llm.model.lm_head(states).log_softmax(-1))


def divergences(pocket: Pocket, rows: torch.Tensor, squeeze: Squeeze) -> list[float]:
    """The mean divergence in each row, in nats per token, with keys and values rounded."""
    found = []
    for row in rows:
        exact, given = laws(pocket, row), laws(pocket, row, squeeze)
        found.append(float((exact.exp() * (exact - given)).sum(-1).double().mean()))
    return found


def rounded_caches(pocket: Pocket) -> dict[str, Any]:
    rows, table = windows(pocket.tokens, WINDOWS[1], WINDOWS[0]), {}
    for bits in (8, 4, 3, 2):
        for way in WAYS if bits < 8 else ("tt",):
            table[f"{bits} {way}"] = short(divergences(pocket, rows, rounding(pocket, bits, way)))
    return {"windows": WINDOWS, "block": BLOCK, "kl": table}


def overlaps(pocket: Pocket) -> dict[str, Any]:
    """Mean overlap, the sum of min(p, q), of the model's law with those of drafts; and how looking up does.

    Looked up are the last two tokens in the novel so far, as in :func:`looked_up`; what followed them is right where it
    is the model's most likely token.
    """
    model, found = pocket.llm.model, dict[str, Any]()
    rows, states = windows(pocket.tokens, 384, 2), list[torch.Tensor]()
    hooks = [layer.register_forward_hook(lambda _, __, out: states.append(out)) for layer in model.layers]
    other = torch.tensor(pocket.llm.tokenizer.encode(novel(CALIBRATION)))
    looked, proposed = list[bool](), 0
    for row in rows:
        states.clear()
        full = model(row[None])[0].softmax(-1)
        for depth in DEPTHS:
            law = model.lm_head(model.norm(states[depth - 1]))[0].softmax(-1)
            found.setdefault(str(depth), []).append(float(torch.minimum(full, law).sum(-1).mean()))
        shares = []
        for place, token in enumerate(row.tolist()):
            after = other[1:][other[:-1] == token]
            law = torch.bincount(after, minlength=full.shape[1]) / max(1, len(after))
            shares.append(float(torch.minimum(full[place], law).sum()))
        found.setdefault("followers", []).append(sum(shares) / len(shares))
        text, choices = row.tolist(), full.argmax(-1).tolist()
        for t in range(2, len(text)):
            seen = [i for i in range(t - 1) if text[i : i + 2] == text[t - 1 : t + 1]]
            looked.append(bool(seen) and text[seen[-1] + 2] == choices[t])
            proposed += bool(seen)
    for hook in hooks:
        hook.remove()
    lookup = {"places": len(looked), "proposed": proposed, "right": sum(looked)}
    overlap = {name: short(values) for name, values in found.items()}
    return {"layers": len(model.layers), "overlap": overlap, "lookup": lookup}


def looked_up(pocket: Pocket, prompt: list[int], limit: int, count: int) -> tuple[list[int], int, int, int]:
    """Greedy tokens with guesses looked up in the text; passes, guesses kept, and guesses refused."""
    lab, engine, words = pocket.lab, Engine(pocket, capacity=400), pocket.llm.config.vocabulary
    text, passes, kept, refused = [*prompt, int(lab["read_prompt"](engine, prompt, 64)["logits"].argmax())], 0, 0, 0
    while len(text) < len(prompt) + limit:
        places = [i for i in range(len(text) - 2) if text[i : i + 2] == text[-2:]]
        guess = text[places[-1] + 2 : places[-1] + 2 + count] if places else []
        rows = F.one_hot(engine.forward([text[-1], *guess]).argmax(-1), words).double()
        draft = F.one_hot(torch.tensor(guess, dtype=torch.int64), words).double()
        out = lab["verify"](rows, draft, guess, [0.5] * len(guess), 0.5)
        text += [*guess[: out["accepted"]], out["token"]]
        engine.truncate(len(text) - 1)
        passes, kept, refused = passes + 1, kept + out["accepted"], refused + (out["accepted"] < len(guess))
    return text[len(prompt) : len(prompt) + limit], passes, kept, refused


def lookups(pocket: Pocket) -> dict[str, Any]:
    """Passes for 64 greedy tokens, plain and with guesses, in texts that repeat themselves and in free ones."""
    found: dict[str, Any] = {"tokens": 64, "guesses": 6}
    for name in ("repeated", "free"):
        rows = []
        for start in (30_000, 50_000, 70_000, 90_000):
            passage = pocket.tokens[start : start + 90]
            prompt = passage + passage[:12] if name == "repeated" else passage
            plain, passes, *_ = looked_up(pocket, prompt, 64, 0)
            guessed, fewer, kept, refused = looked_up(pocket, prompt, 64, 6)
            rows.append({"plain": passes, "guessed": fewer, "kept": kept, "refused": refused, "same": plain == guessed})
        found[name] = rows
    return found


def tails(pocket: Pocket) -> dict[str, Any]:
    """Over the places of a text: the probability of all tokens below 1/1000 each, and how many tokens cuts leave."""
    row = windows(pocket.tokens, 256, 1)[0]
    logits, sample = pocket.llm.model(row[None])[0, 8::8], pocket.lab["sample"]
    found: dict[str, Any] = {"places": len(logits)}
    for temperature in (0.7, 1.0, 1.5):
        given = [sample(z, temperature, 0, 1.0, 0.0, 0.5)["probabilities"] for z in logits]
        found[f"tail {temperature}"] = short([float(p[p < 1e-3].sum()) for p in given], 3)
    for name, cut in (("top_p", (1.0, 0, 0.9, 0.0)), ("min_p", (1.0, 0, 1.0, 0.1))):
        found[name] = [int((sample(z, *cut, 0.5)["probabilities"] > 0).sum()) for z in logits]
    return found


def sinks(pocket: Pocket) -> dict[str, Any]:
    """Perplexity when a token sees only a window of the text, with and without the text's first tokens."""
    row, original = torch.tensor([pocket.tokens[30_000 : 30_000 + SINK_LENGTH]]), F.scaled_dot_product_attention
    place = torch.arange(SINK_LENGTH)
    near = place[:, None] - place < SINK_WINDOW
    found: dict[str, Any] = {"width": SINK_WINDOW, "tokens": SINK_LENGTH}
    for name, kept in (("full", SINK_LENGTH), ("window", 0), ("one", 1), ("four", 4)):
        seen = (near | (place < kept)).tril()

        def banded(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor = seen, **_: Any) -> Any:
            return original(q, k, v, attn_mask=seen)

        with mock.patch.object(F, "scaled_dot_product_attention", banded):
            logits = pocket.llm.model(row)[0, SINK_WINDOW + 64 : -1].log_softmax(-1)
        nll = -logits.gather(1, row[0, SINK_WINDOW + 65 :, None])
        found[name] = short(math.exp(float(nll.double().mean())))
    return found


def memory(pocket: Pocket) -> dict[str, Any]:
    """What an exact replay and the largest single tensor of tiled attention need is arithmetic: here only its error."""
    g, fold = torch.Generator().manual_seed(7), pocket.lab["fold_tile"]
    query, keys, values = torch.randn(3, 1024, 64, generator=g)
    exact = (query.double() @ keys.double().T / 8).softmax(-1) @ values.double()
    state = {"largest": torch.full((1024,), -math.inf), "sum": torch.zeros(1024), "mixed": torch.zeros(1024, 64)}
    for start in range(0, 1024, 32):
        state = fold(state, query @ keys[start : start + 32].T / 8, values[start : start + 32])
    tiled = state["mixed"] / state["sum"][:, None]
    plain = (query @ keys.T / 8).softmax(-1) @ values
    apart = {"tiled": tiled, "plain": plain}
    return {name: short(float((found - exact).abs().max()), 2) for name, found in apart.items()}


PARTS: dict[str, Callable[[Pocket], Any]] = {
    "consistency": consistency,
    "positions": positions,
    "chunks": chunks,
    "batches": batches,
    "channels": channels,
    "rounded": rounded_caches,
    "overlaps": overlaps,
    "lookups": lookups,
    "tails": tails,
    "sinks": sinks,
    "tiles": memory,
}


def main() -> None:
    about = {"checkpoint": find("smollm2").files[0].sha256, "machine": MACHINE}
    description = "Measure what the chapter on inference reports."
    measure(PARTS, TARGET, about, description, lambda: (Pocket.load(),))


if __name__ == "__main__":
    main()
