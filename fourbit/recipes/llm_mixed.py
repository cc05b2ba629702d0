"""Measure every mixture of bits for five kinds of layers of the pocket model: python -m fourbit.recipes.llm_mixed

All matrices of a kind get 3, 4 or 6 bits (round to nearest, groups of 64): 3^5 = 243 mixtures. Each is judged
by its divergence from the reference on four windows of 192 tokens of the evaluation text and four of the hidden text.
The quantizer and the bytes are those of lab 04's own solution, which this runs from a checkout. Nothing is searched, so
the best mixture for any budget is known. About half an hour of one core.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from fourbit.data.assets import FOLDER, Asset, read_asset, record_asset
from fourbit.data.cache import write_atomically
from fourbit.exam.reference import load_lab
from fourbit.llm.evaluate import Reference, windows, with_weights
from fourbit.llm.loading import Loaded, load
from fourbit.llm.texts import EVALUATION, HIDDEN, novel

NAME = "llm-mixed-front"
FILE = "fronts/llm_mixed.json"
RECIPE = "python -m fourbit.recipes.llm_mixed"
MODEL, CHOICES, GROUP = "smollm2", (3, 4, 6), 64
LENGTH, COUNT = 192, 4  # windows of each text
TEXTS = {"evaluation": EVALUATION, "hidden": HIDDEN}
KINDS = {
    "qk": ("q_proj", "k_proj"),
    "v": ("v_proj",),
    "o": ("o_proj",),
    "gate_up": ("gate_proj", "up_proj"),
    "down": ("down_proj",),
}
Bits = Mapping[str, int]


def read_table(folder: Path = FOLDER) -> dict[str, Any]:
    """Return the stored table, after comparing it with the manifest.

    Keys: `kinds`; `choices`, bits; `sizes`, {kind: {bits: bytes}}; `alone`, {text: {kind: {bits: KL}}} with only that
    kind quantized; `plans`, all combinations, each {"bits": {kind: bits}, "bytes", "kl": {text: KL}}. Texts are
    "evaluation" and "hidden"; KL is to the reference, in nats per token.

    Raises:
        DataError: if it is missing or damaged.
    """
    table: dict[str, Any] = json.loads(read_asset(NAME, folder))

    def by_bits(row: dict[str, Any]) -> dict[int, Any]:  # the keys of JSON are text
        return {int(bits): value for bits, value in row.items()}

    table["sizes"] = {kind: by_bits(row) for kind, row in table["sizes"].items()}
    table["alone"] = {text: {kind: by_bits(row) for kind, row in rows.items()} for text, rows in table["alone"].items()}
    return table


class Table:
    """The pocket model with every kind at every width, and the references of both texts."""

    def __init__(self, loaded: Loaded, count: int = COUNT) -> None:
        lab = load_lab(Path(__file__).parents[2] / "solutions" / "04-llm-quantization").namespace()
        self.model = loaded.model
        weights = {name: p.data for name, p in self.model.named_parameters() if name.endswith("_proj.weight")}
        self.names = {k: [n for n in weights if n.split(".")[-2] in parts] for k, parts in KINDS.items()}
        self.rounded = {
            (name, bits): lab["dequantized"](lab["round_to_nearest"](weight, bits, GROUP), GROUP)
            for name, weight in weights.items()
            for bits in CHOICES
        }
        shapes = {name: list(weight.shape) for name, weight in weights.items()}
        self.sizes = {
            kind: {b: lab["model_bytes"]({n: shapes[n] for n in names}, names, b, GROUP, {})["total"] for b in CHOICES}
            for kind, names in self.names.items()
        }
        self.references = {
            text: Reference(self.model, windows(loaded.tokenizer.encode(novel(name)), LENGTH, count))
            for text, name in TEXTS.items()
        }

    def judge(self, bits: Bits) -> dict[str, float]:
        """Return {text: divergence} with the kinds in `bits` quantized."""
        chosen = {name: self.rounded[name, b] for kind, b in bits.items() for name in self.names[kind]}
        with with_weights(self.model, chosen):
            return {text: round(ref.judge(self.model).kl.mean, 5) for text, ref in self.references.items()}


def mixtures() -> Iterator[dict[str, int]]:
    """All choices of bits for the kinds."""
    for chosen in itertools.product(CHOICES, repeat=len(KINDS)):
        yield dict(zip(KINDS, chosen, strict=True))


def make(count: int = COUNT) -> dict[str, Any]:
    """Measure everything and return what is stored; fewer windows try the recipe out."""
    table = Table(load(MODEL), count)
    alone: dict[str, Any] = {text: {kind: {} for kind in KINDS} for text in TEXTS}
    for kind, bits in itertools.product(KINDS, CHOICES):
        for text, kl in table.judge({kind: bits}).items():
            alone[text][kind][bits] = kl
    plans = []
    for mixture in track(list(mixtures()), "Measuring mixtures"):
        size = sum(table.sizes[kind][bits] for kind, bits in mixture.items())
        plans.append({"bits": mixture, "bytes": size, "kl": table.judge(mixture)})
    found = {"recipe": RECIPE, "model": MODEL, "group": GROUP, "kinds": list(KINDS), "choices": list(CHOICES)}
    return found | {"sizes": table.sizes, "alone": alone, "plans": plans}


def main(arguments: list[str] | None = None) -> None:
    """Write the table and its entry in the manifest."""
    parser = argparse.ArgumentParser(description="Measure every mixture of bits for five kinds of layers.")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the assets (default: %(default)s)")
    parser.add_argument("--windows", type=int, default=COUNT, help="of each text; fewer to try it out (default: 4)")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    data = (json.dumps(make(chosen.windows)) + "\n").encode()
    (chosen.out / FILE).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(chosen.out / FILE, data)
    about = f"Divergence and bytes of all {len(CHOICES) ** len(KINDS)} mixtures of bits in {MODEL}"
    license = ("Apache-2.0; measured on SmolLM2-135M-Instruct (Apache-2.0)", "LICENSE-checkpoints.txt")
    record_asset(Asset(NAME, FILE, len(data), hashlib.sha256(data).hexdigest(), *license, RECIPE, about), chosen.out)
    print(f"{chosen.out / FILE}: {len(data):,} bytes")


if __name__ == "__main__":
    main()
