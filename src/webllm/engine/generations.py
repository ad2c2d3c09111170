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

    def find(self, request: GenerationParams) -> Generation | None:
        """Returns the generation that a request names, if it is under way.

        Raises RequestError if it answers another request.
        """
        name = given_id(request)
        generation = self._by_id.get(name or "")
        if generation is not None:
            check_same(identity(request), identity(generation.request), generation.id)
        return generation

    def get(self, generation_id: str) -> Generation | None:
        return self._by_id.get(generation_id)

    def add(self, generation: Generation) -> None:
        self._by_id[generation.id] = generation

    def end(self, generation: Generation) -> None:
        """Forgets a generation, which has no readers any more, and closes its journal entry."""
        del self._by_id[generation.id]
        if generation.recorder is not None:
            task = asyncio.create_task(generation.recorder.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def interrupt(self, ids: Collection[str] | None) -> None:
        """Interrupts all generations, or those with these ids, request ids or response ids."""
        for generation in list(self._by_id.values()):
            request_id = (generation.request.extra_body or ExtraBody()).request_id
            if ids is None or not {generation.id, generation.response_id, request_id}.isdisjoint(
                ids
            ):
                generation.interrupt()

    async def written(self) -> None:
        """Waits until the journal has what generations wrote that have ended."""
        while self._closing:
            await asyncio.wait(self._closing)


def resumable(request: GenerationParams) -> Resumable | None:
    """Returns what a request says about its journal entry; None if it wants none."""
    extra = request.extra_body or ExtraBody()
    return extra.resumable if extra.resumable is not None and extra.resumable.enabled else None


def given_id(request: GenerationParams) -> str | None:
    """Returns the id that a request gives its generation."""
    extra = request.extra_body or ExtraBody()
    wanted = resumable(request)
    return (wanted.session_id if wanted else None) or extra.request_id


def check_same(request: GenerationParams, known: GenerationParams, generation_id: str) -> None:
    """Raises RequestError unless two requests, without how they are answered, are the same."""
    if type(request) is not type(known) or request != known:
        raise RequestError(
            f"{generation_id!r} is the id of another request; give each request an id of its own, "
            "or send the same request to attach to its answer",
            field="extra_body",
        )
