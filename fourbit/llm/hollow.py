"""Hollow models: GGUF files of the right shapes with random weights, made here in seconds.

A hollow file loads, occupies memory and decodes at the speed of the trained model of its shape, and says nothing
sensible. Every block has random codes; scales are such that a matrix of `n` columns has weights of variance 1/n, so
that hidden states and logits stay finite. As in files that llama.cpp makes, the head of a 4-bit file has 6 or 8 bits.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Kind
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from fourbit.errors import ModelError
from fourbit.llm.config import LlmConfig
from fourbit.llm.gguf_file import describe, gguf_name
from fourbit.llm.registry import require_space

FORMATS = {
    "Q4_0": (Kind.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
    "Q4_1": (Kind.Q4_1, gguf.LlamaFileType.MOSTLY_Q4_1),
    "Q4_K": (Kind.Q4_K, gguf.LlamaFileType.MOSTLY_Q4_K_S),
    "Q8_0": (Kind.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "F16": (Kind.F16, gguf.LlamaFileType.MOSTLY_F16),
}
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
_CHUNK = 8 * 2**20
_HEADER = 64  # bytes for each word of the vocabulary and each tensor's entry, more than either takes
_F16_BLOCK = 64  # numbers drawn together; F16 has no blocks of its own
_SPACE = "\u2581"  # how a SentencePiece vocabulary writes the space before a word

Bytes = npt.NDArray[np.uint8]


def write_hollow(
    config: LlmConfig, path: Path, form: str = "Q4_0", *, title: str = "Hollow", seed: int = 0, progress: bool = True
) -> Path:
    """Write a GGUF file of this shape with random weights in the format `form`; the same `seed`, the same file.

    Its vocabulary is the 256 bytes and numbered words, so any text can be encoded and any token be printed.

    Raises:
        ModelError: for a format that is not one of `FORMATS`, rows that are no multiple of its block, a `path` that
            exists (nothing is overwritten), or too little room on the disk. No part of a file stays behind.
    """
    kinds = _kinds(config, form)
    if path.exists():
        raise ModelError(f"{path} exists and is not overwritten; delete it, or write to another file with --output")
    require_space(path.parent, hollow_bytes(config, form))
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _bar(path.name, _weight_bytes(config, kinds), progress) as advance:
            _write(part, config, kinds, form, title, seed, advance)
        os.replace(part, path)
    except OSError as error:
        raise ModelError(f"{path} cannot be written ({error.strerror}); write to another file with --output") from None
    finally:
        part.unlink(missing_ok=True)
    return path


def hollow_bytes(config: LlmConfig, form: str) -> int:
    """Return the bytes of the file that :func:`write_hollow` makes, or a little more: the header is estimated."""
    return _weight_bytes(config, _kinds(config, form)) + _HEADER * (config.vocabulary + len(config.shapes()))


def _weight_bytes(config: LlmConfig, kinds: dict[str, Kind]) -> int:
    shapes = config.shapes()
    return sum(_tensor_bytes(shapes[name], kind) for name, kind in kinds.items())


def _tensor_bytes(shape: tuple[int, ...], kind: Kind) -> int:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return int(np.prod(shape, dtype=np.int64)) // block * size


def _kinds(config: LlmConfig, form: str) -> dict[str, Kind]:
    """Return the type of each tensor: vectors are F32, matrices of the format, the head at least 6 bits."""
    if form not in FORMATS:
        raise ModelError(f"hollow files have no format {form!r}; there are {', '.join(FORMATS)}")
    kind, _ = FORMATS[form]
    block, _ = gguf.GGML_QUANT_SIZES[kind]
    rows = sorted({shape[1] for shape in config.shapes().values() if len(shape) == 2})
    if uneven := [row for row in rows if row % block]:
        raise ModelError(f"rows of {uneven[0]} weights are no multiple of {form}'s block of {block}; choose Q4_0")
    kinds = {name: kind if len(shape) == 2 else Kind.F32 for name, shape in config.shapes().items()}
    if form.startswith("Q4"):
        kinds["embed_tokens.weight" if config.tied else "lm_head.weight"] = (
            Kind.Q8_0 if config.width % 256 else Kind.Q6_K
        )
    return kinds


def _write(
    path: Path, config: LlmConfig, kinds: dict[str, Kind], form: str, title: str, seed: int,
    advance: Callable[[int], None],
) -> None:  # fmt: skip
    writer = gguf.GGUFWriter(path, "llama" if config.architecture == "mistral" else config.architecture)
    writer.add_name(f"{title}, {form}, hollow")
    writer.add_description("Random weights: the shapes, memory and speed of the model, and none of its sense.")
    writer.add_file_type(FORMATS[form][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    describe(writer, config)
    _add_vocabulary(writer, config.vocabulary)
    shapes = config.shapes()
    for name, kind in kinds.items():
        plain = np.dtype(np.float32)  # ignored beside raw_dtype, unless it is uint8
        writer.add_tensor_info(gguf_name(name), shapes[name], plain, _tensor_bytes(shapes[name], kind), kind)
    with contextlib.closing(writer):
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        assert writer.fout is not None
        (file,) = writer.fout
        writer.write_padding(file, file.tell())
        for i, (name, kind) in enumerate(kinds.items()):
            random = np.random.Generator(np.random.SFC64([seed, i]))
            for chunk in _contents(name, shapes[name], kind, random):
                file.write(chunk)
                advance(len(chunk))
            writer.write_padding(file, _tensor_bytes(shapes[name], kind))


def _add_vocabulary(writer: gguf.GGUFWriter, size: int) -> None:
    """Add a SentencePiece vocabulary: control tokens, all bytes, the space, then numbered words that no merge makes."""
    if size < 260:
        raise ModelError(f"a vocabulary of {size} tokens has no room for the 256 bytes, the space and 3 control tokens")
    kinds = gguf.TokenType
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256]
    words = size - len(tokens) - 1
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*tokens, _SPACE, *(f"{_SPACE}w{i}" for i in range(words))])
    writer.add_token_scores([0.0] * len(tokens) + [-float(i) for i in range(words + 1)])
    writer.add_token_types([*types, *[kinds.NORMAL] * (words + 1)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_chat_template(TEMPLATE)


def _contents(name: str, shape: tuple[int, ...], kind: Kind, random: np.random.Generator) -> Iterator[bytes]:
    """Yield a tensor's bytes: ones for the norms, small numbers for biases, random blocks for matrices."""
    if kind == Kind.F32:
        values = random.normal(0, 0.1, shape) if name.endswith(".bias") else np.ones(shape)
        yield values.astype("<f4").tobytes()
        return
    block, size = gguf.GGML_QUANT_SIZES[kind] if kind != Kind.F16 else (_F16_BLOCK, 2 * _F16_BLOCK)
    left = int(np.prod(shape, dtype=np.int64)) // block
    scale = float(shape[1]) ** -0.5
    while left:
        count = min(left, _CHUNK // size)
        blocks = _random_bytes(random, count * size).reshape(count, size)
        _FILL[kind](blocks, scale)
        yield blocks.tobytes()
        left -= count


def _random_bytes(random: np.random.Generator, count: int) -> Bytes:
    words: npt.NDArray[Any] = random.integers(0, 2**64, -(-count // 8), np.uint64)
    return words.astype("<u8", copy=False).view(np.uint8)[:count]


def _put(blocks: Bytes, at: int, values: npt.ArrayLike) -> None:
    """Store 16-bit floats, one for each block, at a byte of the block."""
    stored = np.broadcast_to(np.asarray(values, dtype="<f2"), (len(blocks),))
    blocks[:, at : at + 2] = np.ascontiguousarray(stored).view(np.uint8).reshape(-1, 2)


# Below, uniform codes of standard deviation c get the step std / c. The layouts are ggml's (ggml-common.h).


def _fill_q4_0(blocks: Bytes, std: float) -> None:
    """w = d (q - 8): the mean of q - 8 is -1/2, so d has either sign, by the first code, to make that of w zero."""
    sign = np.where(blocks[:, 2] & 16, -1.0, 1.0)
    _put(blocks, 0, sign * std / 4.63)


def _fill_q4_1(blocks: Bytes, std: float) -> None:
    """w = d q + m."""
    _put(blocks, 0, std / 4.61)
    _put(blocks, 2, -7.5 * std / 4.61)


def _fill_q8_0(blocks: Bytes, std: float) -> None:
    """w = d q."""
    _put(blocks, 0, std / 73.9)


def _fill_q4_k(blocks: Bytes, std: float) -> None:
    """w = d s q - e m, with s and m random in 0..63 for each 32 weights; e = 7.5 d makes the mean zero."""
    step = std / _Q4_K_DEVIATION
    _put(blocks, 0, step)
    _put(blocks, 2, 7.5 * step)


def _fill_q6_k(blocks: Bytes, std: float) -> None:
    """w = d s (q - 32), with s random in -128..127 for each 16 weights."""
    _put(blocks, 208, std / (73.9 * 18.5))


def _fill_f16(blocks: Bytes, std: float) -> None:
    """Random sign and mantissa at one exponent: magnitudes of 1 to 2, whose root mean square is 1.53, times 2**e."""
    exponent = 15 + round(np.log2(std / 1.53))
    numbers = blocks.view("<u2")
    numbers &= 0x83FF
    numbers |= exponent << 10


# Var(s q - 7.5 m) for s, m uniform in 0..63 and q uniform in 0..15: E[s^2] E[q^2] - (E s E q)^2 + 7.5^2 Var(m)
_Q4_K_DEVIATION = float(np.sqrt(1333.5 * 77.5 - (31.5 * 7.5) ** 2 + 7.5**2 * 341.25))
_FILL: dict[Kind, Callable[[Bytes, float], None]] = {
    Kind.Q4_0: _fill_q4_0,
    Kind.Q4_1: _fill_q4_1,
    Kind.Q8_0: _fill_q8_0,
    Kind.Q4_K: _fill_q4_k,
    Kind.Q6_K: _fill_q6_k,
    Kind.F16: _fill_f16,
}


@contextlib.contextmanager
def _bar(name: str, total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not shown) as bar:
        task = bar.add_task(f"Writing {name}", total=total)
        yield lambda count: bar.advance(task, count)
