"""Every method of `MLCEngineInterface`, on number models."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_model import (
    NumberModels,
    asked,
    backend_of,
    counted,
    is_closed,
    make_engine,
    num_used,
    number_models,
    settle,
    usage_of,
)

from webllm import (
    AppConfig,
    BlockingMLCEngine,
    ChatOptions,
    MLCEngine,
    MLCEngineConfig,
    ModelRecord,
    create_mlc_engine,
)
from webllm.api.interface import MLCEngineInterface
from webllm.config import LogLevel
from webllm.engine import engine as engine_module
from webllm.engine import loading
from webllm.errors import (
    ConfigError,
    ContextLengthError,
    DeviceNotFoundError,
    ModelNotFoundError,
    ModelNotLoadedError,
    RequestError,
)

__all__ = ["number_models"]  # a fixture


def test_the_engine_has_the_whole_interface() -> None:
    engine: MLCEngineInterface = MLCEngine()
    for name in [name for name in dir(MLCEngineInterface) if not name.startswith("_")]:
        assert hasattr(engine, name), name


class TestModels:
    async def test_requests_go_to_the_model_they_name(self, number_models: NumberModels) -> None:
        engine = await number_models.engine_with("a.gguf", "b.gguf")
        for model in ("a", "b"):
            reply = await engine.chat.completions.create(**asked("1", model=model, max_tokens=1))
            assert reply.model == model
            stream = await engine.completions.create(prompt="1", model=model, stream=True)
            assert (await anext(stream)).model == model
            assert (num_used(engine, "a") > 0, num_used(engine, "b") > 0) == (
                model == "a",
                model == "b",
            )
            await stream.aclose()

    async def test_several_models_answer_at_once(self, number_models: NumberModels) -> None:
        engine = await number_models.engine_with("a.gguf", "b.gguf")
        replies = await asyncio.gather(
            *(
                engine.completions.create(prompt=str(i), model=model, max_tokens=9)
                for i in range(0, 80, 10)
                for model in "ab"
            )
        )
        assert [(reply.model, reply.choices[0].text) for reply in replies] == [
            (model, counted(i + 1, i + 9)) for i in range(0, 80, 10) for model in "ab"
        ]

    async def test_the_model_may_be_left_out_if_there_is_one(
        self, number_models: NumberModels
    ) -> None:
        engine = await number_models.engine_with("a.gguf")
        assert (await engine.chat.completions.create(**asked("1", max_tokens=1))).model == "a"
        await engine.reload(["a.gguf", "b.gguf"])
        for call in (
            engine.chat.completions.create(**asked("1")),
            engine.completions.create(prompt="1"),
            engine.get_message(),
            engine.runtime_stats_text(),
            engine.reset_chat(),
            engine.forward_tokens_and_sample([1], True),
        ):
            with pytest.raises(RequestError, match="model is missing; name one of a, b") as caught:
                await call
            assert caught.value.field == "model"

    async def test_create_mlc_engine(
        self, number_models: NumberModels, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(loading, "load_model", number_models.load)
        engine = await create_mlc_engine(["a.gguf", "b.gguf"])
        assert engine.loaded_model_ids() == ["a", "b"]

    async def test_an_unknown_model_is_named(self, number_models: NumberModels) -> None:
        engine = await number_models.engine_with("a.gguf")
        with pytest.raises(ModelNotFoundError, match="model is 'c', loaded: a"):
            await engine.chat.completions.create(**asked("1", model="c"))
        with pytest.raises(ModelNotFoundError, match="model is 'c'"):
            await engine.get_message("c")

    @pytest.mark.parametrize(
        ("model_id", "chat_options", "said"),
        [
            ([], None, "model_id is empty"),
            (["a.gguf", "a.gguf"], None, "names a model twice"),
            (["one/a.gguf", "two/a.gguf"], None, "names a model twice: a, a"),
            (["a.gguf", "b.gguf"], ChatOptions(), "1 entries for 2 models"),
            (["a.gguf", "b.gguf"], [], "0 entries for 2 models"),
            ("a.gguf", [ChatOptions()] * 2, "2 entries for 1 models"),
            ("a.gguf", ChatOptions(bos_token_id=1), "bos_token_id"),
            ("a.gguf", {"temprature": 1}, "did you mean temperature"),
            ("a.gguf", 0.5, r"chat_options is 0\.5; give ChatOptions"),
            ("a.gguf", [1], "received 1"),
        ],
    )
    async def test_wrong_lists_are_refused(
        self,
        number_models: NumberModels,
        model_id: list[str],
        chat_options: list[ChatOptions],
        said: str,
    ) -> None:
        with pytest.raises(ConfigError, match=said):
            await number_models.engine().reload(model_id, chat_options)
        assert number_models.loaded == []

    @pytest.mark.parametrize("model_id", [None, "", 3, [""], ["a.gguf", ""], ["a.gguf", None]])
    async def test_what_names_no_model_is_refused(self, model_id: Any) -> None:
        with pytest.raises(ConfigError, match=r"model_id is .*; name at least one model"):
            await MLCEngine().reload(model_id)

    async def test_a_path_names_a_model(self, number_models: NumberModels) -> None:
        await number_models.engine().reload(Path("folder/a.gguf"))  # type: ignore[arg-type]
        assert number_models.loaded[0].model_id == "a"

    @pytest.mark.parametrize("engine", [MLCEngine, BlockingMLCEngine])
    def test_a_config_of_another_kind_is_refused(self, engine: Any) -> None:
        with pytest.raises(ConfigError, match="give MLCEngineConfig"):
            engine({"appConfig": {"model_list": []}})
        with pytest.raises(ConfigError, match="device is 3; give 'auto'"):
            MLCEngineConfig(device=3)  # type: ignore[arg-type]

    async def test_options_may_be_a_mapping(self, number_models: NumberModels) -> None:
        await number_models.engine().reload("a.gguf", {"temperature": 0.5})  # type: ignore[arg-type]
        assert number_models.loaded[0].options.temperature == 0.5

    async def test_each_model_has_its_options(self, number_models: NumberModels) -> None:
        options = [ChatOptions(context_window_size=size) for size in (32, 64)]
        record = ModelRecord(
            model="x.gguf", model_id="own", overrides=ChatOptions(temperature=0.5, top_p=0.5)
        )
        config = MLCEngineConfig(app_config=AppConfig(model_list=(record,)))
        await number_models.engine(config).reload(["a.gguf", "b.gguf"], options)
        assert [loaded.context_window_size for loaded in number_models.loaded] == [32, 64]
        await number_models.engine(config).reload("own", ChatOptions(top_p=0.9))
        assert number_models.loaded[-1].options == ChatOptions(temperature=0.5, top_p=0.9)

    @pytest.mark.parametrize("second", ["broken.gguf", "no-such-model"])
    async def test_a_failing_second_model_leaves_nothing_loaded(
        self, number_models: NumberModels, second: str
    ) -> None:
        engine = await number_models.engine_with("old.gguf")
        with pytest.raises((OSError, ModelNotFoundError)):
            await engine.reload(["a.gguf", second])
        assert engine.loaded_model_ids() == []
        assert all(map(is_closed, number_models.loaded))
        with pytest.raises(ModelNotLoadedError, match="reload"):
            await engine.get_message()

    async def test_a_cancelled_reload_leaves_nothing_loaded(
        self, number_models: NumberModels
    ) -> None:
        engine = number_models.engine()
        task = asyncio.create_task(engine.reload(["a.gguf", "b.gguf"]))
        while not number_models.loaded:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert engine.loaded_model_ids() == []
        assert is_closed(number_models.loaded[0])

    async def test_unload_ends_answers_and_may_be_repeated(
        self, number_models: NumberModels
    ) -> None:
        async with number_models.engine() as engine:
            await engine.reload(["a.gguf", "b.gguf"])
            answers = [
                asyncio.create_task(engine.completions.create(prompt="1", model=m, ignore_eos=True))
                for m in "ab"
            ]
            await settle()
            await engine.unload()
            await engine.unload()
            ended = await asyncio.gather(*answers)
            assert [reply.choices[0].finish_reason for reply in ended] == ["abort"] * 2
            with pytest.raises(ModelNotLoadedError, match="no model is loaded"):
                await engine.completions.create(prompt="1")


class TestConversation:
    async def test_get_message_follows_the_answer(self) -> None:
        engine = make_engine()
        assert await engine.get_message() == ""
        stream = await engine.chat.completions.create(**asked("1", max_tokens=5, stream=True))
        assert await engine.get_message() == ""
        said = ""
        async for chunk in stream:
            said += chunk.choices[0].delta.content or ""
            assert (await engine.get_message()).startswith(said)
        assert await engine.get_message() == said == counted(2, 6)
        await engine.completions.create(prompt="7", max_tokens=1, echo=True)
        assert await engine.get_message() == "8 "

    async def test_runtime_stats_text(self) -> None:
        engine = make_engine()
        nothing = "prefill: 0.0000 tokens/sec, decoding: 0.0000 tokens/sec"
        assert await engine.runtime_stats_text() == nothing
        extra = usage_of(await engine.completions.create(prompt="1", max_tokens=9)).extra
        text = (
            f"prefill: {extra.prefill_tokens_per_s:.4f} tokens/sec, "
            f"decoding: {extra.decode_tokens_per_s:.4f} tokens/sec"
        )
        assert await engine.runtime_stats_text() == text
        await engine.reset_chat(keep_stats=True)
        assert await engine.runtime_stats_text() == text
        await engine.reset_chat(keep_stats=True)
        assert await engine.runtime_stats_text() == text
        await engine.reset_chat()
        assert await engine.runtime_stats_text() == nothing

    async def test_reset_chat_forgets_message_and_prefixes_of_one_model(
        self, number_models: NumberModels
    ) -> None:
        engine = await number_models.engine_with("a.gguf", "b.gguf")

        async def num_cached(model: str) -> int:
            prompt = counted(0, 39)
            reply = await engine.completions.create(prompt=prompt, model=model, max_tokens=1)
            details = usage_of(reply).prompt_tokens_details
            assert details is not None
            return details.cached_tokens

        assert [await num_cached(model) for model in "abab"] == [0, 0, 32, 32]
        await engine.reset_chat(model_id="a")
        assert [await engine.get_message(model) for model in "ab"] == ["", "40 "]
        assert [await num_cached(model) for model in "ab"] == [0, 32]

    async def test_reset_chat_leaves_answers_under_way_alone(self) -> None:
        engine = make_engine()
        task = asyncio.create_task(engine.completions.create(prompt="0", max_tokens=100))
        await settle()
        await engine.reset_chat()
        assert (await task).choices[0].text == counted(1, 100)
        assert num_used(engine) == 0

    async def test_interrupt_generate_ends_every_answer_of_every_model(
        self, number_models: NumberModels
    ) -> None:
        engine = await number_models.engine_with("a.gguf", "b.gguf")
        engine.interrupt_generate()  # nothing to do
        answers = [
            asyncio.create_task(
                engine.completions.create(prompt="1", model=m, n=2, ignore_eos=True)
            )
            for m in "aab"
        ]
        await settle()
        engine.interrupt_generate()
        for reply in await asyncio.gather(*answers):
            assert [choice.finish_reason for choice in reply.choices] == ["abort", "abort"]
            assert all(choice.text.startswith("2 3 ") for choice in reply.choices)
        reply = await engine.completions.create(prompt="1", model="a", max_tokens=1)
        assert reply.choices[0].text == "2 "


class TestForwardTokens:
    async def test_it_goes_on_until_reset_chat(self) -> None:
        engine = make_engine()
        assert await engine.forward_tokens_and_sample([1, 2, 3], is_prefill=True) == 4
        assert await engine.forward_tokens_and_sample([4], is_prefill=False) == 5
        assert await engine.forward_tokens_and_sample([998], is_prefill=False) == 999
        backend = backend_of(engine)
        assert backend.context([*backend.steps[-1].sequences[0].block_table], 5, 16) == [
            1,
            2,
            3,
            4,
            998,
        ]
        await engine.reset_chat()
        assert await engine.forward_tokens_and_sample([7], is_prefill=True) == 8
        assert backend.steps[-1].sequences[0].context_len == 1
        assert num_used(engine) == 0

    async def test_calls_at_once_go_on_from_each_other(self) -> None:
        engine = make_engine()
        calls = [engine.forward_tokens_and_sample([i], is_prefill=True) for i in (1, 5, 9)]
        assert await asyncio.gather(*calls) == [2, 6, 10]
        backend = backend_of(engine)
        assert backend.context([*backend.steps[-1].sequences[0].block_table], 3, 16) == [1, 5, 9]

    @pytest.mark.parametrize("input_ids", [[1000], [-1], [5, 2**33]])
    async def test_wrong_ids_change_nothing(self, input_ids: list[int]) -> None:
        engine = make_engine()
        await engine.forward_tokens_and_sample([1, 2], True)
        with pytest.raises(RequestError):
            await engine.forward_tokens_and_sample([3, *input_ids], True)
        assert await engine.forward_tokens_and_sample([3], False) == 4
        backend = backend_of(engine)
        assert backend.steps[-1].sequences[0].context_len == 3

    async def test_nothing_to_forward_is_refused(self) -> None:
        with pytest.raises(RequestError, match="input_ids is empty") as caught:
            await make_engine().forward_tokens_and_sample([], True)
        assert caught.value.field == "input_ids"

    async def test_too_many_tokens_are_refused(self) -> None:
        engine = make_engine()
        await engine.forward_tokens_and_sample(list(range(200)), True)
        with pytest.raises(ContextLengthError, match="256 tokens") as caught:
            await engine.forward_tokens_and_sample(list(range(56)), False)
        assert caught.value.field == "input_ids"
        assert await engine.forward_tokens_and_sample([200], False) == 201

    async def test_an_interruption_is_an_error(self) -> None:
        engine = make_engine()
        task = asyncio.create_task(engine.forward_tokens_and_sample([1], True))
        await asyncio.sleep(0)
        engine.interrupt_generate()
        with pytest.raises(RequestError, match="interrupted"):
            await task
        assert await engine.forward_tokens_and_sample([5], True) == 6
        assert engine._session(None)._forwarded == [5]


class TestConfiguration:
    def test_init_progress_callback(self) -> None:
        def first(report: object) -> None: ...
        def second(report: object) -> None: ...

        engine = MLCEngine(MLCEngineConfig(init_progress_callback=first))
        assert engine.get_init_progress_callback() is first
        engine.set_init_progress_callback(second)
        assert engine.get_init_progress_callback() is second
        engine.set_init_progress_callback(None)
        assert engine.get_init_progress_callback() is None

    async def test_set_app_config_holds_from_the_next_reload_on(
        self, number_models: NumberModels
    ) -> None:
        engine = await number_models.engine_with("a.gguf")
        engine.set_app_config(AppConfig(model_list=(ModelRecord(model="m.gguf", model_id="own"),)))
        assert await engine.device_name("a") == "fake"
        await engine.reload("own")
        assert number_models.loaded[-1].model_id == "own"
        with pytest.raises(ModelNotFoundError, match="known are own"):
            await engine.reload("SmolLM2-135M-Instruct")

    @pytest.mark.parametrize(
        ("log_level", "enabled"),
        [
            ("TRACE", 5),
            ("DEBUG", logging.DEBUG),
            ("INFO", logging.INFO),
            ("WARN", logging.WARNING),
            ("ERROR", logging.ERROR),
            ("SILENT", logging.CRITICAL + 1),
        ],
    )
    def test_log_levels(self, log_level: LogLevel, enabled: int) -> None:
        logger = logging.getLogger("webllm.engine")
        engine = MLCEngine()
        assert logger.isEnabledFor(logging.WARNING)
        engine.set_log_level(log_level)
        assert logger.isEnabledFor(enabled)
        assert not logger.isEnabledFor(enabled - 1)
        MLCEngine(MLCEngineConfig(log_level=log_level))
        assert logger.isEnabledFor(enabled)
        engine.set_log_level("WARN")

    def test_a_wrong_log_level_is_refused(self) -> None:
        for wrong in ("warn", "LOUD", 3, None):
            with pytest.raises(ConfigError, match="give one of TRACE, DEBUG"):
                MLCEngine().set_log_level(wrong)  # type: ignore[arg-type]

    async def test_what_gpu_there_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked_for: list[str] = []

        async def find_adapter(device: str) -> SimpleNamespace:
            asked_for.append(device)
            if device == "none":
                raise DeviceNotFoundError("no adapter")
            return SimpleNamespace(
                info=SimpleNamespace(vendor="acme"), limits=SimpleNamespace(max_binding_bytes=2**27)
            )

        monkeypatch.setattr(engine_module, "find_adapter", find_adapter)
        engine = MLCEngine(MLCEngineConfig(device="acme"))
        assert await engine.get_gpu_vendor() == "acme"
        assert await engine.get_max_storage_buffer_binding_size() == 2**27
        assert asked_for == ["acme", "acme"]
        with pytest.raises(DeviceNotFoundError):
            await MLCEngine(MLCEngineConfig(device="none")).get_gpu_vendor()

    async def test_language_models_give_no_embeddings(self) -> None:
        with pytest.raises(ModelNotLoadedError, match="no embedding model is loaded"):
            await make_engine().embeddings.create(input=["a", "b"])
        with pytest.raises(ModelNotLoadedError, match="asked for m, loaded: nothing"):
            await MLCEngine().embedding({"input": "a", "model": "m"})
        with pytest.raises(RequestError, match="input is empty"):
            await make_engine().embeddings.create(input="")
