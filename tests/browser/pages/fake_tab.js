// Stands in for tab.js, the worker that all tabs share, without a model. The model's name and the last
// message choose the answer; "echo" answers with the request itself. Sessions are kept in a cache.

const ANSWERS = {
  code: `Here is a function that finds prime numbers.

### The sieve

A **sieve** crosses out multiples, so what is left has no divisors. It is old, *simple* and fast:

\`\`\`python
def primes(limit: int) -> list[int]:
    """All primes below limit, by the sieve of Eratosthenes."""
    is_prime = [True] * limit
    for n in range(2, int(limit**0.5) + 1):
        if is_prime[n]:
            is_prime[n * n :: n] = [False] * len(range(n * n, limit, n))
    return [n for n in range(2, limit) if is_prime[n]]
\`\`\`

Three things to know about it:

1. It needs memory for \`limit\` flags, not for the primes alone.
2. The outer loop ends at the square root: larger numbers have a smaller factor.
3. Crossing out begins at \`n * n\`, as smaller multiples are gone by then.
   - So each composite is crossed out by its smaller factors only.

| limit | primes | time |
| ----: | -----: | ---: |
| 1,000 |    168 | 0.1 ms |
| 1,000,000 | 78,498 | 61 ms |

> For a single number, trial division is simpler. See [the sieve](https://example.org/sieve).
`,
  wide: `${"W".repeat(400)}

\`\`\`${"language".repeat(40)}
${"code".repeat(100)}
\`\`\`

- ${"item".repeat(100)}

| ${"head".repeat(40)} | ${"head".repeat(40)} |
| -- | -- |
| ${"cell".repeat(40)} | ${"cell".repeat(40)} |

Inline \`${"code".repeat(100)}\`, [${"link".repeat(100)}](https://example.org/${"path".repeat(100)}).
`,
  lists: `3. three
4. four

   and more of four
5. five
   - inner

- a point
- [x] a task

The end.`,
  hostile: `<script>window.hacked = 1</script><img src=x onerror="window.hacked = 2">

[a link](javascript:window.hacked=3) ![an image](https://example.org/track.png)

<b style="position:fixed">bold</b> and \`code\``,
};

const channel = new BroadcastChannel(self.name);
const lock = `fake ${Math.random()}`;
const clients = new Map(); // by id
let loaded; // the model

channel.onmessage = async ({ data: { kind, uuid, content, from, to, worker } }) => {
  if (to !== undefined) return;
  const post = (message) => channel.postMessage({ ...message, uuid, to: from });
  if (worker !== undefined && worker !== lock) return post({ kind: "lost", reason: "it ended" });
  if (kind === "keepAlive") return post({ kind: "heartbeat" });
  if (!clients.has(from)) clients.set(from, { from, streams: new Map() });
  try {
    const answer = await HANDLERS[kind]?.(content, { client: clients.get(from), uuid, post });
    if (!["abort", "setAppConfig", "setLogLevel", "bye"].includes(kind)) {
      post({ kind: "return", content: answer });
    }
  } catch (error) {
    post({ kind: "throw", content: `${error.name}: ${error.message}`, error });
  }
};

const HANDLERS = {
  hello: () => greeting,
  setAppConfig: (content, { client }) => void (client.appConfig = content),
  getDeviceName: () => "CPU (relaxed, 2 threads)",
  getEngineStats: () => {
    const stats = { model_id: loaded, memory_bytes: 215_000_000, blocks: 64, block_tokens: 16 };
    return { models: loaded === undefined ? [] : [stats] };
  },
  reload: ({ modelId: [modelId] }, asked) => reload(modelId, asked),
  unload: () => void (loaded = undefined),
  chatCompletionStreamInit: async ({ request, streamId }, { client }) => {
    check(client);
    const isFirst = await keep(request);
    client.streams.set(streamId, chunks(request, isFirst));
  },
  completionStreamNextChunk: async ({ streamId }, { client }) => {
    const stream = client.streams.get(streamId);
    if (!stream) throw fault("RequestError", `no stream ${streamId} is open`);
    const { value } = await stream.next();
    check(client);
    return value;
  },
  abort: (_, { client, uuid }) => void client.streams.delete(uuid),
  deleteResumableSession: async ({ sessionId }) => {
    const journal = await caches.open("fake-journal");
    const isThere = await journal.delete(`https://fake.test/${sessionId}`);
    if (!isThere) throw fault("SessionNotFoundError", `the journal has no session ${sessionId}`);
  },
};

/** Holds a lock as the real worker does: being granted it means that this worker has ended. */
const greeting = new Promise((resolve) => {
  navigator.locks.request(lock, () => {
    resolve({ protocol: 3, lock, gpu: false });
    return new Promise(() => {});
  });
});

/** Keeps a request; returns whether it is new. Another one with the same id is refused. */
async function keep({ extra_body, ...request }) {
  const { sessionId } = extra_body.resumable;
  const journal = await caches.open("fake-journal");
  const known = await journal.match(`https://fake.test/${sessionId}`);
  const text = JSON.stringify(request);
  if (known && (await known.text()) !== text) {
    throw fault("RequestError", `${sessionId} is the id of another request`);
  }
  await journal.put(`https://fake.test/${sessionId}`, new Response(text));
  return !known;
}

/** Another client's model takes the place of this one's. */
function check(client) {
  if (client.replaced === undefined) return;
  throw fault("ModelReplacedError", `replaced by ${client.replaced}; call reload`);
}

async function reload(modelId, { client, post }) {
  const { appConfig } = client;
  if (appConfig.cacheBackend === "none" && appConfig.useIndexedDBCache) {
    throw fault("ConfigError", "cacheBackend is 'none' and useIndexedDBCache is true");
  }
  client.replaced = undefined;
  if (loaded !== modelId) await load(modelId, appConfig, (fields) => report(post, fields));
  for (const each of clients.values()) {
    if (each.modelId !== modelId && each.modelId && each !== client) each.replaced = modelId;
  }
  loaded = client.modelId = modelId;
}

async function load(modelId, appConfig, report) {
  const totalBytes = 98_362_432;
  const steps = modelId.startsWith("Slow") ? 9 : 20;
  for (let step = 1; step <= steps; step += 1) {
    report({
      phase: "fetch",
      progress: (0.8 * step) / 20,
      loadedBytes: (totalBytes * step) / 20,
      totalBytes,
    });
    await pause(5);
  }
  if (modelId.startsWith("Slow")) await new Promise(() => {});
  if (modelId.startsWith("Broken")) {
    throw fault("FetchError", "the model could not be downloaded: the server answered 404");
  }
  if (modelId.startsWith("Full") && appConfig.cacheBackend !== "none") {
    throw fault(
      "StorageFullError",
      "it needs 90 MB more, but the browser lets this site store 50 MB; delete a model",
    );
  }
  report({ phase: "upload", progress: 0.9 });
  report({ phase: "compile", progress: 1 });
}

function report(post, fields) {
  post({ kind: "initProgressCallback", content: { timeElapsed: 0, text: "", ...fields } });
}

async function* chunks(request, isFirst) {
  const asked = request.messages.at(-1).content;
  if (asked.includes("refuse"))
    throw fault("RequestError", "temperature is 9; it has to be at most 2");
  if (asked.includes("lost device")) throw fault("DeviceLostError", "the GPU stopped answering");
  if (asked.includes("crash")) {
    setTimeout(() => {
      throw new Error("no luck ".repeat(asked.includes("long") ? 2000 : 1));
    });
    await new Promise(() => {});
  }
  if (asked.includes("long prompt")) yield* progress();
  const text = asked.includes("echo") ? JSON.stringify(request) : answer(asked);
  const pieces = text.match(/\s*\S+|\s+$/g);
  const [begin = 0] = request.extra_body.resumable.fromToken ?? [];
  const pace = !asked.includes("slow") ? 2 : isFirst ? 60 : 20;
  for (const [index, content] of pieces.entries()) {
    if (index < begin) continue;
    await pause(pace);
    yield chunk([{ index: 0, delta: { content }, finish_reason: null, token_ids: [index] }]);
    if (asked.includes("stumble") && isFirst) setTimeout(() => close.missing());
  }
  yield chunk([
    {
      index: 0,
      delta: {},
      finish_reason: asked.includes("cut") ? "length" : "stop",
    },
  ]);
  yield { ...chunk([]), usage: usage(pieces.length) };
}

async function* progress() {
  for (const processed of [0, 450, 900]) {
    const prompt_progress = { total: 1000, cache: 0, processed, time_ms: processed };
    yield { ...chunk([]), prompt_progress };
  }
  await new Promise(() => {});
}

function answer(asked) {
  const word = Object.keys(ANSWERS).find((each) => asked.includes(each));
  return ANSWERS[word] ?? `You asked: “${asked}”. This is a short answer.`;
}

function chunk(choices) {
  return {
    id: "1",
    object: "chat.completion.chunk",
    created: 0,
    model: "fake",
    choices,
  };
}

function usage(completion_tokens) {
  const extra = { decode_tokens_per_s: 41.7, time_to_first_token_s: 0.2 };
  return {
    prompt_tokens: 9,
    completion_tokens,
    total_tokens: 9 + completion_tokens,
    extra,
  };
}

function fault(name, message) {
  return { name, message, code: "fake", status: 500, field: null };
}

function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

channel.postMessage({ kind: "here" });
