// Speaks the worker's protocol without a model. The model's name and the last message choose the
// answer; "echo" answers with the request itself.

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

const streams = new Map();
let appConfig;

onmessage = async ({ data: { kind, uuid, content } }) => {
  try {
    const answer = await HANDLERS[kind]?.(content, uuid);
    if (!["abort", "setAppConfig", "setLogLevel"].includes(kind)) {
      postMessage({ kind: "return", uuid, content: answer });
    }
  } catch (error) {
    postMessage({
      kind: "throw",
      uuid,
      content: `${error.name}: ${error.message}`,
      error,
    });
  }
};

const HANDLERS = {
  hello: (_, uuid) => holdingLock(uuid),
  setAppConfig: (content) => void (appConfig = content),
  getDeviceName: () => "CPU (relaxed, 2 threads)",
  reload: ({ modelId: [modelId] }, uuid) => reload(modelId, uuid),
  chatCompletionStreamInit: ({ request, streamId }) => {
    streams.set(streamId, chunks(request));
  },
  completionStreamNextChunk: async ({ streamId }) => {
    const stream = streams.get(streamId);
    if (!stream) throw fault("RequestError", `no stream ${streamId} is open`);
    return (await stream.next()).value;
  },
  abort: (_, uuid) => void streams.delete(uuid),
};

/** Holds a lock as Python's worker does: being granted it means that this worker has ended. */
function holdingLock(lock) {
  return new Promise((resolve) => {
    navigator.locks.request(lock, () => {
      resolve({ protocol: 2, lock });
      return new Promise(() => {});
    });
  });
}

async function reload(modelId, uuid) {
  if (appConfig.cacheBackend === "none" && appConfig.useIndexedDBCache) {
    throw fault("ConfigError", "cacheBackend is 'none' and useIndexedDBCache is true");
  }
  const totalBytes = 98_362_432;
  const steps = modelId.startsWith("Slow") ? 9 : 20;
  for (let step = 1; step <= steps; step += 1) {
    report(uuid, {
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
  report(uuid, { phase: "upload", progress: 0.9 });
  report(uuid, { phase: "compile", progress: 1 });
}

function report(uuid, fields) {
  const content = { timeElapsed: 0, text: "", ...fields };
  postMessage({ kind: "initProgressCallback", uuid, content });
}

async function* chunks(request) {
  const asked = request.messages.at(-1).content;
  if (asked.includes("refuse"))
    throw fault("RequestError", "temperature is 9; it has to be at most 2");
  if (asked.includes("lost device")) throw fault("DeviceLostError", "the GPU stopped answering");
  const text = asked.includes("echo") ? JSON.stringify(request) : answer(asked);
  const pieces = text.match(/\s*\S+|\s+$/g);
  const pace = asked.includes("slow") ? 60 : 2;
  for (const content of pieces) {
    await pause(pace);
    yield chunk([{ index: 0, delta: { content }, finish_reason: null }]);
    if (asked.includes("crash")) setTimeout(() => close.missing());
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
