"""The shape of a decoder-only transformer of the Llama family, read from a GGUF file's metadata or a config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fourbit.errors import ModelError

ARCHITECTURES = ("llama", "mistral", "qwen2")


@dataclass(frozen=True)
class LlmConfig:
    """Sizes and constants of one model.

    `width` is the length of a hidden state, `ff` that of the feed-forward layer; each layer has `heads` query heads of
    `head_width`, which share `kv_heads` key and value heads. `tied`: the output head is the embedding matrix.
    `rope_scaling`: how many times slower than plain RoPE each of the head_width / 2 pairs of channels turns.
    """

    architecture: str
    layers: int
    width: int
    ff: int
    heads: int
    kv_heads: int
    head_width: int
    vocabulary: int
    rope_theta: float
    norm_eps: float
    tied: bool
    qkv_bias: bool
    context: int
    rope_scaling: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ModelError(f"architecture {self.architecture!r} is not supported; {', '.join(ARCHITECTURES)} are")
        if self.heads % self.kv_heads or self.head_width % 2:
            raise ModelError(f"{self.heads} heads of {self.head_width} do not share {self.kv_heads} key-value heads")

    def linears(self) -> dict[str, tuple[int, int]]:
        """Return {name: (out, in)} of the matrices inside the layers, which are what gets quantized."""
        queries, keys = self.heads * self.head_width, self.kv_heads * self.head_width
        shapes = {
            "self_attn.q_proj": (queries, self.width),
            "self_attn.k_proj": (keys, self.width),
            "self_attn.v_proj": (keys, self.width),
            "self_attn.o_proj": (self.width, queries),
            "mlp.gate_proj": (self.ff, self.width),
            "mlp.up_proj": (self.ff, self.width),
            "mlp.down_proj": (self.width, self.ff),
        }
        return {f"layers.{i}.{name}": shape for i in range(self.layers) for name, shape in shapes.items()}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return {name: shape} of all tensors of a checkpoint; a tied head has none of its own."""
        found: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (self.vocabulary, self.width)}
        for name, shape in self.linears().items():
            found[f"{name}.weight"] = shape
            if self.qkv_bias and name.endswith(("q_proj", "k_proj", "v_proj")):
                found[f"{name}.bias"] = shape[:1]
        for i in range(self.layers):
            found[f"layers.{i}.input_layernorm.weight"] = (self.width,)
            found[f"layers.{i}.post_attention_layernorm.weight"] = (self.width,)
        found["norm.weight"] = (self.width,)
        if not self.tied:
            found["lm_head.weight"] = (self.vocabulary, self.width)
        return found

    def parameters(self) -> int:
        """Return the number of parameters; a tied head counts once."""
        total = 0
        for shape in self.shapes().values():
            total += shape[0] * (shape[1] if len(shape) > 1 else 1)
        return total

    def validate(self, tokens: Sequence[int]) -> None:
        """Raise a ModelError when there are no tokens, or one is outside the vocabulary."""
        if not tokens:
            raise ModelError("there is nothing to read: the prompt has no token; give it one")
        least, most = min(tokens), max(tokens)
        if not 0 <= least <= most < self.vocabulary:
            wrong = least if least < 0 else most
            raise ModelError(f"tokens lie between 0 and {self.vocabulary - 1}; these reach {wrong}")

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> LlmConfig:
        """Read Hugging Face's config.json.

        Raises:
            ModelError: for an architecture or a kind of RoPE scaling that is not supported, or a missing entry.
        """
        try:
            return plausible(cls._from_hf(config))
        except KeyError as error:
            raise ModelError(f"config.json has no entry {error.args[0]!r}") from None
        except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise ModelError(f"config.json has an entry of a wrong kind ({error})") from None

    @classmethod
    def _from_hf(cls, config: Mapping[str, Any]) -> LlmConfig:
        architecture, heads, width = config["model_type"], config["num_attention_heads"], config["hidden_size"]
        _refuse_other_layers(config)
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        theta = float(config.get("rope_theta") or rope.get("rope_theta") or 10_000.0)
        head_width = config.get("head_dim") or width // heads
        return cls(
            architecture=architecture,
            layers=config["num_hidden_layers"],
            width=width,
            ff=config["intermediate_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_width=head_width,
            vocabulary=config["vocab_size"],
            rope_theta=theta,
            norm_eps=config["rms_norm_eps"],
            tied=bool(config.get("tie_word_embeddings", False)),
            qkv_bias=architecture == "qwen2",
            context=config.get("max_position_embeddings", 2048),
            rope_scaling=_slower(rope, theta, head_width // 2),
        )

    @classmethod
    def from_gguf(cls, fields: Mapping[str, Any], names: frozenset[str] = frozenset()) -> LlmConfig:
        """Read a GGUF file's metadata; `names` are its tensors, which tell whether the head is tied and has biases.

        Raises:
            ModelError: for an architecture that is not supported, or a missing or damaged value.
        """
        try:
            return plausible(cls._from_gguf(fields, names))
        except (TypeError, ValueError, ArithmeticError) as error:
            raise ModelError(f"the GGUF metadata has a value of a wrong kind ({error})") from None

    @classmethod
    def _from_gguf(cls, fields: Mapping[str, Any], names: frozenset[str]) -> LlmConfig:
        architecture = fields.get("general.architecture", "none")
        if architecture not in ARCHITECTURES:
            raise ModelError(f"architecture {architecture!r} is not supported; {', '.join(ARCHITECTURES)} are")

        def value(key: str, otherwise: Any = None) -> Any:
            found = fields.get(f"{architecture}.{key}", otherwise)
            if found is None:
                raise ModelError(f"the GGUF metadata has no {architecture}.{key}")
            return found

        scaling = fields.get(f"{architecture}.rope.scaling.type", "none")
        if scaling != "none":
            raise ModelError(f"RoPE scaling {scaling!r} is not supported in GGUF files")
        heads, width = value("attention.head_count"), value("embedding_length")
        return cls(
            architecture=architecture,
            layers=value("block_count"),
            width=width,
            ff=value("feed_forward_length"),
            heads=heads,
            kv_heads=value("attention.head_count_kv", heads),
            head_width=value("attention.key_length", value("rope.dimension_count", width // heads)),
            vocabulary=value("vocab_size", len(fields.get("tokenizer.ggml.tokens", ())) or None),
            rope_theta=float(value("rope.freq_base", 10_000.0)),
            norm_eps=float(value("attention.layer_norm_rms_epsilon")),
            tied="output.weight" not in names,
            qkv_bias="blk.0.attn_q.bias" in names,
            context=value("context_length"),
        )


_MOST = {"layers": 1000, "head_width": 4096}  # each layer is built, and each pair of a head's channels has its angle


def plausible(config: LlmConfig) -> LlmConfig:
    """Return what a file says, or raise a ModelError: a damaged one names any size, and memory is asked for it."""
    for name in ("layers", "width", "ff", "heads", "kv_heads", "head_width", "vocabulary", "context"):
        size, most = getattr(config, name), _MOST.get(name, 2**30)
        if not isinstance(size, int) or not 0 < size <= most:
            raise ModelError(f"the model's {name} is {size!r:.40}, and has to be a whole number from 1 to {most}")
    if not (0 < config.rope_theta < math.inf and 0 <= config.norm_eps < math.inf):
        raise ModelError(f"RoPE's base {config.rope_theta} or RMSNorm's epsilon {config.norm_eps} is not positive")
    return config


def _refuse_other_layers(config: Mapping[str, Any]) -> None:
    """Raise a ModelError if config.json asks for a layer that is computed in another way than here."""
    activation = config.get("hidden_act", "silu")
    if activation != "silu":
        raise ModelError(f"activation {activation!r} is not supported; 'silu' is")
    window, used = config.get("sliding_window"), config.get("use_sliding_window", config["model_type"] == "mistral")
    if window and used and window < config.get("max_position_embeddings", 2048):
        raise ModelError(f"attention in a sliding window of {window} tokens is not supported; take a model without")


def _slower(rope: Mapping[str, Any], theta: float, half: int) -> tuple[float, ...] | None:
    """Return by what Llama 3.1 divides the frequency of each pair, to read longer texts than it was trained on.

    Pairs that turn often within the original context keep their frequency, those that hardly turn are slowed down by
    the full factor (arXiv:2407.21783, section 3.2, has the aim; config.json the constants).
    """
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return None
    if kind != "llama3":
        raise ModelError(f"RoPE scaling {kind!r} is not supported; 'llama3' is")
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    found = []
    for i in range(half):
        turns = rope["original_max_position_embeddings"] * theta ** (-i / half) / (2 * math.pi)
        keep = min(max((turns - low) / (high - low), 0.0), 1.0)
        found.append(1 / (keep + (1 - keep) / factor))
    return tuple(found)
