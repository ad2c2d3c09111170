"""Chromium by its DevTools protocol over a pipe, for what Playwright cannot do in extensions."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from browser.chromium import FLAGS, TIMEOUT_S
from browser.engines.processes import running

_READ_BYTES = 1 << 16


class DevTools:
    """One connection. https://chromedevtools.github.io/devtools-protocol/"""

    def __init__(self, reader: asyncio.StreamReader, output: int) -> None:
        self._reader, self._output = reader, output
        self._replies: dict[int, asyncio.Future[Any]] = {}
        self._reading = asyncio.ensure_future(self._read())

    async def send(self, method: str, session: str | None = None, **params: Any) -> Any:
        """Returns the result of a method; fails if it has an error."""
        number = len(self._replies) + 1
        message = {"id": number, "method": method, "params": params}
        reply = self._replies[number] = asyncio.get_running_loop().create_future()
        if session:
            message["sessionId"] = session
        os.write(self._output, json.dumps(message).encode() + b"\0")
        answer = await asyncio.wait_for(reply, TIMEOUT_S)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    async def evaluate(self, session: str, expression: str) -> Any:
        """Returns the value of JavaScript in a page, or of its promise; fails if it throws."""
        options = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        answer = await self.send("Runtime.evaluate", session, **options)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, session: str, expression: str) -> None:
        """Waits until JavaScript in a page is true."""
        async with asyncio.timeout(TIMEOUT_S):
            while not await self.evaluate(session, expression):
                await asyncio.sleep(0.05)

    async def open(self, url: str) -> tuple[str, str]:
        """Opens a page; returns the ids of its tab and of a session with the page."""
        tab = (await self.send("Target.createTarget", url=url, forTab=True))["targetId"]
        return tab, await self.attach(await self.target(url))

    async def attach(self, target: str) -> str:
        found = await self.send("Target.attachToTarget", targetId=target, flatten=True)
        session: str = found["sessionId"]
        return session

    async def target(self, url: str) -> str:
        """Waits for a page with an address that ends so; returns its id."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                found = (await self.send("Target.getTargets"))["targetInfos"]
                for each in found:
                    if each["url"].endswith(url):
                        return str(each["targetId"])
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        self._reading.cancel()

    async def _read(self) -> None:
        while True:
            message = json.loads((await self._reader.readuntil(b"\0"))[:-1])
            if (reply := self._replies.get(message.get("id"))) and not reply.done():
                reply.set_result(message)


@asynccontextmanager
async def devtools(profile: Path, *flags: str) -> AsyncIterator[DevTools]:
    """Starts Chromium with a profile."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "these tests need Chromium: apt-get install chromium"
    commands, output = os.pipe()
    replies, answered = os.pipe()
    shell = f'exec "$@" 3<&{commands} 4>&{answered}'
    options = [f"--user-data-dir={profile}", "--remote-debugging-pipe", *FLAGS, *flags]
    command = ["bash", "-c", shell, "chromium", path, "--headless=new", *options]
    with running(*command, pass_fds=[commands, answered]):
        os.close(commands)
        os.close(answered)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=1 << 28)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_read_pipe(lambda: protocol, os.fdopen(replies, "rb"))
        connection = DevTools(reader, output)
        try:
            yield connection
        finally:
            await connection.close()
            transport.close()
            os.close(output)
