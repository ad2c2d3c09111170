"""How a token is drawn. Every backend follows this rule, so that a seed means the same anywhere.

1.  logits += biases of this output row (`logit_bias`).
2.  temperature 0: the largest logit, the lowest id among equals. Done.
3.  scaled = logits / temperature.
4.  top_k > 0: keep the k largest, with all that equal the k-th.
5.  top_p < 1: of those, keep the fewest most probable tokens whose softmax mass reaches top_p,
    with all that equal the last (arXiv:1904.09751).
6.  min_p > 0: of those, keep tokens at least min_p times as probable as the most probable.
7.  The token is the kept one with the largest scaled + gumbel(id), which is an exact draw from
    the softmax of the kept (Gumbel-max). gumbel(id) = -log(-log(u)), with
    u = (pcg(pcg(seed ^ pcg(position)) + id) >> 8) * 2^-24 + 2^-25, `position` that of the
    output's token in its sequence, and pcg the 32-bit PCG-RXS-M-XS hash
    (Jarzynski and Olano, "Hash Functions for GPU Rendering", 2020).

The draw depends on seed, position and logits alone: not on the batch, not on the backend.
"""
