"""The names of tensors in GGUF and MLC, from Hugging Face's."""

from __future__ import annotations

OUTER = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GEMMA_BLOCK = BLOCK | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3_text": "gemma3"}


def gguf_name(model_type: str, name: str) -> str:
    """Returns GGUF's name of a tensor."""
    stem, _, suffix = name.rpartition(".")
    if stem in OUTER:
        return f"{OUTER[stem]}.{suffix}"
    _, _, layer, part = stem.split(".", 3)
    block = GEMMA_BLOCK if model_type == "gemma3_text" else BLOCK
    return f"blk.{layer}.{block[part]}.{suffix}"


def hf_name(model_type: str, name: str) -> str:
    """Returns Hugging Face's name of a tensor of a GGUF file."""
    stem, _, suffix = name.rpartition(".")
    for theirs, gguf in OUTER.items():
        if stem == gguf:
            return f"{theirs}.{suffix}"
    _, layer, part = stem.split(".", 2)
    block = GEMMA_BLOCK if model_type == "gemma3_text" else BLOCK
    [theirs] = [theirs for theirs, gguf in block.items() if gguf == part]
    return f"model.layers.{layer}.{theirs}.{suffix}"


def mlc_parts(model_type: str, names: list[str]) -> dict[str, list[str]]:
    """Returns MLC's names, in the order of its writer, and the tensors whose rows each joins."""
    parts: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda name: _mlc_name(model_type, name)):
        parts.setdefault(_mlc_name(model_type, name), []).append(name)
    for joined in parts.values():
        joined.sort(key=_row_order)
    return parts


def _mlc_name(model_type: str, name: str) -> str:
    qkv = "qkv_proj" if model_type == "llama" else "c_attn"
    for part in ("gate_proj", "up_proj"):
        name = name.replace(f".{part}.", ".gate_up_proj.")
    if model_type == "gemma3_text":
        return f"language_model.{name}"
    for part in ("q_proj", "k_proj", "v_proj"):
        name = name.replace(f".{part}.", f".{qkv}.")
    return name


def _row_order(name: str) -> int:
    order = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
    return next((i for i, part in enumerate(order) if f".{part}." in name), 0)
