"""How a token is drawn. Every backend follows this rule, so that a seed means the same anywhere.

1.  The edits of this output row, each token once. n is how often the token was generated, which
    includes the row's own input token where the device alone knows it (FROM_SAMPLED):
        logit += bias                                       (-inf masks the token)
        if n > 0 or the token is in the prompt:             (arXiv:1909.05858)
            logit = logit / repetition_penalty if logit > 0 else logit * repetition_penalty
        logit -= frequency_penalty * n + presence_penalty * (n > 0)     (OpenAI's API reference)
    Log-probabilities that are asked for are of the softmax of these logits.
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
