"""`Generations`: the generations of an engine, by id."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from webllm.api.requests import ExtraBody, GenerationParams, Resumable
from webllm.engine.generation import Generation, identity
from webllm.errors import RequestError


class Generations:
    """Finds the generation to which a request belongs, as long as readers are attached to it."""

    def __init__(self) -> None:
        self._by_id: dict[str, Generation] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def find(self, request: GenerationParams, model_id: str) -> Generation | None:
        """Returns the generation that a request names, if it is under way.

        Raises RequestError if it answers another request, or another model generates it.
        """
        generation = self._by_id.get(given_id(request) or "")
        if generation is None or generation.event_loop is not asyncio.get_running_loop():
            return None
        check_same(identity(request), identity(generation.request), generation.id)
        check_model(model_id, generation.model_id, generation.id)
        if resumable(request) and not resumable(generation.request):
            raise RequestError(
                f"{generation.id!r} is being answered without a journal; leave "
                "extra_body.resumable out to attach to it, or choose another session_id",
                field="extra_body",
            )
        return generation

    def add(self, generation: Generation) -> None:
        self._by_id[generation.id] = generation

    def update(self, generation: Generation) -> None:
        """Closes a generation that has ended; forgets it once nobody may attach any more."""
        if not generation.is_attachable and self._by_id.get(generation.id) is generation:
            del self._by_id[generation.id]
        event_loop = generation.event_loop
        if generation.has_ended and resumable(generation.request) and not event_loop.is_closed():
            task = event_loop.create_task(generation.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def has(self, generation_id: str) -> bool:
        """Whether a request with this id would attach to a generation."""
        generation = self._by_id.get(generation_id)
        return generation is not None and generation.event_loop is asyncio.get_running_loop()

    def interrupt(self, ids: Collection[str] | None) -> None:
        """Interrupts all generations, or those with these ids, request ids or response ids."""
        for generation in list(self._by_id.values()):
            if ids is None or not generation.names.isdisjoint(ids):
                generation.interrupt()

    def stop_starting(self, error: Exception) -> None:
        """Fails all generations whose sequences do not run yet."""
        for generation in list(self._by_id.values()):
            generation.stop_starting(error)

    async def written(self) -> None:
        """Waits until the journal has what generations wrote that have ended."""
        event_loop = asyncio.get_running_loop()  # another may have been closed
        if closing := [task for task in self._closing if task.get_loop() is event_loop]:
            await asyncio.wait(closing)


def resumable(request: GenerationParams) -> Resumable | None:
    """Returns what a request says about its journal entry; None if it wants none."""
    extra = request.extra_body or ExtraBody()
    return extra.resumable if extra.resumable is not None and extra.resumable.enabled else None


def given_id(request: GenerationParams) -> str | None:
    """Returns the id that a request gives its generation."""
    extra = request.extra_body or ExtraBody()
    wanted = resumable(request)
    return (wanted.session_id if wanted else None) or extra.request_id


def check_model(model_id: str, known: str, generation_id: str) -> None:
    """Raises RequestError unless a generation is by this model."""
    if model_id != known:
        raise RequestError(
            f"{generation_id!r} was begun by {known}, not {model_id}; resume it with that model",
            field="model",
        )


def check_same(request: GenerationParams, known: GenerationParams, generation_id: str) -> None:
    """Raises RequestError unless two requests, without how they are answered, are the same."""
    if type(request) is not type(known) or request != known:
        raise RequestError(
            f"{generation_id!r} is the id of another request; give each request an id of its own, "
            "or send the same request to attach to its answer",
            field="extra_body",
        )
