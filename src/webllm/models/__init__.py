"""The architectures: one file for each, named after Hugging Face's `model_type`.

Every file has `ModelArgs`, `Attention`, `MLP`, `TransformerBlock` and `Model`, and spells its
architecture out even where another file has the same lines. `registry` chooses the file.
"""
