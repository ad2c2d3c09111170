"""An answer that goes on by itself in the next worker, bit for bit."""

from __future__ import annotations

from playwright.async_api import Page

from browser.test_workers import OUR_CLIENT, WORKER

STORY = {
    "messages": [{"role": "user", "content": "Tell a story."}],
    "temperature": 1,
    "seed": 7,
    "max_tokens": 48,
    "ignore_eos": True,
}
# Terminates the worker behind the 3rd and the 9th chunk, and while it makes a whole answer.
ASK = """async ([client, script, request]) => {
    const { WebWorkerMLCEngine, workerEndpoint } = await import(client);
    const workers = [];
    const open = () => {
        workers.unshift(new Worker(script, { type: "module" }));
        return workerEndpoint(workers[0]);
    };
    const record = { model: "/models/smollm2.gguf", model_id: "smollm2", model_lib: "" };
    const appConfig = { model_list: [record] };
    const engine = new WebWorkerMLCEngine({ open, persist: true }, { appConfig });
    await engine.reload("smollm2");
    const asked = { ...request, stream: true, stream_options: { include_usage: true } };
    const said = async (chunksToEndAt) => {
        let [text, tokens, num] = ["", 0, 0];
        for await (const { choices, usage } of await engine.chat.completions.create(asked)) {
            text += choices[0]?.delta.content ?? "";
            tokens += usage?.completion_tokens ?? 0;
            if (chunksToEndAt.includes(++num)) workers[0].terminate();
        }
        return [text, tokens];
    };
    const [undisturbed, disturbed] = [await said([]), await said([3, 9])];
    const answer = engine.chat.completions.create(request);
    let sessions = [];
    while (sessions.length === 0) sessions = await engine.listResumableSessions();
    workers[0].terminate();
    const whole = (await answer).choices[0].message.content;
    let left = await engine.listResumableSessions();
    for (let turn = 0; left.length > 0 && turn < 10_000; turn += 1) {
        left = await engine.listResumableSessions(); // it is deleted without waiting
    }
    engine.terminate();
    return [undisturbed, disturbed, whole, sessions.length, left, workers.length];
}"""


async def test_an_answer_survives_its_workers(page: Page) -> None:
    result = await page.evaluate(ASK, [OUR_CLIENT, WORKER, STORY])
    undisturbed, disturbed, whole, num_sessions, left, num_workers = result
    assert disturbed == undisturbed
    assert undisturbed[1] == STORY["max_tokens"]
    assert whole == undisturbed[0]
    assert (num_sessions, left, num_workers) == (1, [], 4)
