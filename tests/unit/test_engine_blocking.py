"""`BlockingMLCEngine`: the interface without async, from any thread, without leftovers."""

from __future__ import annotations

import asyncio
import gc
import inspect
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, MutableSequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import cast

import pytest
from fake_model import (
    NumberModels,
    asked,
    backend_of,
    counted,
    is_closed,
    make_engine,
    model_of,
    num_used,
    number_models,
)

from webllm import (
    BlockingMLCEngine,
    ChatOptions,
    MLCEngine,
    MLCEngineConfig,
    create_blocking_mlc_engine,
)
from webllm.api.chat_completion import ChatCompletion, ChatCompletionChunk
from webllm.api.interface import MLCEngineInterface
from webllm.engine.event_loop_thread import BlockingStream
from webllm.engine.loaded_model import LoadedModel
from webllm.errors import (
    ConfigError,
    ContextLengthError,
    DeviceLostError,
    ModelNotFoundError,
    ModelNotLoadedError,
    RequestError,
)
from webllm.workers.proxy import WorkerMLCEngine

__all__ = ["number_models"]  # a fixture
FOREVER = 10**6


@pytest.fixture
def engine() -> Iterator[BlockingMLCEngine]:
    """Makes an engine whose model never ends by itself under context_overflow "shift"."""
    with make_blocking_engine() as engine:
        yield engine


def make_blocking_engine() -> BlockingMLCEngine:
    return BlockingMLCEngine(engine=make_engine(windows=4, context_overflow="shift"))


def forever(engine: BlockingMLCEngine) -> BlockingStream[ChatCompletionChunk]:
    """Begins a stream that ends only if somebody ends it."""
    stream = engine.chat_completion(asked("1", max_tokens=FOREVER, ignore_eos=True, stream=True))
    assert isinstance(stream, BlockingStream)
    return stream


def ask_forever(engine: BlockingMLCEngine) -> ChatCompletion:
    """Waits for an answer that ends only if somebody ends it."""
    reply = engine.chat_completion(asked("1", max_tokens=FOREVER, ignore_eos=True))
    assert isinstance(reply, ChatCompletion)
    return reply


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert condition(), "it never happened"


def read_until_closed(stream: Iterator[object]) -> bool:
    """Reads a stream until the engine is closed; returns True."""
    with suppress(ModelNotLoadedError):
        for _ in stream:
            pass
    return True


def is_idle(engine: BlockingMLCEngine) -> bool:
    return engine._thread.call(num_used, engine.on_thread) == 0


def num_threads() -> int:
    return sum(thread.name == "webllm" for thread in threading.enumerate())


@contextmanager
def interrupted() -> Iterator[None]:
    """Interrupts the block shortly after it begins, as Ctrl-C would, which has to end it."""
    main = threading.main_thread().ident or 0
    timer = threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        yield
    timer.join()


@pytest.fixture
def _ctrl_c() -> Iterator[None]:
    """Restores the handler of SIGINT, which background jobs inherit as ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_it_has_all_of_the_interface_with_the_same_parameters() -> None:
    for name in [name for name in dir(MLCEngineInterface) if not name.startswith("_")]:
        assert hasattr(BlockingMLCEngine, name), name
    for name, method in inspect.getmembers(MLCEngine, inspect.isfunction):
        if not name.startswith("_"):
            ours = getattr(BlockingMLCEngine, name)
            parameters = inspect.signature(method).parameters
            assert inspect.signature(ours).parameters == parameters, name
            assert ours.__doc__ == method.__doc__, name


def test_whole_answers(engine: BlockingMLCEngine) -> None:
    reply = engine.chat.completions.create(**asked("1 2 3", max_tokens=3))
    assert reply.choices[0].message.content == "4 5 6 "
    assert engine.completions.create(prompt="7", max_tokens=2).choices[0].text == "8 9 "
    assert engine.get_message() == "8 9 "
    assert engine.forward_tokens_and_sample([5, 6], is_prefill=True) == 7
    assert engine.runtime_stats_text().startswith("prefill: ")
    assert engine.device_name() == "fake"
    assert [model.model_id for model in engine.engine_stats().models] == ["numbers"]
    engine.reset_chat()
    assert engine.get_message() == ""


def test_streams(engine: BlockingMLCEngine) -> None:
    stream = engine.chat.completions.create(**asked("1 2 3", max_tokens=3, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "4 5 6 "
    assert list(stream) == []
    texts = engine.completions.create(prompt="7", max_tokens=2, stream=True)
    assert "".join(text.choices[0].text for text in texts) == "8 9 "


def test_errors_come_as_they_are(engine: BlockingMLCEngine) -> None:
    with pytest.raises(RequestError, match="temperature is 9"):
        engine.chat.completions.create(**asked("1", temperature=9))
    with pytest.raises(ModelNotLoadedError, match="embedding"):
        engine.embeddings.create(input="x")
    with pytest.raises(ConfigError, match="log_level"):
        engine.set_log_level("LOUD")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unexpected keyword"):
        engine.reset_chat(keep_statistics=True)  # type: ignore[call-arg]
    with pytest.raises(ModelNotFoundError):
        create_blocking_mlc_engine("no-such-model")
    assert num_threads() == 1


def test_a_failing_device_fails_the_stream(engine: BlockingMLCEngine) -> None:
    stream = forever(engine)
    next(stream)
    backend_of(engine.on_thread).error = DeviceLostError("gone")
    with pytest.raises(DeviceLostError):
        list(stream)


def test_closing_a_stream_frees_its_blocks(engine: BlockingMLCEngine) -> None:
    for num_chunks in range(5):
        stream = forever(engine)
        for _ in range(num_chunks):
            next(stream)
        stream.close()
        assert is_idle(engine)
        assert list(stream) == []
        stream.close()
    with forever(engine) as stream:
        next(stream)
    assert is_idle(engine)


def test_leaving_a_loop_ends_the_answer(engine: BlockingMLCEngine) -> None:
    stream = forever(engine)
    next(stream)
    for i, _ in enumerate(stream):
        if i == 3:
            break
    assert is_idle(engine)
    assert list(stream) == []


def test_an_exception_in_a_loop_ends_the_answer(engine: BlockingMLCEngine) -> None:
    stream = forever(engine)

    def read() -> None:
        for _ in stream:
            raise OSError("no paper")

    with pytest.raises(OSError, match="no paper"):
        read()
    assert is_idle(engine)


def test_a_stream_nobody_refers_to_ends(engine: BlockingMLCEngine) -> None:
    stream = forever(engine)
    next(stream)
    assert not is_idle(engine)
    del stream
    until(lambda: is_idle(engine))


def test_closing_from_another_thread_ends_a_waiting_loop(engine: BlockingMLCEngine) -> None:
    stream = forever(engine)
    read = threading.Semaphore(0)

    def read_on() -> None:
        for _ in stream:
            read.release()

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read_on), pool.submit(read_on)]
        assert all(read.acquire(timeout=20) for _ in range(10))
        stream.close()
        assert [reader.result(5) for reader in readers] == [None, None]
    assert is_idle(engine)


def test_several_threads_share_steps(engine: BlockingMLCEngine) -> None:
    def ask(first: int) -> str | None:
        reply = engine.chat.completions.create(**asked(str(first), max_tokens=40))
        content: str | None = reply.choices[0].message.content
        return content

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(0, 800, 100)))
    assert answers == [counted(first + 1, first + 40) for first in range(0, 800, 100)]


async def test_it_works_inside_a_running_event_loop(engine: BlockingMLCEngine) -> None:
    asyncio.get_running_loop()
    reply = engine.chat.completions.create(**asked("1", max_tokens=1))
    assert reply.choices[0].message.content == "2 "


def test_interrupt_generate_ends_answers_of_other_threads(engine: BlockingMLCEngine) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask_forever, engine)
        until(lambda: not is_idle(engine))
        engine.interrupt_generate()
        assert answer.result(5).choices[0].finish_reason == "abort"


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_cancels_an_answer_and_the_engine_goes_on(engine: BlockingMLCEngine) -> None:
    with interrupted():
        ask_forever(engine)
    until(lambda: is_idle(engine))
    stream = forever(engine)
    with interrupted():
        for _ in stream:
            pass
    stream.close()
    until(lambda: is_idle(engine))
    test_whole_answers(engine)


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_cancels_a_reload() -> None:
    cancelled = threading.Event()

    async def load_model(*_: object) -> LoadedModel:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    with BlockingMLCEngine(engine=MLCEngine(load_model=load_model)) as engine:
        with interrupted():
            engine.reload("a.gguf")
        assert cancelled.wait(30)
    assert num_threads() == 0


def test_after_close_everything_says_so(number_models: NumberModels) -> None:
    engine = BlockingMLCEngine(engine=number_models.engine())
    engine.reload(["a.gguf", "b.gguf"])
    stream = engine.chat.completions.create(**asked("1", model="a", stream=True))
    next(stream)
    engine.close()
    assert num_threads() == 0
    assert all(map(is_closed, number_models.loaded))
    engine.close()
    stream.close()
    for call in (
        lambda: engine.chat.completions.create(**asked("1")),
        lambda: next(stream),
        lambda: engine.reload("a.gguf"),
        engine.interrupt_generate,
        engine.get_message,
    ):
        with pytest.raises(ModelNotLoadedError, match="this engine is closed; make a new one"):
            call()


def test_close_ends_answers_of_other_threads() -> None:
    engine = make_blocking_engine()
    with ThreadPoolExecutor(2) as pool:
        whole = pool.submit(ask_forever, engine)
        ended = pool.submit(read_until_closed, forever(engine))
        until(lambda: num_used(engine.on_thread) > 2)
        engine.close()
        assert whole.result(30).choices[0].finish_reason == "abort"
        assert ended.result(30)
    assert num_threads() == 0


def test_calls_of_other_threads_while_it_closes_are_answered_or_refused() -> None:
    def call(engine: BlockingMLCEngine) -> int:
        for num_calls in range(10**6):
            try:
                engine.get_init_progress_callback()
            except ModelNotLoadedError:
                return num_calls
        raise AssertionError

    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            engine = BlockingMLCEngine()
            calls = [pool.submit(call, engine) for _ in range(4)]
            time.sleep(0.005)
            engine.close()
            assert all(each.result(30) >= 0 for each in calls)


def test_a_failing_unload_is_raised_and_the_thread_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_blocking_engine()

    async def close() -> None:
        raise DeviceLostError("gone")

    monkeypatch.setattr(model_of(engine.on_thread).loop.runner, "close", close)
    with pytest.raises(DeviceLostError):
        engine.close()
    until(lambda: num_threads() == 0)


def test_letting_go_of_engine_and_streams_ends_the_thread() -> None:
    engine = make_blocking_engine()
    backend = weakref.ref(backend_of(engine.on_thread))
    stream = forever(engine)
    del engine
    next(stream)
    next(stream)
    assert num_threads() == 1
    del stream
    until(lambda: num_threads() == 0)
    gc.collect()
    assert backend() is None


def test_an_engine_left_open_lets_python_end() -> None:
    script = """if True:
        from webllm import BlockingMLCEngine
        engine = BlockingMLCEngine()
        engine.set_log_level("INFO")
        print(engine._thread._thread.is_alive())
    """
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)


def test_callbacks_may_interrupt_but_not_wait(number_models: NumberModels) -> None:
    said: list[str] = []

    class Curious:
        def process_logits(self, logits: MutableSequence[float]) -> MutableSequence[float]:
            running.interrupt_generate()
            try:
                running.get_message()
            except RequestError as error:
                said.append(str(error))
            return logits

        def process_sampled_token(self, token: int) -> None: ...

        def reset_state(self) -> None: ...

    config = MLCEngineConfig(logit_processor_registry={"a": Curious()})
    with BlockingMLCEngine(engine=number_models.engine(config)) as running:
        running.reload("a.gguf")
        reply = running.chat.completions.create(**asked("1"))
        assert reply.choices[0].finish_reason == "abort"
    assert "ask from another thread" in said[0]


def test_options_reach_the_model(number_models: NumberModels) -> None:
    options = ChatOptions(context_window_size=32)
    with BlockingMLCEngine(engine=number_models.engine()) as engine:
        engine.reload("a.gguf", options)
        assert number_models.loaded[0].context_window_size == 32
        with pytest.raises(ContextLengthError):
            engine.completions.create(prompt=counted(0, 40))


def test_an_engine_in_another_process_is_refused() -> None:
    with pytest.raises(ConfigError, match="engine is a WorkerMLCEngine; only an MLCEngine"):
        BlockingMLCEngine(engine=cast(MLCEngine, WorkerMLCEngine.__new__(WorkerMLCEngine)))
