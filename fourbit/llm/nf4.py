"""A model of transformers with its matrices in bitsandbytes' NF4, filled tensor by tensor.

`from_pretrained` fills a model that fits the GPU, from a checkpoint. This fills two others: a hollow model, whose
weights are drawn on the device and of which never more than one matrix is dense; and a model too large for the GPU,
whose last layers stay in the computer's memory, packed, and come to the GPU one after another when their turn comes
(transformers itself can keep only layers in 16 or 32 bits there). QLoRA: Dettmers et al., arXiv:2305.14314.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol

import torch
import transformers
from bitsandbytes.functional import QuantState
from bitsandbytes.nn import Linear4bit, Params4bit
from torch import Tensor, nn
from transformers.integrations.bitsandbytes import replace_with_bnb_linear

from fourbit.llm.config import LlmConfig

_FAMILIES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2"}
_ALIGNED = 256  # bytes; CUDA's kernels load 16 at once
Progress = Callable[[int, int], None]


class Source(Protocol):
    """Where a model's tensors come from: names as in `config.shapes()`."""

    config: LlmConfig

    def names(self) -> list[str]: ...

    def tensor(self, name: str) -> Tensor: ...


class HollowSource:
    """Random weights of a model's shapes, drawn on a device: rows of `n` have variance 1/n, norms are one."""

    def __init__(self, config: LlmConfig, device: torch.device, dtype: torch.dtype, seed: int = 0) -> None:
        self.config, self._device, self._dtype = config, device, dtype
        self._random = torch.Generator(device).manual_seed(seed)

    def names(self) -> list[str]:
        return list(self.config.shapes())

    def tensor(self, name: str) -> Tensor:
        shape = self.config.shapes()[name]
        if len(shape) == 1:
            values = torch.zeros if name.endswith(".bias") else torch.ones
            return values(shape, device=self._device, dtype=self._dtype)
        drawn = torch.randn(shape, generator=self._random, device=self._device, dtype=self._dtype)
        return drawn.mul_(shape[1] ** -0.5)


def nf4_config(dtype: torch.dtype) -> transformers.BitsAndBytesConfig:
    """Return the settings of this course: NF4, double quantization, products in `dtype`."""
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def hf_config(config: LlmConfig) -> transformers.PretrainedConfig:
    """Return transformers' configuration of a shape; one with scaled RoPE has its own file to be read from."""
    family: Any = getattr(transformers, f"{_FAMILIES[config.architecture]}Config")
    found: transformers.PretrainedConfig = family(
        vocab_size=config.vocabulary,
        hidden_size=config.width,
        intermediate_size=config.ff,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        head_dim=config.head_width,
        max_position_embeddings=config.context,
        rms_norm_eps=config.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        tie_word_embeddings=config.tied,
    )
    if config.architecture == "mistral":
        found.sliding_window = None
    return found


def assemble(
    described: transformers.PretrainedConfig,
    source: Source,
    device: torch.device,
    dtype: torch.dtype,
    kept: int | None = None,
    progress: Progress | None = None,
) -> transformers.PreTrainedModel:
    """Build a model and fill it; matrices of the layers are quantized on the device.

    Args:
        described: transformers' configuration.
        kept: layers that stay on the device, the first ones; None for all. The others stay in memory.
        progress: called with the tensors that are done and their number.
    """
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(described, dtype=dtype)
    replace_with_bnb_linear(model, modules_to_not_convert=["lm_head"], quantization_config=nf4_config(dtype))
    kept = source.config.layers if kept is None else kept
    names, staging = source.names(), _Staging(device)
    for done, name in enumerate(names):
        _fill(model, name, source.tensor(name).to(device, dtype))
        if name.endswith("post_attention_layernorm.weight") and int(name.split(".")[1]) >= kept:
            staging.move(model.model.layers[int(name.split(".")[1])])
        if progress is not None:
            progress(done + 1, len(names))
    if source.config.tied:
        model.lm_head.weight = model.model.embed_tokens.weight
    with device:  # its table of angles is no parameter, and was made without contents
        model.model.rotary_emb = type(model.model.rotary_emb)(described)
    return model.eval()


def _fill(model: nn.Module, name: str, values: Tensor) -> None:
    path, _, leaf = (name if name.startswith("lm_head.") else f"model.{name}").rpartition(".")
    module = model.get_submodule(path)
    parameter = nn.Parameter(values, requires_grad=False)
    if isinstance(module, Linear4bit) and leaf == "weight":
        dense: Any = Params4bit(values, requires_grad=False, compress_statistics=True, quant_type="nf4", module=module)
        parameter = dense.to(values.device)  # this is what quantizes
    setattr(module, leaf, parameter)


class _Staging:
    """Room on a device for one layer, which layers that live in the computer's memory use in turn.

    A layer's codes and scales lie in one buffer there, in pinned memory where the device is a GPU: one copy brings it
    in. Copies and kernels are in the order of one stream, so no layer overwrites another that is still in use.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._room: Tensor | None = None

    def move(self, layer: nn.Module) -> None:
        """Move a filled layer into memory, and let it come back whenever it is called."""
        linears: list[Any] = [module for module in layer.modules() if isinstance(module, Linear4bit)]
        parts = [part for linear in linears for part in (linear.weight.data, linear.weight.quant_state.absmax)]
        places, end = [], 0
        for part in parts:
            places.append(slice(end, end + part.numel()))
            end = -(-(end + part.numel()) // _ALIGNED) * _ALIGNED
        home = torch.empty(end, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        for part, place in zip(parts, places, strict=True):
            home[place].copy_(part.reshape(-1))
        if self._room is None or len(self._room) < end:
            self._room = torch.empty(end, dtype=torch.uint8, device=self._device)
        room = self._room
        for i, linear in enumerate(linears):
            codes, scales = room[places[2 * i]], room[places[2 * i + 1]]
            _point(linear, codes, scales)

        def come(*_: object) -> None:
            room[:end].copy_(home, non_blocking=True)

        layer.home = home  # a plain attribute, so that no `.to()` moves it
        layer.register_forward_pre_hook(come)


def _point(linear: Any, codes: Tensor, scales: Tensor) -> None:
    """Let a quantized matrix have its codes and scales elsewhere; what is small stays where it is."""
    old = linear.weight
    state: QuantState = copy.copy(old.quant_state)
    state.absmax = scales.view(old.quant_state.absmax.shape)
    linear.weight = Params4bit(
        codes.view(old.shape), requires_grad=False, quant_state=state, compress_statistics=True, quant_type="nf4",
        bnb_quantized=True, module=linear,
    )  # fmt: skip
    linear.quant_state = state


def held_bytes(model: nn.Module) -> tuple[int, int]:
    """Return the bytes of a model's weights on its device, and of those that stay in the computer's memory."""
    tensors: list[Tensor] = []
    parameter: Any
    for parameter in model.parameters():
        tensors.append(parameter.data)
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            tensors += [state.absmax, state.code, state.offset]
            if state.nested:  # on some CPUs the first product packs a matrix anew, with its scales in 16 bits
                tensors += [state.state2.absmax, state.state2.code]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    homes = [vars(module)["home"] for module in model.modules() if "home" in vars(module)]
    return sum(storages.values()), sum(int(home.nbytes) for home in homes)
