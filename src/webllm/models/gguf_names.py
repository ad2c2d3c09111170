"""Translates GGUF's tensor names to Hugging Face's, which model files use."""

from __future__ import annotations

from collections.abc import Iterable

_OUTER = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "rope_freqs": "rope_freqs",
}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GEMMA_BLOCK = _BLOCK | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


def llama_names(tensors: Iterable[str]) -> dict[str, str]:
    """Returns {Hugging Face name: GGUF name} for llama-like architectures; drops unknown names."""
    return _rename(tensors, _BLOCK)


def gemma_names(tensors: Iterable[str]) -> dict[str, str]:
    """Returns the same for Gemma, which has norms before and after each block."""
    return _rename(tensors, _GEMMA_BLOCK)


def _rename(tensors: Iterable[str], block: dict[str, str]) -> dict[str, str]:
    renamed = {}
    for tensor in tensors:
        stem, _, suffix = tensor.rpartition(".")
        if stem in _OUTER:
            renamed[f"{_OUTER[stem]}.{suffix}"] = tensor
        elif stem.startswith("blk."):
            layer, _, name = stem.removeprefix("blk.").partition(".")
            if name in block:
                renamed[f"model.layers.{layer}.{block[name]}.{suffix}"] = tensor
    return renamed
