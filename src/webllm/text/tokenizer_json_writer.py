"""Writes the `tokenizer.json` of a byte-level BPE, which the `tokenizers` library reads.

JSON is written string by string: lists and dicts of a whole vocabulary would take ten times the
memory of the text, and fragment the heap so that it never shrinks again.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

import msgspec

from webllm.errors import CheckpointError
from webllm.text.pre_tokenizers import PreTokenizer


def byte_level_json(
    tokens: Sequence[str], control_ids: Container[int], merges: Iterable[str], pre: PreTokenizer
) -> bytes:
    """Returns the document for a vocabulary, without its control tokens.

    tokens: the spelling of each token id. Raises CheckpointError for text that is not UTF-8.
    """
    try:
        vocab, merge_list = _vocab_json(tokens, control_ids), _list_json(merges)
    except UnicodeEncodeError as error:
        raise CheckpointError(f"tokenizer.ggml contains text that is not UTF-8: {error}") from error
    splits = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in pre.patterns
    ]
    to_bytes = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": False,
    }
    document: dict[str, object] = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "NFC"} if pre.nfc else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, to_bytes]},
        "post_processor": None,
        "decoder": to_bytes,
        "model": {
            "type": "BPE",
            "ignore_merges": pre.ignore_merges,
            "vocab": vocab,
            "merges": merge_list,
        },
    }
    return msgspec.json.encode(document)


def _vocab_json(tokens: Sequence[str], control_ids: Container[int]) -> msgspec.Raw:
    """Encodes spelling to id as a JSON object.

    The order is reversed: of tokens spelled alike the first counts, and JSON readers keep the last.
    """
    encode, out = msgspec.json.encode, bytearray()
    for token_id in reversed(range(len(tokens))):
        if token_id not in control_ids:
            out += b"%b:%d," % (encode(tokens[token_id]), token_id)
    return msgspec.Raw(b"{%b}" % bytes(out[:-1]))


def _list_json(texts: Iterable[str]) -> msgspec.Raw:
    encode, out = msgspec.json.encode, bytearray()
    for text in texts:
        out += b"%b," % encode(text)
    return msgspec.Raw(b"[%b]" % bytes(out[:-1]))
