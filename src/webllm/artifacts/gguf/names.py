"""Translates GGUF's tensor names to Hugging Face's."""

from __future__ import annotations

_OUTER = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
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
_BLOCKS = {"gemma3": _GEMMA_BLOCK}
_PAIRED = {"llama": ("self_attn.q_proj", "self_attn.k_proj")}


def hugging_face_name(name: str, architecture: str) -> str:
    """Returns Hugging Face's name of a tensor; GGUF's own if there is none."""
    stem, _, suffix = name.rpartition(".")
    if stem in _OUTER:
        return f"{_OUTER[stem]}.{suffix}"
    kind, _, rest = stem.partition(".")
    layer, _, part = rest.partition(".")
    block = _BLOCKS.get(architecture, _BLOCK)
    if kind != "blk" or part not in block:
        return name
    return f"model.layers.{layer}.{block[part]}.{suffix}"


def is_paired(name: str, architecture: str) -> bool:
    """Returns whether the rows of the tensor with this Hugging Face name are in rotary pairs."""
    return name.rpartition(".")[0].endswith(_PAIRED.get(architecture, ()))
