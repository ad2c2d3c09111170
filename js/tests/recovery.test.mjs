// Engines that survive their workers: what they send again, and what they give up.

import assert from "node:assert/strict";
import { test } from "node:test";
import { ModelNotLoadedError, WebLLMError } from "../dist/client.js";
import { ASK, kinds, until } from "./fake_worker.mjs";
import { LOST, read, spelling, streaming, text, Workers } from "./lost_workers.mjs";

const ANSWERS = ["once upon", "a time", "there was"];
const lose = () => LOST;
const lostError = { name: "WorkerLostError" };

/** Loses a worker with the message of this number, counted over all workers. */
function losingAt(number) {
  let num = 0;
  return () => num++ === number;
}

for (const [name, ask] of [
  ["chat", (engine, request) => engine.chat.completions.create({ ...ASK, ...request })],
  ["text", (engine, request) => engine.completions.create({ prompt: "p", ...request })],
]) {
  test(`a ${name} stream loses and doubles nothing, wherever its worker ends`, async () => {
    const request = { stream: true, n: 3, stream_options: { include_usage: true } };
    const total = ANSWERS.join("").length;
    let point = 0;
    for (let numOpened = 2; numOpened > 1; point += 1) {
      const isLost = losingAt(point);
      const workers = new Workers(() => undefined);
      workers.answers = Array.from({ length: 3 }, () => spelling(ANSWERS, isLost));
      const engine = workers.engine();
      await engine.reload("m");
      const said = await read(await ask(engine, request));
      assert.deepEqual(said, {
        texts: ANSWERS,
        roles: name === "chat" ? [0, 1, 2] : [],
        reasons: [0, 1, 2],
        usages: [{ completion_tokens: total }],
        numIds: 1,
      });
      ({ numOpened } = workers);
      await engine.listResumableSessions(); // by the next worker, if the last one is lost
      assert.ok(workers.of("deleteResumableSession").length > 0);
    }
    assert.ok(point > 12, `the worker was lost at ${point} points`);
  });
}

test("a stream goes on with the tokens that it lacks", async () => {
  const workers = new Workers(
    streaming(text("a", [1, 2]), text("b", [3]), LOST),
    streaming(LOST),
    streaming(text("c", [4], "stop"), null),
  );
  const request = { prompt: "p", stream: true };
  const stream = await workers.engine().completions.create(request);
  request.prompt = "changed since";
  assert.deepEqual((await read(stream)).texts, ["abc"]);
  await until(() => workers.of("deleteResumableSession").length > 0);
  const requests = workers.of("completionStreamInit").map((content) => content.request);
  const [{ sessionId }] = workers.of("deleteResumableSession");
  const kept = { enabled: true, sessionId };
  assert.deepEqual(
    requests.map((each) => each.extra_body),
    [
      { return_token_ids: true, resumable: kept },
      { return_token_ids: true, resumable: { ...kept, fromToken: [3] } },
      { return_token_ids: true, resumable: { ...kept, fromToken: [3] } },
    ],
  );
  assert.deepEqual(new Set(requests.map((each) => each.prompt)), new Set(["p"]));
  const seeds = new Set(requests.map(({ seed }) => seed));
  assert.ok(seeds.size === 1 && Number.isInteger([...seeds][0]));
});

test("what the caller asks to be kept stays as it is", async () => {
  for (const resumable of [
    { sessionId: "mine", fromToken: [1] },
    { session_id: "mine", from_token: 1 },
  ]) {
    const workers = new Workers(
      streaming(text("b", [2]), LOST),
      streaming(text("c", [3], "stop"), null),
    );
    const engine = workers.engine({ persist: false });
    const extra_body = { resumable, return_token_ids: true };
    const stream = await engine.completions.create({ prompt: "p", stream: true, extra_body });
    const chunks = [];
    for await (const each of stream) chunks.push(each.choices[0].token_ids);
    assert.deepEqual(chunks, [[2], [3]]);
    const requests = workers.of("completionStreamInit").map((content) => content.request);
    const kept = { enabled: true, sessionId: "mine" };
    assert.deepEqual(
      requests.map((each) => each.extra_body.resumable),
      [
        { ...kept, fromToken: [1] },
        { ...kept, fromToken: [2] },
      ],
    );
    assert.ok(requests.every((each) => !("seed" in each))); // that of the session counts
    assert.deepEqual(workers.of("deleteResumableSession"), []);
  }
});

test("what is not kept is lost with its worker", async () => {
  for (const [persist, extra_body] of [
    [false, undefined],
    [true, { resumable: { enabled: false } }],
    [true, { resumable: 5 }],
    [true, { resumable: { sessionId: "a", session_id: "b" } }],
  ]) {
    const workers = new Workers(streaming(text("a"), LOST), lose);
    const engine = workers.engine({ persist });
    const request = { prompt: "p", ...(extra_body && { extra_body }) };
    const stream = await engine.completions.create({ ...request, stream: true });
    await assert.rejects(read(stream), lostError);
    await assert.rejects(engine.completions.create(request), lostError);
    assert.deepEqual(workers.of("completionStreamInit")[0].request, { ...request, stream: true });
    assert.deepEqual(workers.of("deleteResumableSession"), []);
  }
});

test("a whole answer is asked for again, and its session deleted", async () => {
  const workers = new Workers(lose, lose, ({ kind }) => (kind.startsWith("delete") ? null : "abc"));
  assert.equal(await workers.engine().completions.create({ prompt: "p", seed: 3 }), "abc");
  await until(() => workers.of("deleteResumableSession").length > 0);
  const [first, ...others] = workers.of("completionNonStreaming");
  assert.deepEqual(others, [first, first]);
  const { resumable, return_token_ids } = first.request.extra_body;
  assert.equal(return_token_ids, undefined);
  assert.deepEqual(workers.of("deleteResumableSession"), [{ sessionId: resumable.sessionId }]);
});

test("a request is given up after five workers; tokens count as progress, roles do not", async () => {
  const whole = new Workers(lose);
  await assert.rejects(whole.engine().completions.create({ prompt: "p" }), {
    name: "WorkerLostError",
    message: /5 workers in a row .* change it before you send it again/,
  });
  assert.equal(whole.numOpened, 5);
  const letters = [..."012345678"];
  const stepping = letters.map((letter, i) => streaming(text(letter, [i]), LOST));
  const steps = new Workers(...stepping, streaming(text("!", [9], "stop"), null));
  const stream = await steps.engine().completions.create({ prompt: "p", stream: true });
  assert.deepEqual((await read(stream)).texts, ["012345678!"]);
  assert.equal(steps.numOpened, 10);
  const echoing = new Workers(...Array.from({ length: 9 }, () => streaming(text("p", []), LOST)));
  const echoed = await echoing.engine().completions.create({ prompt: "p", stream: true });
  await assert.rejects(read(echoed), /5 workers in a row/);
});

test("an answer that has ended is not asked for again", async () => {
  for (const chunks of [[LOST], []]) {
    const workers = new Workers(streaming(text("a", [1], "stop"), ...chunks), ({ kind }) =>
      kind === "getMessage" ? "a" : null,
    );
    const engine = workers.engine();
    const stream = await engine.completions.create({ prompt: "p", stream: true });
    await stream.next();
    if (chunks.length === 0) workers.opened[0](); // between two pulls
    assert.deepEqual(await stream.next(), { done: true, value: undefined });
    assert.equal(workers.numOpened, 1);
    assert.equal(await engine.getMessage(), "a");
    assert.equal(workers.of("completionStreamInit").length, 1);
    assert.equal(workers.of("deleteResumableSession").length, 1); // by the next worker
  }
});

test("all calls wait for one recovery, in which settings and models are sent again", async () => {
  const isKnown = (kind) => ["reload", "completionStreamInit", "setAppConfig"].includes(kind);
  const answer = text("abc", [1], "stop");
  const workers = new Workers(
    ({ kind }) => (isKnown(kind) ? null : LOST),
    ({ kind }) => (kind === "setLogLevel" ? undefined : answer),
  );
  const appConfig = { model_list: [] };
  const engine = workers.engine({ appConfig });
  await engine.reload("m", { temperature: 0 });
  const stream = await engine.completions.create({ prompt: "p", stream: true });
  const answers = Array.from({ length: 5 }, () => engine.completions.create({ prompt: "p" }));
  const [{ value }, ...others] = await Promise.all([stream.next(), ...answers]);
  for (const { choices } of [value, ...others]) assert.equal(choices[0].text, "abc");
  assert.equal(workers.numOpened, 2);
  const models = { modelId: ["m"], chatOpts: [{ temperature: 0 }] };
  assert.deepEqual(workers.of("reload"), [models, models]);
  assert.deepEqual(workers.of("setAppConfig"), [appConfig, appConfig]);
  const second = kinds(workers.received).lastIndexOf("hello");
  assert.deepEqual(kinds(workers.received).slice(second, second + 3), [
    ...["hello", "setAppConfig", "reload"],
  ]);
  assert.deepEqual([value.id, value.created], ["1", 1]);
});

test("a reload is sent again, and unload stops the one of a recovery", async () => {
  const again = new Workers(lose, () => null);
  await again.engine().reload("m");
  assert.deepEqual(again.of("reload"), [{ modelId: ["m"] }, { modelId: ["m"] }]);
  let stop;
  const stopped = Object.assign(new Error(), {
    info: { name: "ModelNotLoadedError", message: "stopped", code: "model_not_loaded" },
  });
  const workers = new Workers(
    ({ kind }) => (kind === "reload" ? null : LOST),
    ({ kind }) => {
      if (kind === "reload") return new Promise((resolve) => (stop = () => resolve(stopped)));
      stop();
      return null;
    },
  );
  const engine = workers.engine();
  await engine.reload("m");
  const answer = engine.completions.create({ prompt: "p" });
  answer.catch(() => {});
  await until(() => stop);
  await engine.unload();
  await assert.rejects(answer, ModelNotLoadedError);
});

test("a worker that is lost while it loads in a recovery is followed by another", async () => {
  const answers = (...names) => spelling(["abc"], (kind) => names.includes(kind));
  const workers = new Workers(
    answers("completionNonStreaming"),
    answers("reload"),
    answers("reload"),
    answers(),
  );
  const engine = workers.engine();
  await engine.reload("m");
  const reply = await engine.completions.create({ prompt: "p" });
  assert.equal(reply.choices[0].text, "abc");
  assert.equal(workers.numOpened, 4);
  const hopeless = new Workers(answers("completionNonStreaming"), answers("reload"));
  const other = hopeless.engine();
  await other.reload("m");
  await assert.rejects(other.completions.create({ prompt: "p" }), /5 workers in a row/);
});

test("a recovery that fails fails all who wait, and the next call tries again", async () => {
  const workers = new Workers(
    ({ kind }) => (kind === "reload" || kind.endsWith("Init") ? null : undefined),
    spelling(["abc"], () => false),
  );
  const engine = workers.engine();
  await engine.reload("m");
  const stream = await engine.completions.create({ prompt: "p", stream: true });
  const calls = [stream.next(), engine.completions.create({ prompt: "p" })];
  await until(() => workers.of("completionNonStreaming").length > 0);
  const { open } = workers;
  workers.open = () => {
    throw new WebLLMError({ name: "ConfigError", message: "no other", code: "invalid_config" });
  };
  workers.opened[0]();
  for (const { reason } of await Promise.allSettled(calls)) {
    assert.equal(reason.name, "ConfigError");
  }
  await assert.rejects(engine.embeddings.create({ input: "a" }), { name: "ConfigError" });
  workers.open = open;
  assert.equal((await engine.completions.create({ prompt: "p" })).choices[0].text, "abc");
});

test("an interrupt before the loss is told to the next worker", async () => {
  const aborted = text("b", [2], "abort");
  const workers = new Workers(
    ({ kind }) => (kind.endsWith("Init") ? null : undefined),
    ({ kind }) => (kind.endsWith("NextChunk") || kind.endsWith("NonStreaming") ? aborted : null),
  );
  const engine = workers.engine();
  const stream = await engine.completions.create({ prompt: "p", stream: true });
  const calls = [stream.next(), engine.completions.create({ prompt: "p" })];
  await until(() => workers.of("completionNonStreaming").length > 0);
  engine.interruptGenerate();
  workers.opened[0]();
  const later = engine.completions.create({ prompt: "said after the interrupt" });
  await Promise.all([...calls, later]);
  const begun = [...workers.of("completionStreamInit"), ...workers.of("completionNonStreaming")];
  const sessions = begun
    .filter(({ request }) => request.prompt === "p")
    .map(({ request }) => request.extra_body.resumable.sessionId);
  const named = workers.of("interruptGenerate").flatMap((content) => content?.requestIds ?? []);
  assert.deepEqual(named.sort(), [...new Set(sessions)].sort());
});

test("what is repeatable is asked again, anything else is not", async () => {
  const asked = (name) => new Workers(lose, ({ kind }) => (kind === name ? "said" : null));
  assert.equal(await asked("getGPUVendor").engine().getGPUVendor(), "said");
  assert.equal(await asked("listResumableSessions").engine().listResumableSessions(), "said");
  assert.equal(await asked("embedding").engine().embeddings.create({ input: "a" }), "said");
  const engine = asked("getMessage").engine();
  await assert.rejects(engine.getMessage(), lostError);
  assert.equal(await engine.getMessage(), "said");
});

test("a stream that is left, also in a recovery, deletes its session", async () => {
  const workers = new Workers(streaming(text("a", [1])), () => null);
  const engine = workers.engine();
  const stream = await engine.completions.create({ prompt: "p", stream: true });
  await stream.next();
  await stream.return();
  await until(() => workers.of("deleteResumableSession").length > 0);
  assert.deepEqual(kinds(workers.received).slice(-2), ["abort", "deleteResumableSession"]);

  let load;
  const recovering = new Workers(
    ({ kind }) => (kind === "reload" || kind.endsWith("Init") ? null : LOST),
    ({ kind }) => (kind === "reload" ? new Promise((resolve) => (load = resolve)) : null),
  );
  const second = recovering.engine();
  await second.reload("m");
  const left = await second.completions.create({ prompt: "p", stream: true });
  const next = left.next();
  await until(() => load);
  await left.return();
  assert.deepEqual(await next, { done: true, value: undefined });
  load(null);
  await until(() => recovering.of("deleteResumableSession").length > 0);
  assert.equal(recovering.of("completionStreamInit").length, 1);
});

test("a deletion that its worker did not come to is the next one's", async () => {
  const workers = new Workers(
    ({ kind }) => (kind.startsWith("delete") ? LOST : "abc"),
    () => null,
  );
  const engine = workers.engine();
  await engine.completions.create({ prompt: "p" });
  await until(() => workers.of("deleteResumableSession").length > 0);
  await engine.listResumableSessions(); // which opens the next worker
  await until(() => workers.of("deleteResumableSession").length > 1);
  const [lost, repeated] = workers.of("deleteResumableSession");
  assert.deepEqual(repeated, lost);
  await engine.listResumableSessions();
  assert.equal(workers.of("deleteResumableSession").length, 2);
});

test("pulls wait for each other, across workers", async () => {
  const workers = new Workers(
    streaming(text("a", [1]), LOST),
    streaming(text("b", [2]), text("c", [3], "stop"), null),
  );
  const stream = await workers.engine().completions.create({ prompt: "p", stream: true });
  const pulls = await Promise.all(Array.from({ length: 4 }, () => stream.next()));
  assert.deepEqual(
    pulls.map(({ value }) => value?.choices[0].text),
    ["a", "b", "c", undefined],
  );
});

test("terminate ends answers and deletes their sessions, and nothing recovers", async () => {
  const workers = new Workers(({ kind }) => (kind.endsWith("Init") ? null : undefined));
  const engine = workers.engine();
  const stream = await engine.completions.create({ prompt: "p", stream: true });
  const posted = [];
  const { post } = engine.connection.calls.endpoint;
  engine.connection.calls.endpoint.post = (message) => {
    posted.push(message.kind);
    post(message);
  };
  const next = stream.next();
  await until(() => workers.of("completionStreamNextChunk").length > 0);
  const whole = engine.completions.create({ prompt: "p" });
  engine.terminate();
  await assert.rejects(next, lostError);
  await assert.rejects(whole, lostError);
  await assert.rejects(engine.getMessage(), lostError);
  assert.equal(workers.numOpened, 1);
  const ends = posted.filter((kind) => kind === "abort" || kind.startsWith("delete"));
  assert.equal(ends.filter((kind) => kind === "abort").length, 3); // the stream, its pull, the whole
  assert.equal(ends.slice(3).join(), "deleteResumableSession,deleteResumableSession");
});

test("texts are equal however often and wherever workers are lost", async () => {
  let numOpened = 0;
  for (let seed = 1; seed <= 150; seed += 1) {
    const random = drawing(seed);
    const workers = new Workers(() => undefined);
    let [numLost, numPulls] = [0, 0];
    const isLost = (kind) => {
      if (kind.endsWith("NextChunk")) numPulls += 1;
      if (numPulls > 8) numLost = numPulls = 0; // both streams got on
      if (numLost === 3 || random() > 0.2) return false;
      [numLost, numPulls] = [numLost + 1, 0];
      return true;
    };
    workers.answers = Array.from({ length: 400 }, () =>
      spelling(ANSWERS, isLost, () => Math.floor(random() * 4)),
    );
    const engine = workers.engine();
    await engine.reload("m");
    const request = { n: 3, stream: true, stream_options: { include_usage: random() > 0.5 } };
    const chats = engine.chat.completions.create({ ...ASK, ...request });
    const texts = engine.completions.create({ prompt: "p", ...request });
    const said = await Promise.all([chats.then(read), texts.then(read)]);
    numOpened += workers.numOpened;
    for (const each of said) {
      assert.deepEqual(each.texts, ANSWERS, `seed ${seed}`);
      assert.deepEqual(each.reasons, [0, 1, 2]);
      assert.equal(each.usages.length, request.stream_options.include_usage ? 1 : 0);
      assert.equal(each.numIds, 1);
    }
  }
  assert.ok(numOpened > 450, `${numOpened} workers in 150 runs`);
});

/** A generator of numbers from 0 to 1: Marsaglia's xorshift. */
function drawing(seed) {
  let state = seed * 2654435761;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}
