"""Greedy text of the pocket model, token for token: this engine, llama.cpp, and the plain transformer as the judge.

    python -m benchmarks.greedy            20 questions, 64 tokens each; three minutes

In float32 the engine has to agree with the plain model in every place. In 4 bits it rounds activations to 8 bits, as
llama.cpp does: then a token may be another one than the judge's after the same tokens where the two nearly tie. Each
such place is listed with the distance of the two logits, next to what that rounding, in the plain model, does to the
distance between its two best. llama.cpp comes as `pip install xllamacpp`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fourbit.llm.card import processor
from fourbit.llm.engine import Engine
from fourbit.llm.generation import generate
from fourbit.llm.gguf_file import GgufFile, write_gguf
from fourbit.llm.loading import Loaded, load
from fourbit.llm.registry import locate
from tests.llama_cpp import LlamaCpp
from tests.llm_plain import QUESTIONS, logits_at, rounded_inputs, shortfalls

RESULTS = Path(__file__).parent / "results" / "greedy.json"
LENGTH = 64


def main() -> None:
    """Write the table to benchmarks/results/greedy.json and print its summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, default=RESULTS)
    path = parser.parse_args().json
    judge = load("smollm2")
    texts = (judge.tokenizer.chat([{"role": "user", "content": question}]) for question in QUESTIONS)
    prompts = [judge.tokenizer.encode(text, special=False) for text in texts]
    packed = Engine.open("smollm2", context=256, threads=1)
    found = {"ours, float32": in_float32(prompts), "ours, 4 bits": [greedy(packed, prompt) for prompt in prompts]}
    other = LlamaCpp(packed.path)
    found["llama.cpp, 4 bits"] = [[step.token for step in other.complete(p, LENGTH, 1)] for p in prompts]
    report = {
        "model": packed.path.name, "questions": len(prompts), "tokens_each": LENGTH, "processor": processor(),
        "kernels": packed.kernel.isa, "rounding_in_the_plain_model": rounding(judge, prompts, found["ours, 4 bits"]),
        "engines": {name: judged(judge, prompts, texts_) for name, texts_ in found.items()},
        "ours_and_llama_cpp": apart(found["ours, 4 bits"], found["llama.cpp, 4 bits"]),
    }  # fmt: skip
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


def greedy(engine: Engine, prompt: Sequence[int]) -> list[int]:
    return [piece.token for piece in generate(engine, prompt, limit=LENGTH, stop_tokens=())]


def in_float32(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """The engine on the same weights stored as float32, whose products round nothing to 8 bits."""
    source = GgufFile(locate("smollm2"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f32.gguf"
        write_gguf(path, source.config, {name: source.tensor(name) for name in source.names()}, source.metadata)
        engine = Engine.open(path, context=256, threads=1, kv="f32")
        return [greedy(engine, prompt) for prompt in prompts]


def judged(judge: Loaded, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """In how many places a text has another token than the judge's after the same tokens, and how near the two are."""
    places, ties = 0, list[float]()
    for prompt, text in zip(prompts, texts, strict=True):
        fell = shortfalls(logits_at(judge, prompt, text), text)
        places += len(text)
        ties += fell[fell > 0].tolist()
    return {"places": places, "other_tokens": len(ties), "distances_in_logits": [round(tie, 4) for tie in sorted(ties)]}


def rounding(judge: Loaded, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]) -> dict[str, float]:
    """What 8-bit activations do, in the plain model, to the distance between its two best logits."""
    parts, others = [], 0
    for prompt, text in zip(prompts, texts, strict=True):
        exact = logits_at(judge, prompt, text)
        with rounded_inputs(judge.model):
            rounded = logits_at(judge, prompt, text)
        parts.append((rounded - exact).gather(1, exact.topk(2).indices).diff(dim=1)[:, 0])
        others += int((rounded.argmax(-1) != exact.argmax(-1)).sum())
    moved = torch.cat(parts)
    return {
        "other_tokens": others,
        "deviation_of_distances": round(float(moved.std()), 4),
        "largest_change_of_a_distance": round(float(moved.abs().max()), 4),
    }


def apart(ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]) -> dict[str, Any]:
    """How many tokens two engines have in common before the first that differs, text by text."""
    common = [
        next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
        for one, two in zip(ours, theirs, strict=True)
    ]
    return {"equal_texts": sum(n == len(t) for n, t in zip(common, theirs, strict=True)), "tokens_in_common": common}


if __name__ == "__main__":
    main()
