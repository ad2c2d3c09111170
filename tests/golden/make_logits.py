"""Makes the golden logits: transformers computes them in float32 from the same GGUF files.

Run by hand, in an environment of its own (it needs torch, transformers and gguf):

    python tests/golden/make_logits.py smollm2-135m /work/models/smollm2.gguf
    python tests/golden/make_logits.py gemma3-270m /work/models/gemma3-270m.gguf
    python tests/golden/make_logits.py qwen2.5-coder-0.5b /work/models/qwen2.5-coder-0.5b.gguf

transformers' GGUF import is not trusted: before anything is computed, every weight is compared
with the `gguf` package's own dequantization, and every setting with the file's metadata.
Weights are dequantized to float32 and activations stay float32, so an engine that also rounds
activations (to int8, say) differs by more than rounding; `margins` shows where that can matter.
"""

import argparse
import hashlib
import json
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import tokenizers
import torch
import transformers
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = json.loads(Path(__file__).with_name("prompts.json").read_text(encoding="utf-8"))
NUM_TOKENS = 64
NUM_TOP = 32
WIDE_MARGIN = 0.3
END_TOKENS = {"llama": {0, 2}, "gemma3": {1, 106}, "qwen2": {151643, 151645}}

NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
FFN_NORMS = {
    "llama": {"ffn_norm": "post_attention_layernorm"},
    "qwen2": {"ffn_norm": "post_attention_layernorm"},
    "gemma3": {
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
}


@dataclass(frozen=True)
class Reference:
    """The float32 model, its tokenizer, and the file of both."""

    arch: str
    metadata: dict[str, Any]
    reader: gguf.GGUFReader
    model: Any
    tokenizer: Any


def load(path: Path) -> Reference:
    reader = gguf.GGUFReader(path)
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
    )
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    if metadata.get("tokenizer.ggml.pre") == "smollm":
        # The import ignores `tokenizer.ggml.pre`: SmolLM2 splits digits off before words.
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    return Reference(metadata["general.architecture"], metadata, reader, model.eval(), tokenizer)


def hf_name(arch: str, name: str) -> str:
    """Returns the transformers name of a GGUF tensor."""
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    if name == "output.weight":
        return "lm_head.weight"
    _, layer_id, part, suffix = name.split(".")
    return f"model.layers.{layer_id}.{(NAMES | FFN_NORMS[arch])[part]}.{suffix}"


def unpermute(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Restores transformers' row order: pairs half a head apart; GGUF has them side by side."""
    heads = weight.reshape(num_heads, -1, weight.shape[1])  # [heads, head_dim, hidden]
    halves = np.concatenate([heads[:, 0::2], heads[:, 1::2]], axis=1)
    return halves.reshape(weight.shape)


def expected_weight(reference: Reference, tensor: gguf.ReaderTensor) -> np.ndarray:
    """Returns the expected weight of `tensor` in transformers: dequantized, in its layout."""
    weight = gguf.dequantize(tensor.data, tensor.tensor_type)
    metadata, arch = reference.metadata, reference.arch
    if arch == "gemma3" and tensor.name.endswith("norm.weight"):
        return weight - 1  # transformers multiplies by 1 + weight
    if arch == "llama" and ".attn_q." in tensor.name:
        return unpermute(weight, metadata["llama.attention.head_count"])
    if arch == "llama" and ".attn_k." in tensor.name:
        return unpermute(weight, metadata["llama.attention.head_count_kv"])
    return weight


def check_weights(reference: Reference) -> None:
    """Checks that the model has every tensor of the file, bit for bit, and no other."""
    state = dict(reference.model.named_parameters())  # tied weights appear once
    for tensor in reference.reader.tensors:
        name = hf_name(reference.arch, tensor.name)
        expected = torch.from_numpy(np.copy(expected_weight(reference, tensor)))
        assert state[name].dtype == torch.float32, name
        assert torch.equal(state.pop(name).data, expected), f"{name} is not {tensor.name}"
    assert not state, f"not in the file: {sorted(state)}"
    model = reference.model
    tied = model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert tied == is_tied(reference)


def is_tied(reference: Reference) -> bool:
    return all(tensor.name != "output.weight" for tensor in reference.reader.tensors)


def check_config(reference: Reference) -> None:
    """Checks the settings that the import takes from the metadata or has built in."""
    arch, metadata, config = reference.arch, reference.metadata, reference.model.config
    dimensions = "attention.key_length" if arch == "gemma3" else "rope.dimension_count"
    heads = metadata[f"{arch}.attention.head_count"]
    head_dim = metadata.get(f"{arch}.{dimensions}", metadata[f"{arch}.embedding_length"] // heads)
    expected = {
        "hidden_size": metadata[f"{arch}.embedding_length"],
        "num_hidden_layers": metadata[f"{arch}.block_count"],
        "intermediate_size": metadata[f"{arch}.feed_forward_length"],
        "num_attention_heads": metadata[f"{arch}.attention.head_count"],
        "num_key_value_heads": metadata[f"{arch}.attention.head_count_kv"],
        "rms_norm_eps": metadata[f"{arch}.attention.layer_norm_rms_epsilon"],
        "tie_word_embeddings": is_tied(reference),
    }
    if arch != "qwen2":  # transformers derives it there
        expected["head_dim"] = head_dim
    if arch == "gemma3":
        expected |= {
            "sliding_window": metadata["gemma3.attention.sliding_window"],
            "query_pre_attn_scalar": head_dim,
            "hidden_activation": "gelu_pytorch_tanh",
            "layer_types": [
                "full_attention" if i % 6 == 5 else "sliding_attention"
                for i in range(metadata["gemma3.block_count"])
            ],
        }
    for name, value in expected.items():
        assert getattr(config, name) == value, f"{name}: {getattr(config, name)}, file: {value}"
    check_rope(reference, head_dim)


def check_rope(reference: Reference, head_dim: int) -> None:
    """Checks the rotation angles themselves, and Gemma's embedding scale."""
    inner = reference.model.model
    global_theta = reference.metadata[f"{reference.arch}.rope.freq_base"]
    angles = {"inv_freq": global_theta}
    if reference.arch == "gemma3":
        # 10000 for sliding layers is not in the file; llama.cpp has it built in as well.
        angles = {
            "full_attention_inv_freq": global_theta,
            "sliding_attention_inv_freq": 10000.0,
        }
        scale = float(inner.embed_tokens.embed_scale)
        assert abs(scale - inner.config.hidden_size**0.5) < 1e-5, scale
    for name, theta in angles.items():
        expected = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
        torch.testing.assert_close(getattr(inner.rotary_emb, name).double(), expected)


@torch.inference_mode()
def greedy(model: Any, prompt_ids: list[int]) -> tuple[list[int], torch.Tensor]:
    """Returns greedy tokens, without stopping at end tokens, and each step's log-probs."""
    ids, kv_cache, token_ids, steps = torch.tensor([prompt_ids]), None, [], []
    for _ in range(NUM_TOKENS):
        output = model(ids, past_key_values=kv_cache, use_cache=True, logits_to_keep=1)
        kv_cache = output.past_key_values
        steps.append(output.logits[0, -1].double().log_softmax(-1))
        token_ids.append(int(steps[-1].argmax()))
        ids = torch.tensor([token_ids[-1:]])
    return token_ids, torch.stack(steps)  # [steps, vocab]


@torch.inference_mode()
def teacher_forced(model: Any, prompt_ids: list[int], token_ids: list[int]) -> torch.Tensor:
    """Returns the same steps' log-probs from one pass over all tokens, without a KV cache."""
    ids = torch.tensor([prompt_ids + token_ids[:-1]])
    output = model(ids, use_cache=False, logits_to_keep=NUM_TOKENS)
    return output.logits[0].double().log_softmax(-1)  # [steps, vocab]


def golden(reference: Reference, name: str, prompt: str) -> dict[str, Any]:
    prompt_ids = reference.tokenizer(prompt)["input_ids"]
    token_ids, stepwise = greedy(reference.model, prompt_ids)
    logprobs = teacher_forced(reference.model, prompt_ids, token_ids)
    noise = float((stepwise - logprobs).abs().max())
    assert noise < 2e-3, f"{name}: the two ways differ by {noise}"
    top = logprobs.topk(NUM_TOP)
    margins = top.values[:, 0] - top.values[:, 1]
    assert top.indices[:, 0].tolist() == token_ids, f"{name}: a tie within rounding"
    ends = [i for i, t in enumerate(token_ids) if t in END_TOKENS[reference.arch]]
    num_text_tokens = ends[0] if ends else NUM_TOKENS
    return {
        "name": name,
        "prompt": prompt,
        "prompt_ids": prompt_ids,
        "text": reference.tokenizer.decode(token_ids[:num_text_tokens]),
        "num_text_tokens": num_text_tokens,
        "wide_margin": bool(margins.min() > WIDE_MARGIN),
        "min_margin": round(float(margins.min()), 5),
        "min_text_margin": round(float(margins[: num_text_tokens + 1].min()), 5),
        "float32_noise": round(noise, 7),
        "token_ids": token_ids,
        "logprobs": rounded(top.values[:, 0]),
        "margins": rounded(margins),
        "top_ids": top.indices.tolist(),
        "top_logprobs": [rounded(row) for row in top.values],
    }


def rounded(values: torch.Tensor) -> list[float]:
    return [round(v, 5) for v in values.tolist()]


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "gguf": version("gguf"),
    }


def header(name: str, path: Path) -> dict[str, Any]:
    return {
        "model": name,
        "file": path.name,
        "file_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "versions": versions(),
        "how": "float32 on CPU, eager attention; greedy without stopping at end tokens; "
        "`text` ends before the first end token (min_text_margin includes it); log-probs (natural) "
        "teacher-forced without a KV cache; "
        "margin = log-prob of the first less that of the second; float32_noise = the largest "
        "difference between the pass without a KV cache and the one with it",
        "command": f"python tests/golden/make_logits.py {name} {path}",
        "num_tokens": NUM_TOKENS,
        "num_top": NUM_TOP,
    }


def dump(head: dict[str, Any], cases: list[dict[str, Any]]) -> str:
    """Formats JSON with one line per field, so that arrays stay compact and diffs readable."""

    def fields(entry: dict[str, Any]) -> str:
        lines = (
            f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False, separators=(',', ':'))}"
            for k, v in entry.items()
        )
        return ",\n".join(lines)

    blocks = ",\n".join("{\n" + fields(case) + "\n}" for case in cases)
    return "{\n" + fields(head) + ',\n"prompts": [\n' + blocks + "\n]\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(PROMPTS))
    parser.add_argument("path", type=Path)
    arguments = parser.parse_args()
    reference = load(arguments.path)
    check_weights(reference)
    check_config(reference)
    cases = []
    for name, prompt in PROMPTS[arguments.name].items():
        cases.append(golden(reference, name, prompt))
        print(name, cases[-1]["min_margin"], repr(cases[-1]["text"]), flush=True)
    output = Path(__file__).with_name(f"{arguments.name}.json")
    output.write_text(dump(header(arguments.name, arguments.path), cases), encoding="utf-8")


if __name__ == "__main__":
    main()
