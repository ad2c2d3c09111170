"""The journal in IndexedDB: its protocol, its owners, its failures, and answers that go on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.async_api import Page

import journal_cases
from browser.chromium import LAN_HOST, new_context, watched_page
from browser.conftest import RunPython
from browser.site_server import SiteServer
from browser.store_cases import another_page, run_in, set_quota
from browser.test_replay_in_browser import LOAD
from browser.test_workers import COLOURS, ENGINE, NPM_CLIENT, OUR_CLIENT, WORKER

OPEN = """
import asyncio, json, logging
from pyodide.code import run_js
from webllm import WebLLMError
from webllm.artifacts.browser.journal import JournalDatabase

NAME = "0" * 64
storage = JournalDatabase()

async def error_of(call):
    try:
        await call
    except WebLLMError as error:
        return f"{type(error).__name__}: {error}"
"""
OWNERS = """
first, second = JournalDatabase(), JournalDatabase()
writers = await asyncio.gather(first.create(NAME, b"first"), second.create(NAME, b"second"))
[writer] = [each for each in writers if each is not None]
assert await first.is_owned(NAME) and await second.is_owned(NAME)
await writer.close()
reopened = await asyncio.gather(first.reopen(NAME), second.reopen(NAME))
[writer] = [each for each in reopened if each is not None]
"""
WATCH_TRANSACTIONS = """
const { transaction } = IDBDatabase.prototype;
const asked = [];
IDBDatabase.prototype.transaction = function (tables, mode, options) {
    asked.push(`${mode} ${options.durability}`);
    return transaction.call(this, tables, mode, options);
};
asked
"""
NO_INDEXED_DB = 'Object.defineProperty(globalThis, "indexedDB", { value: undefined }); 0'


@pytest.fixture
async def python(run_python: RunPython) -> RunPython:
    """Runs code after OPEN."""
    await run_python(OPEN)
    return run_python


async def test_it_is_a_journal_storage(python: RunPython) -> None:
    await python(Path(journal_cases.__file__).read_text())
    await python("await check(storage)")


async def test_two_storages_of_one_worker(python: RunPython) -> None:
    await python(OWNERS)


async def test_a_closed_page_owns_nothing(page: Page, python: RunPython) -> None:
    other = await another_page(page)
    await run_in(other, OPEN)
    await run_in(other, 'await (await storage.create(NAME, b"begin,")).append(b"one,")')
    state = "json.dumps([await storage.is_owned(NAME), await storage.delete(NAME)])"
    assert json.loads(await python(state)) == [True, False]
    assert await python("await storage.create(NAME, b'') is await storage.reopen(NAME) is None")
    free = "run_js('(name) => navigator.locks.request(`webllm session ${name}`, () => {})')(NAME)"
    await python(f"freed = asyncio.ensure_future({free}); None")
    await other.close()
    text = await python("""
        await freed
        assert not await storage.is_owned(NAME)
        writer = await storage.reopen(NAME)
        await writer.append(b"two")
        await writer.close()
        (await storage.read(NAME)).decode()
    """)
    assert text == "begin,one,two"


async def test_appends_of_one_turn_are_one_transaction(python: RunPython) -> None:
    asked = await python(f"""
        asked = run_js({WATCH_TRANSACTIONS!r})
        writers = [await storage.create(f"{{n:064}}", b"begin,") for n in range(3)]
        await asyncio.gather(*(w.append(b"one,") for w in writers), writers[0].append(b"two"))
        json.dumps([list(asked), [(await storage.read(f"{{n:064}}")).decode() for n in range(3)]])
    """)
    transactions, texts = json.loads(asked)
    assert transactions == ["readwrite strict"] * 3 + ["readwrite relaxed"]
    assert texts == ["begin,one,two", "begin,one,", "begin,one,"]


async def test_a_cancelled_call_leaves_nothing(python: RunPython) -> None:
    left = await python("""
        async def cancelled(call):
            task = asyncio.ensure_future(call)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            return task.cancelled()

        async def left():
            return [dict(await storage.names()), await storage.is_owned(NAME)]

        states = [await cancelled(storage.create(NAME, b"begin")), await left()]
        writer = await storage.create(NAME, b"begin,")
        appending = await cancelled(writer.append(b"one"))
        await cancelled(writer.close())
        states += [appending, await storage.is_owned(NAME)]
        states += [await cancelled(storage.reopen(NAME)), await storage.is_owned(NAME)]
        json.dumps([*states, (await storage.read(NAME)).decode()])
    """)
    assert json.loads(left) == [True, [{}, False], True, False, True, False, "begin,one"]


async def test_a_deleted_database(python: RunPython) -> None:
    """The user clears the site's data while an answer is written."""
    error = await python("""
        writer = await storage.create(NAME, b"begin")
        await run_js('''new Promise((resolve, reject) => {
            const deleting = indexedDB.deleteDatabase("webllm-journal");
            deleting.onsuccess = resolve;
            deleting.onblocked = reject;
        })''')
        error = await error_of(writer.append(b"one"))
        await writer.close()
        assert await storage.names() == {}
        error
    """)
    assert error.startswith("ArtifactError: the journal of an answer was deleted")


async def test_without_web_locks(site: SiteServer) -> None:
    """On a page without https two tabs may both write a session; what is stored stays one text."""
    async with new_context() as context, watched_page(context) as page:
        await page.goto(f"{site.url_at(LAN_HOST)}/tests/index.html")
        assert not await page.evaluate("isSecureContext")
        await run_in(page, OPEN)
        await run_in(page, Path(journal_cases.__file__).read_text())
        said = await run_in(
            page,
            """
            await check(storage)
            writer = await storage.create(NAME, b"begin,")
            await writer.append(b"one,")
            another = JournalDatabase()
            theirs = await another.reopen(NAME)
            await theirs.append(b"two")
            errors = [await error_of(writer.append(b"lost"))]
            text = (await storage.read(NAME)).decode()
            await theirs.close()
            assert await another.delete(NAME)
            errors += [await error_of(writer.append(b"lost"))]
            assert await storage.names() == {}
            json.dumps([text, *errors])
            """,
        )
    text, taken, deleted = json.loads(said)
    assert text == "begin,one,two"
    assert taken.startswith("ArtifactError: another tab has taken up an answer")
    assert deleted.startswith("ArtifactError: the journal of an answer was deleted")


async def test_a_full_store(site: SiteServer, page: Page, python: RunPython) -> None:
    await set_quota(page, site, 1 << 20)
    errors = await python("""
        writer = await storage.create(NAME, b"begin")
        json.dumps([
            await error_of(writer.append(bytes(2 << 20))),
            await error_of(storage.create("f" * 64, bytes(2 << 20))),
            list(await storage.names()) == [NAME],
            (await storage.read(NAME)).decode(),
        ])
    """)
    *full, is_alone, text = json.loads(errors)
    for error in full:
        assert error.startswith("StorageFullError: the browser's storage for this site is full; ")
        assert error.endswith("leave extra_body.resumable out")
    assert is_alone
    assert text == "begin"


@pytest.mark.parametrize("broken", ["missing", "refused"])
async def test_an_answer_without_indexed_db(python: RunPython, broken: str) -> None:
    """As in private windows of old browsers; strict requests fail, others are answered."""
    throw = "IDBFactory.prototype.open = () => { throw new DOMException('', 'SecurityError'); }; 0"
    await python(LOAD)
    await python(f"run_js({(NO_INDEXED_DB if broken == 'missing' else throw)!r})")
    text, warnings, error = json.loads(
        await python(f"""
            warnings = []
            log = logging.getLogger("webllm.engine.journaling")
            log.addFilter(lambda record: warnings.append(record.getMessage()))

            def ask(**fields):
                extra = {{"resumable": {{"enabled": True, **fields}}}}
                return engine.chat.completions.create(**{COLOURS!r}, extra_body=extra)

            reply = await ask()
            error = await error_of(ask(strict_persistence=True))
            json.dumps([reply.choices[0].message.content, warnings, error])
        """)
    )
    assert "Red" in text
    assert len(warnings) == 1
    expected = {
        "missing": "ConfigError: this browser has no IndexedDB to keep answers in; ",
        "refused": "StorageFullError: the browser lets this site store nothing; allow it to, or ",
    }[broken]
    assert error == f"{expected}leave extra_body.resumable out"
    assert expected.partition(": ")[2] in warnings[0]


STORY = {
    "messages": [{"role": "user", "content": "Tell me a story."}],
    "temperature": 1,
    "seed": 7,
    "max_tokens": 48,
}
# Returns the text that was shown when the journal first had tokens. The answer goes on.
BEGIN = """async (request) => {
    const resumable = { enabled: true, sessionId: "story" };
    const asked = { ...request, stream: true, extra_body: { resumable } };
    const stream = (await engine.chat.completions.create(asked))[Symbol.asyncIterator]();
    let shown = "";
    for (;;) {
        const { value } = await stream.next();
        shown += value.choices[0].delta.content ?? "";
        const [session] = await engine.listResumableSessions();
        if (session.emittedTokens > 0) return [shown, session];
    }
}"""
# In a page whose engine has loaded nothing: the worker loads the model of the session.
RESUME = """async ([client, script]) => {
    const { WebWorkerMLCEngine } = await import(client);
    const engine = new WebWorkerMLCEngine(new Worker(script, { type: "module" }));
    const [session] = await engine.listResumableSessions();
    const { recoveredText } = await engine.resumeChatCompletion("story");
    const options = { continueGeneration: true, stream: true };
    let rest = "";
    for await (const chunk of await engine.resumeChatCompletion("story", options)) {
        rest += chunk.choices[0]?.delta.content ?? "";
    }
    const [ended] = await engine.listResumableSessions();
    await engine.deleteResumableSession("story");
    const left = await engine.listResumableSessions();
    return [session, recoveredText, rest, ended, left];
}"""


@pytest.mark.parametrize(
    ("client", "end"), [(OUR_CLIENT, "engine.terminate()"), (NPM_CLIENT, None)]
)
async def test_an_answer_goes_on_in_the_reopened_page(
    site: SiteServer, client: str, end: str | None
) -> None:
    """Its worker is terminated, or its page is closed, in mid-stream."""
    async with new_context() as context:
        async with watched_page(context) as page:
            await page.goto(f"{site.url}/tests/index.html")
            await page.evaluate(ENGINE, [client, WORKER])
            ask = "async (asked) => (await engine.chatCompletion(asked)).choices[0].message.content"
            undisturbed = await page.evaluate(ask, STORY)
            shown, session = await page.evaluate(BEGIN, STORY)
            assert (session["resumable"], session["modelId"]) == (True, "smollm2")
            assert undisturbed.startswith(shown)
            if end is not None:
                await page.evaluate(end)
        async with watched_page(context) as page:
            await page.goto(f"{site.url}/tests/index.html")
            resumed = await page.evaluate(RESUME, [client, WORKER])
    session, recovered, rest, ended, left = resumed
    assert (session["resumable"], session["recoveryMode"]) == (True, "token_replay")
    assert 0 < session["emittedTokens"] < STORY["max_tokens"]
    assert recovered + rest == undisturbed
    assert recovered
    assert (ended["emittedTokens"], ended["recoveryMode"]) == (STORY["max_tokens"], "text_only")
    assert ended["isExact"] is True
    assert left == []
