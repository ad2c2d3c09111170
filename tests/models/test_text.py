"""Tokenizers and templates of the real models, against other readers of the same files."""

import pytest
from text_references import GOLDEN, TEXTS, json_document, sentencepiece_of

from golden import compare
from webllm.artifacts.local_files import open_local
from webllm.text import json_tokenizer
from webllm.text.builtin_templates import equal_builtin
from webllm.text.gguf_tokenizer import tokenizer_from_gguf
from webllm.text.json_tokenizer import tokenizer_from_json
from webllm.text.model_template import template_from_gguf

NAMES = {"smollm2": "smollm2-135m", "gemma3-270m": "gemma3-270m"}
# transformers 5.23 does not take non-ASCII digits apart for "smollm"; the upstream tokenizer.json
# (`Digits(individual_digits=True)`) and llama.cpp do, and so do we.
DIFFER = {"smollm2": [text for text in TEXTS if "\u0661" in text or "½" in text], "gemma3-270m": []}
USER = {"role": "user", "content": " Hi <|im_start|>\nthere. "}
TALKS = [
    [USER],
    [{"role": "system", "content": "Be brief.\n"}, USER],
    [USER, {"role": "assistant", "content": "Hello! "}, {"role": "user", "content": ""}],
]


@pytest.mark.parametrize("name", GOLDEN["models"])
async def test_against_other_readers_of_the_same_file(name: str) -> None:
    with open_local(await compare.model_path(NAMES[name])) as checkpoint:
        metadata = compare.gguf_metadata(checkpoint)
        tokenizer = tokenizer_from_gguf(metadata)
        template = template_from_gguf(metadata, tokenizer)
        golden = GOLDEN["models"][name]
        for text, ids in golden["special"]:
            assert tokenizer.encode(text, parse_special=True, add_special=False) == ids
        plain = {text: tokenizer.encode(text, add_special=False) for text in TEXTS}
        assert [t for t, ids in golden["plain"] if plain[t] != ids] == DIFFER[name]
        for text, ids in plain.items():
            is_spaced = name == "gemma3-270m"  # to SentencePiece, U+2581 is a space
            assert tokenizer.decode(ids) == (text.replace("\u2581", " ") if is_spaced else text)
        assert template is not None
        prompt = template.render([{"role": "user", "content": "Hi"}])
        if name == "gemma3-270m":
            reference = sentencepiece_of(metadata)
            assert {text: reference.encode(text) for text in TEXTS} == plain
            assert tokenizer.eos_ids == {1, 106}  # not </s>: to Gemma it is markup
            assert prompt == golden["special"][0][0]
        else:
            assert tokenizer.eos_ids == {0, 2}
            assert prompt.endswith(golden["special"][0][0])


@pytest.mark.parametrize(("name", "builtin"), [("smollm2", "smollm2"), ("gemma3-270m", "gemma")])
async def test_a_builtin_template_renders_as_the_file_does(name: str, builtin: str) -> None:
    """Chrome extensions that fetch the file use it: none of the file's text is run."""
    with open_local(await compare.model_path(NAMES[name])) as checkpoint:
        metadata = compare.gguf_metadata(checkpoint)
        tokenizer = tokenizer_from_gguf(metadata)
        own = template_from_gguf(metadata, tokenizer)
        ours = template_from_gguf(metadata, tokenizer, builtin=builtin)
    assert own is not None
    assert ours is not None
    assert equal_builtin(own) == builtin
    for talk in TALKS:
        assert ours.render(talk) == own.render(talk)


@pytest.mark.parametrize("name", GOLDEN["models"])
async def test_a_tokenizer_json_of_the_same_vocabulary(name: str) -> None:
    """Read by the `tokenizers` library and by ourselves; 33 MB of Gemma's."""
    with open_local(await compare.model_path(NAMES[name])) as checkpoint:
        metadata = compare.gguf_metadata(checkpoint)
        gguf = tokenizer_from_gguf(metadata)
        document = json_document(metadata)
    library = tokenizer_from_json(document)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_tokenizer, "has_library", lambda: False)
        own = tokenizer_from_json(document)
    for text in TEXTS:
        ids = own.encode(text, add_special=False)
        assert ids == library.encode(text, add_special=False), text
        if "\u2581" not in text:  # a user-defined token of GGUF is matched where that is a space
            assert ids == gguf.encode(text, add_special=False), text
    for text, ids in GOLDEN["models"][name]["special"]:
        guarded = gguf.guard(text)
        for tokenizer in (library, own):
            assert tokenizer.encode_prompt(text) == ids
            assert tokenizer.guard(text) == guarded
            assert tokenizer.encode_prompt(guarded) == gguf.encode_prompt(guarded)
            assert tokenizer.decode(ids) == gguf.decode(ids)
    assert own.vocab_size == library.vocab_size == gguf.vocab_size
    assert own.eos_ids == library.eos_ids == gguf.eos_ids
