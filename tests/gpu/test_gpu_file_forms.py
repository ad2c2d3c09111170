"""The same values in MLC's, safetensors' and GGUF's form give the same logits on a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from golden import compare
from model_files.forms import FOLDERS, write_form
from model_files.made_up import made_up
from webllm.backends.webgpu.backend import WebGPUBackend
from webllm.backends.webgpu.device import auto


@pytest.mark.parametrize("form", FOLDERS)
async def test_folder_and_gguf(form: str, tmp_path: Path) -> None:
    model = made_up("tiny-qwen2")
    write_form(model, tmp_path / "folder", form, shard_bytes=20_000)
    write_form(model, tmp_path / "model.gguf", f"gguf-{form}")
    [prompt, *_] = compare.read("tiny-qwen2")["prompts"]
    found = []
    for name in ("folder", "model.gguf"):
        backend = WebGPUBackend(await auto.open_device(await auto.find_adapter()))
        try:
            executable = await compare.load(backend, tmp_path / name)
            ids = prompt["prompt_ids"], prompt["token_ids"]
            found.append(await compare.forced_logits(executable, *ids))
        finally:
            backend.close()
    active = found[0].shape[1]  # a folder's vocabulary may end before the rows of the embedding
    assert active >= model.vocabulary.num_active
    assert np.array_equal(found[0], found[1][:, :active])
