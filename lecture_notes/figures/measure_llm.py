"""Measure what the chapter on four bits reports, on the pocket language model, and write llm.json.

    python lecture_notes/figures/measure_llm.py [PART ...]     all parts but the table, or these alone; the others stay
    python lecture_notes/figures/measure_llm.py --full         the table of every scheme as well

A quarter of an hour of one core, with `--full` an hour. The arithmetic is that of lab 04's reference solutions (even
levels by k-means are lab 02's), so that the chapter reports what the lab computes; tests/test_lab04_effects.py asserts
the effects with the same functions. Statistics and scales come from Northanger Abbey, divergences from Persuasion.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import torch
from _parts import MACHINE, measure, store
from bitsandbytes import functional as bnb

from fourbit.exam.reference import load_lab
from fourbit.llm.catalog import find
from fourbit.llm.evaluate import Reference, windows, with_weights
from fourbit.llm.loading import Loaded, load
from fourbit.llm.model import generate_greedy
from fourbit.llm.texts import CALIBRATION, EVALUATION, novel

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = Path(__file__).parent / "llm.json"
ABOUT, INDENT = {"checkpoint": find("smollm2").files[0].sha256, "machine": MACHINE}, 1  # of the file
LAB, FULL = (6, 256), (8, 512)  # windows of the evaluation text and their length: the lab's, and the table's
READS = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}  # matrices with the inputs of another
BY = ("random", "weight", "activation")
RTN = tuple((bits, 64) for bits in (8, 6, 5, 4, 3, 2)) + ((4, 128), (4, 32), (4, None), (3, 128), (3, 32), (2, 32))
GGUF = (("Q8_0", 8, 8.5), ("Q5_0", 5, 5.5), ("Q4_0", 4, 4.5), ("Q4_1", 4, 5.0), ("MXFP4", 4, 4.25))  # bits, and stored
Lab = Mapping[str, Any]
Weights = dict[str, torch.Tensor]
Scales = Callable[[torch.Tensor, list[torch.Tensor]], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Pocket:
    """The pocket model, its matrices by name, and the functions of lab 04."""

    lab: Lab
    llm: Loaded
    weights: Weights

    @classmethod
    def load(cls, name: str | Path = "smollm2") -> Pocket:
        llm = load(name)
        weights = {key: p.data for key, p in llm.model.named_parameters() if key.endswith("_proj.weight")}
        return cls(load_lab(ROOT / "solutions/04-llm-quantization").namespace(), llm, weights)

    def text(self, name: str, count: int, length: int) -> torch.Tensor:
        """int64 (count, length), spread evenly over a novel."""
        return windows(self.llm.tokenizer.encode(novel(name)), length, count)

    def bits_of(self, bits: int, group: int | None) -> float:
        """Bits of codes, scales and zeros for each weight; no group is a group for each row."""
        shapes = {name: list(w.shape) for name, w in self.weights.items()}
        if group is not None:
            return float(self.lab["model_bytes"](shapes, list(shapes), bits, group, {})["bits_per_weight"])
        columns = sum(w.numel() for w in self.weights.values()) / sum(len(w) for w in self.weights.values())
        return bits + 24 / columns


def source_of(name: str) -> str:
    """The matrix under whose name the inputs of `name` are kept."""
    name = name.removesuffix(".weight")
    for reader, kept in READS.items():
        name = name.replace(reader, kept)
    return name


def listen(pocket: Pocket, tokens: torch.Tensor, take: Callable[[str, torch.Tensor], None], only: str = "") -> None:
    """Run the model on each row and give `take` the inputs (T, in) of each matrix whose name contains `only`."""
    modules = dict(pocket.llm.model.named_modules())
    names = [n for n in dict.fromkeys(map(source_of, pocket.weights)) if only in n]
    hooks = [
        modules[name].register_forward_pre_hook(lambda _, given, name=name: take(name, given[0][0])) for name in names
    ]
    try:
        with torch.no_grad():
            for row in tokens:
                pocket.llm.model.hidden(row[None])
    finally:
        for hook in hooks:
            hook.remove()


def inputs_of(pocket: Pocket, tokens: torch.Tensor, only: str = "") -> Weights:
    """The inputs (tokens, in) of the matrices."""
    found: dict[str, list[torch.Tensor]] = {}
    listen(pocket, tokens, lambda name, x: found.setdefault(name, []).append(x), only)
    return {name: torch.cat(rows) for name, rows in found.items()}


def hessians_of(pocket: Pocket, tokens: torch.Tensor, skip: int = 0) -> Weights:
    """X^T X (in, in) float64 of the inputs, without the first `skip` tokens of each window."""
    found: Weights = {}

    def take(name: str, x: torch.Tensor) -> None:
        x = x[skip:].double()
        found[name] = found[name] + x.T @ x if name in found else x.T @ x

    listen(pocket, tokens, take)
    return found


# schemes: each gives parameters by name


def rounded(pocket: Pocket, bits: int, group: int | None, matrices: Weights | None = None) -> Weights:
    """Round to the nearest, asymmetric with an integer zero."""
    found = {}
    for name, w in (pocket.weights if matrices is None else matrices).items():
        size = w.shape[1] if group is None else group
        found[name] = pocket.lab["dequantized"](pocket.lab["round_to_nearest"](w, bits, size), size)
    return found


def float_minimum(pocket: Pocket, bits: int, group: int) -> Weights:
    """Rounding with the group's smallest value as the offset."""
    found = {}
    for name, w in pocket.weights.items():
        parts = w.view(len(w), -1, group)
        low, high = parts.amin(-1, keepdim=True), parts.amax(-1, keepdim=True)
        scale = ((high - low) / (2**bits - 1)).clamp(min=1e-12)
        found[name] = (((parts - low) / scale).round() * scale + low).view(w.shape)
    return found


def in_blocks(pocket: Pocket, levels: torch.Tensor, block: int, *, twice: bool = False) -> Weights:
    """Any levels, scaled to the largest magnitude of each block; `twice` quantizes these magnitudes to 8 bits too."""
    quantize, found = pocket.lab["quantize_blocks"], {}
    dynamic = bnb.create_dynamic_map()
    for name, w in pocket.weights.items():
        q = quantize(w, levels, block)
        absmax = q["absmax"]
        if twice:
            offset = absmax.mean()
            second = quantize(absmax - offset, dynamic, 256)
            absmax = dynamic[second["codes"].long()] * second["absmax"].repeat_interleave(256)[: len(absmax)] + offset
        found[name] = (levels[q["codes"].long()].view(-1, block) * absmax[:, None]).view(w.shape)
    return found


def levels(pocket: Pocket) -> dict[str, torch.Tensor]:
    """Sixteen levels for magnitudes up to 1: even without zero, even with zero (15), NormalFloat, and the best."""
    means = load_lab(ROOT / "solutions/02-quantization").namespace()["kmeans_codebook"]
    return {
        "even, 15": torch.arange(-7, 8) / 7,
        "even, 16": torch.linspace(-1, 1, 16),
        "NF4": pocket.lab["normal_levels"](4),
        "best": means(units(pocket), 4)["centroids"].sort().values,
    }


def units(pocket: Pocket) -> torch.Tensor:
    """Weights over the largest magnitude of their block of 64, of every 53rd block."""
    blocks = torch.cat([w.view(-1, 64)[::53] for w in pocket.weights.values()])
    return (blocks / blocks.abs().amax(1, keepdim=True)).flatten()


def in_gguf(pocket: Pocket, kind: str) -> Weights:
    """A block format of GGUF files, by the gguf package."""
    code, found = gguf.GGMLQuantizationType[kind], {}
    for name, w in pocket.weights.items():
        found[name] = torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(w.numpy(), code), code).copy())
    return found


def keeping(pocket: Pocket, inputs: Weights, by: str, share: float, bits: int = 3, group: int = 128) -> Weights:
    """Rounded, but for a share of the input channels of each matrix."""
    changed = rounded(pocket, bits, group)
    for name, w in pocket.weights.items():
        kept = pocket.lab["salient_channels"](inputs[source_of(name)], w, share, by)
        changed[name][:, kept] = w[:, kept]
    return changed


def folded(pocket: Pocket, inputs: Weights, scales_for: Scales) -> Weights:
    """All parameters after folding; scales_for(inputs, matrices) gives the scales of the channels that they read.

    Three query heads read each channel of a value head, which can have one scale only: the geometric mean.
    """
    config, model = pocket.llm.config, pocket.llm.model
    p = {name: value.data for name, value in model.named_parameters()}
    shared = config.heads // config.kv_heads
    heads = torch.arange(config.heads) // shared * config.head_width
    reads = (heads[:, None] + torch.arange(config.head_width)).flatten()  # column of o -> row of v

    def fold(before: str, after: list[str], columns: torch.Tensor) -> None:
        matrices = [p[f"{name}.weight"] for name in after]
        scales = scales_for(inputs[source_of(after[0])], matrices)
        if columns is reads:
            scales = (torch.zeros(len(p[before])).index_add(0, reads, scales.log()) / shared).exp()
        parts = pocket.lab["fold_scales"]({"weight": p[before], "bias": None}, matrices, scales, columns)
        p[before] = parts["before"]["weight"]
        p.update(zip((f"{name}.weight" for name in after), parts["after"], strict=True))

    every = torch.arange(max(config.width, config.ff))
    for i in range(config.layers):
        own = f"layers.{i}."
        fold(own + "input_layernorm.weight", [own + f"self_attn.{n}_proj" for n in "qkv"], every[: config.width])
        fold(own + "self_attn.v_proj.weight", [own + "self_attn.o_proj"], reads)
        gate_up = [own + "mlp.gate_proj", own + "mlp.up_proj"]
        fold(own + "post_attention_layernorm.weight", gate_up, every[: config.width])
        fold(own + "mlp.up_proj.weight", [own + "mlp.down_proj"], every[: config.ff])
    return p


def awq_folded(pocket: Pocket, inputs: Weights, bits: int, group: int) -> Weights:
    """All parameters with AWQ's scales folded in, nothing rounded yet."""
    search = pocket.lab["awq_scales"]
    return folded(pocket, inputs, lambda x, matrices: search(x, matrices, bits, group, 10)["scales"])


def awq(pocket: Pocket, inputs: Weights, bits: int, group: int) -> Weights:
    p = awq_folded(pocket, inputs, bits, group)
    return p | rounded(pocket, bits, group, {name: p[name] for name in pocket.weights})


def gptq(pocket: Pocket, hessians: Weights, bits: int, group: int, damp: float) -> Weights:
    """GPTQ of every matrix, each from the inputs that it has in the model before."""
    lab = pocket.lab
    return {
        name: lab["dequantized"](lab["gptq"](w, hessians[source_of(name)], bits, group, damp), group)
        for name, w in pocket.weights.items()
    }


# judging


class Judge:
    """The reference on windows of Persuasion, window by window, so that schemes can be compared in pairs."""

    def __init__(self, pocket: Pocket, count: int, length: int) -> None:
        self.pocket, tokens = pocket, pocket.text(EVALUATION, count, length)
        self.references = [Reference(pocket.llm.model, row[None]) for row in tokens]

    def __call__(self, changed: Weights) -> dict[str, list[float]]:
        """Divergence, agreement and perplexity in each window with some parameters changed."""
        model = self.pocket.llm.model
        with with_weights(model, changed):
            found = [reference.judge(model) for reference in self.references]
        return {
            "kl": [float(f"{j.kl.mean:.5g}") for j in found],
            "top1": [round(j.top1.mean, 4) for j in found],
            "ppl": [float(f"{j.perplexity.mean:.5g}") for j in found],
        }


def error_of(pocket: Pocket, changed: Weights) -> float:
    """Relative error of the matrices: the root of the summed squared errors over that of the weights."""
    apart = sum(float((changed[name] - w).square().sum(dtype=torch.float64)) for name, w in pocket.weights.items())
    return math.sqrt(apart / sum(float(w.square().sum(dtype=torch.float64)) for w in pocket.weights.values()))


Row = dict[str, Any]
Made = tuple[Row, Callable[[], Weights]]


def plain_rows(pocket: Pocket) -> Iterator[Made]:
    """Schemes that look at the weights alone."""
    for bits, group in RTN:
        row = {"method": "RTN", "bits": bits, "group": group, "stored": pocket.bits_of(bits, group)}
        yield row, partial(rounded, pocket, bits, group)
    row = {"method": "float minimum", "bits": 4, "group": 32, "stored": 5.0}
    yield row, partial(float_minimum, pocket, 4, 32)
    books = levels(pocket)
    for name, book in books.items():
        row = {"method": name, "bits": 4, "group": 64, "stored": 4 + 32 / 64}
        yield row, partial(in_blocks, pocket, book, 64)
    row = {"method": "even, 15", "bits": 4, "group": 32, "stored": 4 + 32 / 32}
    yield row, partial(in_blocks, pocket, books["even, 15"], 32)
    row = {"method": "NF4, double", "bits": 4, "group": 64, "stored": 4 + 8 / 64 + 32 / (64 * 256)}
    yield row, partial(in_blocks, pocket, books["NF4"], 64, twice=True)
    for kind, bits, stored in GGUF:
        yield {"method": kind, "bits": bits, "group": 32, "stored": stored}, partial(in_gguf, pocket, kind)


def aware_rows(pocket: Pocket) -> Iterator[Made]:
    """Schemes that look at the inputs: channels kept, AWQ and GPTQ."""
    inputs = inputs_of(pocket, pocket.text(CALIBRATION, 8, 128))
    for by in BY:
        stored = 0.99 * pocket.bits_of(3, 128) + 0.01 * 16
        row = {"method": f"keep 1 %, {by}", "bits": 3, "group": 128, "stored": stored}
        yield row, partial(keeping, pocket, inputs, by, 0.01)
    for bits, group in ((4, 128), (4, 64), (4, 32), (3, 128), (3, 64), (3, 32), (2, 64)):
        row = {"method": "AWQ", "bits": bits, "group": group, "stored": pocket.bits_of(bits, group)}
        yield row, partial(awq, pocket, inputs, bits, group)
    plans = (
        (2048, 0, 0.01, ((4, 128), (4, 64), (3, 128), (3, 64))),
        (2048, 1, 0.01, ((4, 64),)),
        (16384, 0, 0.01, ((4, 64), (3, 64))),
        (16384, 0, 0.1, ((4, 64), (3, 64))),
    )
    for tokens, skip, damp, kinds in plans:
        hessians = hessians_of(pocket, pocket.text(CALIBRATION, tokens // 256, 256), skip)
        for bits, group in kinds:
            row = {"method": "GPTQ", "bits": bits, "group": group, "stored": pocket.bits_of(bits, group)}
            row |= {"tokens": tokens, "skip": skip, "damp": damp}
            yield row, partial(gptq, pocket, hessians, bits, group, damp)


def table(pocket: Pocket) -> dict[str, Any]:
    """Every scheme on the long windows; written row by row."""
    judge = Judge(pocket, *FULL)
    found: dict[str, Any] = {"windows": FULL, "reference": judge({}), "rows": []}
    for rows in (plain_rows, aware_rows):
        for row, make in rows(pocket):
            changed = make()
            row["error"] = round(error_of(pocket, changed), 5) if row["method"] != "AWQ" else None
            row |= judge(changed)
            found["rows"].append(row)
            store(TARGET, "table", found, ABOUT, INDENT)
            shown = {key: value for key, value in row.items() if not isinstance(value, list)}
            print(shown, "KL", round(sum(row["kl"]) / len(row["kl"]), 4), flush=True)
    return found


# the other parts


def model_facts(pocket: Pocket) -> dict[str, Any]:
    """Sizes, what the model answers when it is rounded, and the divergence when every token is equally likely."""
    config, tokenizer = pocket.llm.config, pocket.llm.tokenizer
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.encode(tokenizer.chat(messages), special=False)
    stop = [token for token in tokenizer.stop if token is not None]
    answers = {}
    for bits, group in ((16, 64), (8, 64), (4, 64), (3, 128), (2, 64)):
        with with_weights(pocket.llm.model, {} if bits == 16 else rounded(pocket, bits, group)):
            ids = generate_greedy(pocket.llm.model, prompt, 24, stop)
            answers[str(bits)] = tokenizer.decode(ids)
    shapes = {name: list(shape) for name, shape in config.shapes().items()}
    sizes = {
        f"{bits} {group}": pocket.lab["model_bytes"](shapes, list(pocket.weights), bits, group, {})
        for bits, group in ((8, 64), (4, 32), (4, 64), (4, 128), (3, 128), (2, 64))
    }
    inner = sum(w.numel() for w in pocket.weights.values())
    ignorant = Judge(pocket, *FULL)({"norm.weight": torch.zeros(config.width)})["kl"]
    facts = {"parameters": config.parameters(), "matrices": inner, "uniform": ignorant}
    return facts | {"sizes": sizes, "answers": answers}


def normalized(pocket: Pocket) -> dict[str, Any]:
    """Weights over the largest magnitude of their block of 64: a histogram and four sets of levels; their errors."""
    books = levels(pocket)
    counts, edges = torch.histogram(units(pocket), bins=80, range=(-1.0, 1.0))
    largest = torch.cat([w.view(-1, 64).abs().amax(1) / w.view(-1, 64).std(1) for w in pocket.weights.values()])
    return {
        "count": [int(c) for c in counts],
        "edge": [round(float(e), 4) for e in edges],
        "levels": {name: [round(float(v), 5) for v in book] for name, book in books.items()},
        "largest, standard deviations of the block": round(float(largest.mean()), 3),
        "values": against_inputs(pocket, books),
    }


def against_inputs(pocket: Pocket, books: Weights) -> list[Row]:
    """For each v: how large the weights of the loudest 1 % of its inputs are, and the errors of weights and outputs."""
    inputs = inputs_of(pocket, pocket.text(CALIBRATION, 8, 128), "q_proj")
    changed = {name: in_blocks(pocket, book, 64) for name, book in books.items()}
    rows = []
    for name, x in inputs.items():
        key = name.replace("q_proj", "v_proj") + ".weight"
        w = pocket.weights[key]
        loud, size = x.square().mean(0).sqrt(), w.norm(dim=0)
        top = loud.topk(max(1, round(0.01 * len(loud)))).indices
        apart = {book: found[key] - w for book, found in changed.items()}
        rows.append({
            "correlation of logarithms": round(float(torch.corrcoef(torch.stack((loud.log(), size.log())))[0, 1]), 3),
            "loudest over mean": round(float(size[top].mean() / size.mean()), 3),
            "weights": {book: round(float(e.norm() / w.norm()), 4) for book, e in apart.items()},
            "outputs": {book: round(float((x @ e.T).norm() / (x @ w.T).norm()), 4) for book, e in apart.items()},
        })  # fmt: skip
    return rows


def alone(pocket: Pocket) -> dict[str, Any]:
    """Divergence when only the matrices of one kind have sixteen levels, for each set of levels."""
    judge, found = Judge(pocket, *LAB), {}
    for name, book in levels(pocket).items():
        changed = in_blocks(pocket, book, 64)
        for kind in ("v_proj", "gate_proj"):
            found[f"{name}, {kind}"] = judge({key: w for key, w in changed.items() if kind in key})["kl"]
    return {"windows": LAB, "rows": found}


def kept(pocket: Pocket) -> dict[str, Any]:
    """Divergence at 3 bits by the share of channels that stay, for each way of choosing them."""
    inputs, judge = inputs_of(pocket, pocket.text(CALIBRATION, 8, 128)), Judge(pocket, *LAB)
    found: dict[str, Any] = {"windows": LAB, "shares": (0.003, 0.01, 0.03, 0.1)}
    found["none"] = judge(rounded(pocket, 3, 128))["kl"]
    for by in BY:
        found[by] = [judge(keeping(pocket, inputs, by, share))["kl"] for share in found["shares"]]
    x = inputs["layers.15.self_attn.q_proj"].abs().mean(0)
    return found | {"loudest over mean": round(float(x.max() / x.mean()), 1)}


def scaling(pocket: Pocket) -> dict[str, Any]:
    """AWQ in each place where it folds: the error on unseen text by alpha, and what the theory of even steps says."""
    calibration = inputs_of(pocket, pocket.text(CALIBRATION, 8, 128))
    unseen = inputs_of(pocket, pocket.text(EVALUATION, 4, 128))
    rows = []
    for i in range(pocket.llm.config.layers):
        for kinds in (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("self_attn.o_proj",),
                      ("mlp.gate_proj", "mlp.up_proj"), ("mlp.down_proj",)):  # fmt: skip
            names = [f"layers.{i}.{kind}" for kind in kinds]
            matrices = [pocket.weights[f"{name}.weight"] for name in names]
            for bits, group in ((4, 64), (3, 128)):
                search = pocket.lab["awq_scales"](calibration[names[0]], matrices, bits, group, 20)
                judged = pocket.lab["awq_scales"](unseen[names[0]], matrices, bits, group, 20)["errors"]
                loud = calibration[names[0]].square().mean(0).sqrt()
                rows.append({
                    "layer": i, "kind": kinds[0].split(".")[1], "bits": bits, "group": group,
                    "alpha": search["alpha"],
                    "errors": [float(f"{e / search['errors'][0]:.4g}") for e in search["errors"]],
                    "unseen": [float(f"{e / judged[0]:.4g}") for e in judged],
                    "theory": float(f"{float(loud.mean() ** 2 / loud.square().mean()):.4g}"),
                })  # fmt: skip
    with with_weights(pocket.llm.model, awq_folded(pocket, calibration, 4, 64)), torch.no_grad():
        after = pocket.llm.model(pocket.text(EVALUATION, 1, 256))
    with torch.no_grad():
        before = pocket.llm.model(pocket.text(EVALUATION, 1, 256))
    apart = {"largest logit": float(before.abs().max()), "largest difference": float((after - before).abs().max())}
    return {"rows": rows, "folded": apart}


def roots(pocket: Pocket) -> dict[str, Any]:
    """Scales without a search, the root of each channel's loudness, against AWQ's and against none."""
    inputs, judge = inputs_of(pocket, pocket.text(CALIBRATION, 8, 128)), Judge(pocket, *LAB)

    def root(x: torch.Tensor, matrices: list[torch.Tensor]) -> torch.Tensor:
        scales = x.square().mean(0).clamp(min=1e-8) ** 0.25
        return scales / (scales.max() * scales.min()).sqrt()

    found: dict[str, Any] = {"windows": LAB}
    p = folded(pocket, inputs, root)
    for bits, group in ((4, 64), (3, 128)):
        plain = {name: p[name] for name in pocket.weights}
        found[f"{bits} {group}"] = {
            "none": judge(rounded(pocket, bits, group))["kl"],
            "root": judge(p | rounded(pocket, bits, group, plain))["kl"],
            "search": judge(awq(pocket, inputs, bits, group))["kl"],
        }
    return found


def calibrating(pocket: Pocket) -> dict[str, Any]:
    """AWQ at 4 bits, groups of 64, by what its statistics were taken from."""
    judge = Judge(pocket, *LAB)
    long = pocket.text(CALIBRATION, 8, 128)
    noise = torch.randint(pocket.llm.config.vocabulary, long.shape, generator=torch.Generator().manual_seed(0))
    texts = {"16": long[:1, :16], "64": long[:1, :64], "256": long[:2], "1024": long, "random tokens": noise}
    found: dict[str, Any] = {"windows": LAB, "RTN": judge(rounded(pocket, 4, 64))["kl"]}
    for name, tokens in texts.items():
        found[name] = judge(awq(pocket, inputs_of(pocket, tokens), 4, 64))["kl"]
    return found


def domains(pocket: Pocket) -> dict[str, Any]:
    """GPTQ and AWQ at 4 bits, groups of 64, from 2,048 tokens of a novel and of program code, judged on a novel."""
    judge, encode = Judge(pocket, *LAB), pocket.llm.tokenizer.encode
    texts = {"novel": novel(CALIBRATION), "code": Path(argparse.__file__).read_text(encoding="utf-8")}
    found: dict[str, Any] = {"windows": LAB, "RTN": judge(rounded(pocket, 4, 64))["kl"]}
    for name, text in texts.items():
        tokens = windows(encode(text), 256, 8)
        found[f"AWQ, {name}"] = judge(awq(pocket, inputs_of(pocket, tokens), 4, 64))["kl"]
        found[f"GPTQ, {name}"] = judge(gptq(pocket, hessians_of(pocket, tokens), 4, 64, 0.01))["kl"]
    return found


CURVE = (16, 32, 64, 128, 256, 384, 576, 768, 1024, 1536, 2048, 3072, 4096, 8192)


def error_curve(pocket: Pocket, name: str, damps: Sequence[float], amounts: Sequence[int], draws: int) -> Row:
    """GPTQ's error over that of rounding to the nearest (4 bits, groups of 64, one matrix) by calibration tokens.

    Each draw begins at another place of the calibration text. "unseen" is on Persuasion, "seen" on the calibration
    tokens themselves.
    """
    lab, w = pocket.lab, pocket.weights[f"{name}.weight"][:192]
    x = inputs_of(pocket, pocket.text(CALIBRATION, max(amounts) // 512, 512), name)[name]
    unseen = inputs_of(pocket, pocket.text(EVALUATION, 4, 512), name)[name]

    def error(q: Mapping[str, torch.Tensor], given: torch.Tensor) -> float:
        return float((given @ (lab["dequantized"](q, 64) - w).T).square().sum(dtype=torch.float64))

    plain = lab["round_to_nearest"](w, 4, 64)
    found: Row = {"columns": w.shape[1], "tokens": amounts, "unseen": {}, "seen": {}}
    for damp in damps:
        unseen_rows, seen_rows = [], []
        for draw in range(draws):
            given = x.roll(-(draw * len(x) // draws) // 512 * 512, 0)
            parts = [given[:n] for n in amounts]
            made = [lab["gptq"](w, part.double().T @ part.double(), 4, 64, damp) for part in parts]
            unseen_rows.append([round(error(q, unseen) / error(plain, unseen), 4) for q in made])
            seen_rows.append([round(error(q, p) / error(plain, p), 4) for q, p in zip(made, parts, strict=True)])
        found["unseen"][f"{damp:g}"], found["seen"][f"{damp:g}"] = unseen_rows, seen_rows
    return found


def descent(pocket: Pocket) -> dict[str, Any]:
    """GPTQ's error by calibration tokens for two matrices and three dampings."""
    names = ("layers.15.mlp.down_proj", "layers.5.self_attn.q_proj")
    return {name: error_curve(pocket, name, (1e-4, 0.01, 0.1), CURVE, 3) for name in names}


PARTS: dict[str, Callable[[Pocket], Any]] = {
    "model": model_facts,
    "levels": normalized,
    "alone": alone,
    "keep": kept,
    "awq": scaling,
    "roots": roots,
    "calibration": calibrating,
    "domains": domains,
    "gptq": descent,
    "table": table,
}


def main() -> None:
    description = "Measure what the chapter on four bits reports."
    measure(PARTS, TARGET, ABOUT, description, lambda: (Pocket.load(),), later=["table"], indent=INDENT)


if __name__ == "__main__":
    main()
