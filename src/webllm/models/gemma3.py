"""Gemma 3, text only (arXiv:2503.19786).

It differs from llama in norms before and after every block, norms on q and k, a GeGLU, and five
layers with a sliding window for each layer that attends to the whole context.
"""

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
    sliding_window: int
    sliding_window_pattern: int  # one layer of so many is global, the last one
    rope_local_theta: float
    query_pre_attn_scalar: float
    tie_word_embeddings: bool

    @classmethod
    def from_config(cls, c: Config) -> ModelArgs:
        for name in ("hidden_activation", "hidden_act"):
            c.expect(name, "gelu_pytorch_tanh")
        num_layers, num_q = c.integer("num_hidden_layers"), c.integer("num_attention_heads")
        head_dim = c.integer("head_dim", 256, high=MAX_HEAD_DIM)
        pattern = c.integer("sliding_window_pattern", c.integer("_sliding_window_pattern", 6))
        c.expect_layers(lambda i: "sliding" if (i + 1) % pattern else "full")
        return cls(
            hidden_size=c.integer("hidden_size"),
            num_layers=num_layers,
            intermediate_size=c.integer("intermediate_size"),
            heads=Heads(num_q, c.integer("num_key_value_heads"), head_dim),
            vocab_size=c.integer("vocab_size"),
            rms_norm_eps=c.number("rms_norm_eps"),
            rope_theta=c.number("rope_theta", 1000000.0),
            rope_scaling=RopeScaling.of(c),
            max_positions=c.integer("max_position_embeddings"),
            sliding_window=c.integer("sliding_window"),
            sliding_window_pattern=pattern,
            rope_local_theta=c.number("rope_local_base_freq", 10000.0),
            query_pre_attn_scalar=c.number("query_pre_attn_scalar", head_dim),
            tie_word_embeddings=c.flag("tie_word_embeddings", default=True),
        )

    def is_sliding(self, layer: int) -> bool:
        return (layer + 1) % self.sliding_window_pattern != 0


class Attention:
    def __init__(self, args: ModelArgs, weights: NamedWeights, layer: int, rope: RopeTable) -> None:
        self.heads, self.layer, self.rope = args.heads, layer, rope
        self.eps = args.rms_norm_eps
        self.scale = args.query_pre_attn_scalar**-0.5
        self.window = args.sliding_window if args.is_sliding(layer) else None
        name = f"model.layers.{layer}.self_attn"
        heads, hidden = args.heads, args.hidden_size
        q_size, kv_size = heads.num_q * heads.head_dim, heads.num_kv * heads.head_dim
        rotary = heads.head_dim
        self.q_proj = weights.matrix(f"{name}.q_proj.weight", (q_size, hidden), rotary)
        self.k_proj = weights.matrix(f"{name}.k_proj.weight", (kv_size, hidden), rotary)
        self.v_proj = weights.matrix(f"{name}.v_proj.weight", (kv_size, hidden))
        self.q_norm = weights.vector(f"{name}.q_norm.weight", heads.head_dim, rotary)
        self.k_norm = weights.vector(f"{name}.k_norm.weight", heads.head_dim, rotary)
        self.o_proj = weights.matrix(f"{name}.o_proj.weight", (hidden, q_size))

    def __call__(self, x: Tensor) -> Tensor:  # [tokens, hidden]
        q = ops.rms_norm(ops.linear(x, self.q_proj), self.q_norm, self.eps)
        k = ops.rms_norm(ops.linear(x, self.k_proj), self.k_norm, self.eps)
        q = ops.rope(q, self.rope)  # [tokens, num_q * head_dim]
        k = ops.rope(k, self.rope)  # [tokens, num_kv * head_dim]
        v = ops.linear(x, self.v_proj)  # [tokens, num_kv * head_dim]
        out = ops.attention(
            q, k, v, heads=self.heads, layer=self.layer, scale=self.scale, window=self.window
        )
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
        return ops.linear(ops.gated(gate, up, Activation.GELU_TANH), self.down_proj)


class TransformerBlock:
    def __init__(self, args: ModelArgs, weights: NamedWeights, layer: int, rope: RopeTable) -> None:
        self.eps = args.rms_norm_eps
        self.self_attn = Attention(args, weights, layer, rope)
        self.mlp = MLP(args, weights, layer)
        name, hidden = f"model.layers.{layer}", args.hidden_size
        self.input_norm = weights.vector(f"{name}.input_layernorm.weight", hidden)
        self.post_attention_norm = weights.vector(f"{name}.post_attention_layernorm.weight", hidden)
        self.pre_mlp_norm = weights.vector(f"{name}.pre_feedforward_layernorm.weight", hidden)
        self.post_mlp_norm = weights.vector(f"{name}.post_feedforward_layernorm.weight", hidden)

    def __call__(self, x: Tensor) -> Tensor:  # [tokens, hidden]
        branch = self.self_attn(ops.rms_norm(x, self.input_norm, self.eps))
        x = ops.add(x, ops.rms_norm(branch, self.post_attention_norm, self.eps))
        branch = self.mlp(ops.rms_norm(x, self.pre_mlp_norm, self.eps))
        return ops.add(x, ops.rms_norm(branch, self.post_mlp_norm, self.eps))


class Model:
    def __init__(self, args: ModelArgs, weights: NamedWeights, max_positions: int) -> None:
        self.args = args
        hidden, head_dim = args.hidden_size, args.heads.head_dim
        global_freqs = frequencies(head_dim, args.rope_theta, args.rope_scaling)
        local_freqs = frequencies(head_dim, args.rope_local_theta, RopeScaling())
        global_rope = RopeTable.build(global_freqs.inv_freq, max_positions, global_freqs.scale)
        local_rope = RopeTable.build(local_freqs.inv_freq, max_positions)
        self.embed_tokens = weights.matrix("model.embed_tokens.weight", (args.vocab_size, hidden))
        self.layers = [
            TransformerBlock(args, weights, i, local_rope if args.is_sliding(i) else global_rope)
            for i in range(args.num_layers)
        ]
        self.norm = weights.vector("model.norm.weight", hidden)
        self.lm_head = self.embed_tokens
        if args.tie_word_embeddings:
            weights.skip("lm_head.weight")
        else:
            self.lm_head = weights.matrix("lm_head.weight", (args.vocab_size, hidden))

    def __call__(self, graph: Graph) -> Tensor:
        scale = float(self.args.hidden_size**0.5)
        x = ops.embedding(graph, self.embed_tokens, scale)  # [tokens, hidden]
        for layer in self.layers:
            x = layer(x)
        x = ops.take_outputs(x)  # [outputs, hidden]
        x = ops.rms_norm(x, self.norm, self.args.rms_norm_eps)
        return ops.sample(ops.linear(x, self.lm_head))  # [outputs, vocab] -> [outputs, 1]
