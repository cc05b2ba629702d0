"""Data of the explorable on attention: real attention of the pocket model, and what PyTorch computes from it.

    python site/exports_attention.py            writes attention.json, attention.bin and attention-vectors.json
    python site/exports_attention.py --check    says whether what is committed is fresh

attention.bin holds, for each layer and head, the rows of the lower triangle as bytes: row t has t + 1 codes, which
sum to 255, so that a share of a row is exactly a share of codes. Needs torch and the pocket model; a few seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SITE = Path(__file__).resolve().parent
sys.path[:0] = [str(SITE), str(SITE.parent), str(SITE.parent / "lecture_notes" / "figures")]

import exporting  # noqa: E402
from measure_long_context import weights_of  # noqa: E402

from fourbit.llm.loading import load  # noqa: E402
from fourbit.llm.texts import EVALUATION, novel  # noqa: E402

BEGIN, TOKENS = "Sir Walter Elliot, of Kellynch Hall,", 72
LAYERS = (0, 4, 11, 15, 18)
FROM = 16  # means are over the queries from here on: earlier ones have few keys to choose from
LEVELS = 255
MODELS = {  # layers, heads of keys, width of a head
    "SmolLM2-135M": (30, 3, 64),
    "Llama-2-7B": (32, 32, 128),
    "Mistral-7B": (32, 8, 128),
    "Qwen2.5-7B": (28, 4, 128),
}
POLICIES = ((0, 16), (1, 15), (4, 12), (4, 28), (0, 72))  # sinks and window of the test vectors


def made() -> dict[str, Any]:
    """Return {file name: JSON value or bytes}."""
    torch.set_num_threads(1)
    llm = load("smollm2")
    text = novel(EVALUATION)
    tokens = llm.tokenizer.encode(text[text.index(BEGIN) :][: 8 * TOKENS])[:TOKENS]
    with torch.no_grad():
        every = weights_of(llm.model, torch.tensor(tokens))
    maps = torch.stack([every[i] for i in LAYERS]).double()  # (layers, heads, T, T)
    codes = coded(maps)
    about = {
        "tokens": [llm.tokenizer.decode([token]) for token in tokens],
        "layers": list(LAYERS),
        "heads": maps.shape[1],
        "from": FROM,
        "levels": LEVELS,
        "models": {name: 2 * layers * heads * width * 2 for name, (layers, heads, width) in MODELS.items()},
    }
    below = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()
    return {
        "attention.json": about,
        "attention.bin": codes[:, :, below].numpy().tobytes(),
        "attention-vectors.json": vectors(maps, codes.double() / LEVELS),
    }


def coded(maps: Tensor) -> Tensor:
    """Rows of shares as uint8 that sum to LEVELS: rounded down, and the largest remainders up."""
    scaled = maps * LEVELS
    down = scaled.floor()
    missing = (LEVELS - down.sum(-1)).round()
    rank = torch.argsort(scaled - down, dim=-1, descending=True, stable=True).argsort(-1)
    return (down + (rank < missing[..., None])).to(torch.uint8)


def lost(maps: Tensor, sinks: int, window: int) -> Tensor:
    """The attention that goes to keys outside of the cache, for each query (..., T)."""
    place = torch.arange(maps.shape[-1])
    kept = (place < sinks) | (place > place[:, None] - window)
    return (maps * ~kept).sum(-1)


def vectors(maps: Tensor, codes: Tensor) -> dict[str, Any]:
    """Means over the queries from FROM on, of the model's own attention and of its codes; of each layer and head."""
    found: dict[str, Any] = {"cases": []}
    for name, given in (("exact", maps), ("coded", codes)):
        found[f"first, {name}"] = rounded(given[..., FROM:, 0].mean(-1))
    for sinks, window in POLICIES:
        case: dict[str, Any] = {"sinks": sinks, "window": window}
        for name, given in (("exact", maps), ("coded", codes)):
            case[name] = rounded(lost(given, sinks, window)[..., FROM:].mean(-1))
        found["cases"].append(case)
    return found


def rounded(values: Tensor) -> list[list[float]]:
    return [[round(value, 9) for value in row] for row in values.tolist()]


def stale() -> list[str]:
    """Return the names of committed files that are not what would be made now, the last code or digits aside."""
    vectors = "attention-vectors.json"
    return exporting.stale(made(), lambda name: (0.0, 1e-3) if name == vectors else exporting.EXACT, codes=1)


if __name__ == "__main__":
    exporting.main("exports_attention", made, stale)
