"""Qwen2 and Qwen2.5 (arXiv:2407.10671): llama with biases on q, k and v."""

from __future__ import annotations

from dataclasses import dataclass

from webllm import ops
from webllm.models.config import MAX_HEAD_DIM, Config
from webllm.models.rope import RopeScaling, frequencies
from webllm.models.weights import NamedWeights
from webllm.ops import Activation, Graph, Heads, RopeTable, Tensor


@dataclass(frozen=True, slots=True)
class ModelArgs:
    """The hyperparameters."""

    hidden_size: int
    num_layers: int
    intermediate_size: int
    heads: Heads
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling
    max_positions: int
    tie_word_embeddings: bool

    @classmethod
    def from_config(cls, c: Config) -> ModelArgs:
        c.expect("hidden_act", "silu")
        c.expect("use_sliding_window", False)
        c.skip("sliding_window")
        c.expect_layers(lambda _: "full")
        hidden_size, num_q = c.integer("hidden_size"), c.integer("num_attention_heads")
        head_dim = c.integer("head_dim", hidden_size // num_q, high=MAX_HEAD_DIM)
        return cls(
            hidden_size=hidden_size,
            num_layers=c.integer("num_hidden_layers"),
            intermediate_size=c.integer("intermediate_size"),
            heads=Heads(num_q, c.integer("num_key_value_heads", num_q), head_dim),
            vocab_size=c.integer("vocab_size"),
            rms_norm_eps=c.number("rms_norm_eps"),
            rope_theta=c.number("rope_theta", 10000.0),
            rope_scaling=RopeScaling.of(c),
            max_positions=c.integer("max_position_embeddings"),
            tie_word_embeddings=c.flag("tie_word_embeddings"),
        )


class Attention:
    def __init__(self, args: ModelArgs, weights: NamedWeights, layer: int, rope: RopeTable) -> None:
        self.heads, self.layer, self.rope = args.heads, layer, rope
        name = f"model.layers.{layer}.self_attn"
        heads, hidden = args.heads, args.hidden_size
        q_size, kv_size = heads.num_q * heads.head_dim, heads.num_kv * heads.head_dim
        rotary = heads.head_dim
        self.q_proj = weights.matrix(f"{name}.q_proj.weight", (q_size, hidden), rotary)
        self.k_proj = weights.matrix(f"{name}.k_proj.weight", (kv_size, hidden), rotary)
        self.v_proj = weights.matrix(f"{name}.v_proj.weight", (kv_size, hidden))
        self.q_bias = weights.vector(f"{name}.q_proj.bias", q_size, rotary)
        self.k_bias = weights.vector(f"{name}.k_proj.bias", kv_size, rotary)
        self.v_bias = weights.vector(f"{name}.v_proj.bias", kv_size)
        self.o_proj = weights.matrix(f"{name}.o_proj.weight", (hidden, q_size))

    def __call__(self, x: Tensor) -> Tensor:  # [tokens, hidden]
        q = ops.linear(x, self.q_proj, self.q_bias)
        k = ops.linear(x, self.k_proj, self.k_bias)
        v = ops.linear(x, self.v_proj, self.v_bias)  # [tokens, num_kv * head_dim]
        q = ops.rope(q, self.rope)  # [tokens, num_q * head_dim]
        k = ops.rope(k, self.rope)  # [tokens, num_kv * head_dim]
        scale = self.heads.head_dim**-0.5
        out = ops.attention(q, k, v, heads=self.heads, layer=self.layer, scale=scale)
        return ops.linear(out, self.o_proj)  # [tokens, num_q * head_dim] -> [tokens, hidden]


class MLP:
    def __init__(self, args: ModelArgs, weights: NamedWeights, layer: int) -> None:
        name = f"model.layers.{layer}.mlp"
        wide, hidden = args.intermediate_size, args.hidden_size
        self.gate_proj = weights.matrix(f"{name}.gate_proj.weight", (wide, hidden))
        self.up_proj = weights.matrix(f"{name}.up_proj.weight", (wide, hidden))
        self.down_proj = weights.matrix(f"{name}.down_proj.weight", (hidden, wide))

    def __call__(self, x: Tensor) -> Tensor:  # [tokens, hidden]
        gate, up = ops.linear(x, self.gate_proj), ops.linear(x, self.up_proj)  # [tokens, wide]
        return ops.linear(ops.gated(gate, up, Activation.SILU), self.down_proj)


class TransformerBlock:
    def __init__(self, args: ModelArgs, weights: NamedWeights, layer: int, rope: RopeTable) -> None:
        self.eps = args.rms_norm_eps
        self.self_attn = Attention(args, weights, layer, rope)
        self.mlp = MLP(args, weights, layer)
        name, hidden = f"model.layers.{layer}", args.hidden_size
        self.input_norm = weights.vector(f"{name}.input_layernorm.weight", hidden)
        self.post_norm = weights.vector(f"{name}.post_attention_layernorm.weight", hidden)

    def __call__(self, x: Tensor) -> Tensor:  # [tokens, hidden]
        x = ops.add(x, self.self_attn(ops.rms_norm(x, self.input_norm, self.eps)))
        return ops.add(x, self.mlp(ops.rms_norm(x, self.post_norm, self.eps)))


class Model:
    def __init__(self, args: ModelArgs, weights: NamedWeights, max_positions: int) -> None:
        self.args = args
        hidden = args.hidden_size
        f = frequencies(args.heads.head_dim, args.rope_theta, args.rope_scaling)
        rope = RopeTable.build(f.inv_freq, max_positions, f.scale)
        self.embed_tokens = weights.matrix("model.embed_tokens.weight", (args.vocab_size, hidden))
        self.layers = [TransformerBlock(args, weights, i, rope) for i in range(args.num_layers)]
        self.norm = weights.vector("model.norm.weight", hidden)
        self.lm_head = self.embed_tokens
        if args.tie_word_embeddings:
            weights.skip("lm_head.weight")
        else:
            self.lm_head = weights.matrix("lm_head.weight", (args.vocab_size, hidden))

    def __call__(self, graph: Graph) -> Tensor:
        x = ops.embedding(graph, self.embed_tokens)  # [tokens, hidden]
        for layer in self.layers:
            x = layer(x)
        x = ops.take_outputs(x)  # [outputs, hidden]
        x = ops.rms_norm(x, self.norm, self.args.rms_norm_eps)
        return ops.sample(ops.linear(x, self.lm_head))  # [outputs, vocab] -> [outputs, 1]
