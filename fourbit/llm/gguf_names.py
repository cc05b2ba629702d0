"""Tensors by their two names, Hugging Face's and GGUF's, and the order of the rows that the rotation acts on."""

from __future__ import annotations

from torch import Tensor

from fourbit.llm.config import LlmConfig

ROPE_FACTORS = "rope_freqs.weight"  # LlmConfig.rope_scaling, which a GGUF file has as a tensor
_OUTER = {
    "embed_tokens.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_INNER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_name(name: str) -> str:
    """Return the name that a tensor of a checkpoint has in a GGUF file."""
    if name in _OUTER:
        return _OUTER[name]
    _, layer, rest = name.split(".", 2)
    module, _, kind = rest.rpartition(".")
    return f"blk.{layer}.{_INNER[module]}.{kind}"


def rotated_heads(config: LlmConfig, name: str) -> int:
    """Return the heads of a query or key matrix that GGUF stores with other rows; 0 for all other tensors."""
    if config.architecture == "qwen2":
        return 0
    if ".q_proj." in name:
        return config.heads
    return config.kv_heads if ".k_proj." in name else 0


def paired(rows: Tensor, heads: int, *, apart: bool) -> Tensor:
    """Move the rows of a query or key matrix: the two of a pair from neighbors to half a head `apart`, or back."""
    per_head = rows.unflatten(0, (heads, -1, 2) if apart else (heads, 2, -1))
    return per_head.transpose(1, 2).reshape(rows.shape)
