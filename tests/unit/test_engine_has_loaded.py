"""`has_loaded` compares models, options and catalogue with those of the last reload."""

from __future__ import annotations

import asyncio

import pytest
from fake_model import NumberModels, number_models

from webllm import AppConfig, BlockingMLCEngine, ChatOptions, ModelRecord
from webllm.errors import ConfigError

__all__ = ["number_models"]  # a fixture

WARM = ChatOptions(temperature=0.7)


async def test_it_compares_the_ids_and_all_options(number_models: NumberModels) -> None:
    engine = number_models.engine()
    assert not engine.has_loaded("a.gguf")
    await engine.reload("a.gguf")
    assert engine.has_loaded("a.gguf")
    assert engine.has_loaded(["a.gguf"], [ChatOptions()])
    assert not engine.has_loaded("a.gguf", WARM)
    assert not engine.has_loaded("b.gguf")
    assert not engine.has_loaded(["a.gguf", "b.gguf"])
    await engine.reload(["a.gguf", "b.gguf"], [WARM, ChatOptions()])
    assert engine.has_loaded(["a.gguf", "b.gguf"], [WARM, ChatOptions()])
    assert not engine.has_loaded(["a.gguf", "b.gguf"])
    assert not engine.has_loaded("a.gguf", WARM)
    with pytest.raises(ConfigError, match="1 entries for 2 models"):
        engine.has_loaded(["a.gguf", "b.gguf"], [WARM])


async def test_it_looks_names_up_in_the_catalogue_of_now(number_models: NumberModels) -> None:
    engine = number_models.engine()
    one = ModelRecord(model="one.gguf", model_id="own")
    engine.set_app_config(AppConfig(model_list=(one,)))
    await engine.reload("own")
    other = ModelRecord(model="other.gguf", model_id="other")
    engine.set_app_config(AppConfig(model_list=(other, one)))
    assert engine.has_loaded("own")
    replaced = ModelRecord(model="two.gguf", model_id="own")
    engine.set_app_config(AppConfig(model_list=(replaced,)))
    assert not engine.has_loaded("own")
    engine.set_app_config(AppConfig(model_list=()))
    assert not engine.has_loaded("own")


async def test_nothing_is_loaded_during_a_load_after_a_failed_one_and_after_unload(
    number_models: NumberModels,
) -> None:
    engine = await number_models.engine_with("a.gguf")
    load = asyncio.create_task(engine.reload("a.gguf"))
    await asyncio.sleep(0)
    assert not engine.has_loaded("a.gguf")
    await load
    assert engine.has_loaded("a.gguf")
    with pytest.raises(OSError, match="no such file"):
        await engine.reload("broken.gguf")
    assert not engine.has_loaded("broken.gguf")
    assert not engine.has_loaded("a.gguf")
    await engine.reload("a.gguf")
    await engine.unload()
    assert not engine.has_loaded("a.gguf")


def test_it_may_be_called_without_async(number_models: NumberModels) -> None:
    with BlockingMLCEngine(engine=number_models.engine()) as engine:
        engine.reload("a.gguf", WARM)
        assert engine.has_loaded("a.gguf", WARM)
        assert not engine.has_loaded("a.gguf")
