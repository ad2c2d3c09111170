"""What a model file says about text: defaults of the file, and of the catalogue by its hash."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from pathlib import Path

import pytest
from cpu_cases import FakeCheckpoint

from webllm import AppConfig, ChatOptions, ModelRecord
from webllm.engine.loading import context_window
from webllm.engine.model_text import known_overrides, with_defaults


def test_defaults_of_the_file_complete_options(caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = FakeCheckpoint()
    checkpoint.defaults = {"temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1e9}
    options = with_defaults(ChatOptions(top_p=0.5), checkpoint)
    assert (options.temperature, options.top_p, options.repetition_penalty) == (0.6, 0.5, None)
    assert "repetition_penalty is 1000000000.0" in caplog.text


def test_a_file_of_the_catalogue_is_known_by_its_hash(tmp_path: Path) -> None:
    file, same, other = (tmp_path / name for name in ("a.gguf", "b.gguf", "c.gguf"))
    file.write_bytes(b"model")
    same.write_bytes(b"model")
    other.write_bytes(b"other")
    known = ModelRecord(
        model_id="known",
        model="https://host/m.gguf",
        size_bytes=5,
        sha256=hashlib.sha256(b"model").hexdigest(),
        overrides=ChatOptions(temperature=0.2),
    )
    catalogue = AppConfig(model_list=(known,))

    def overrides(record: ModelRecord) -> ChatOptions | None:
        return asyncio.run(known_overrides(record, catalogue))

    for path in (file, same):
        assert overrides(ModelRecord(model=str(path), model_id="x")) == known.overrides
    assert overrides(ModelRecord(model=str(other), model_id="x")) is None
    assert overrides(ModelRecord(model=str(tmp_path), model_id="x")) is None
    own = ModelRecord(model=str(file), model_id="x", overrides=ChatOptions(temperature=1.0))
    assert overrides(own) is None
    hashed = ModelRecord(model="https://else/m.gguf", model_id="x", sha256=known.sha256)
    assert overrides(hashed) == known.overrides


def test_a_longer_window_than_the_training_is_warned_about(
    caplog: pytest.LogCaptureFixture,
) -> None:
    checkpoint = FakeCheckpoint({"model_type": "llama", "max_position_embeddings": 2048})
    assert context_window(checkpoint, ChatOptions()) == 2048
    assert not caplog.text
    with caplog.at_level(logging.WARNING):
        assert context_window(checkpoint, ChatOptions(context_window_size=9999)) == 9999
    assert "context_window_size is 9999, more than the 2048 tokens" in caplog.text
