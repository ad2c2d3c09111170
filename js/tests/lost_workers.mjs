// Workers that are lost, one after another, under plain Node.

import { WebWorkerMLCEngine } from "../dist/client.js";

export const LOST = Symbol("the worker ends in place of its reply");

/**
 * Opens workers, each of which makes its replies with the next function: of a message and of its
 * kind. A worker that replies LOST has gone. The last function makes all later workers.
 */
export class Workers {
  received = []; // by all of them
  numOpened = 0;
  opened = []; // functions that end a worker

  constructor(...answers) {
    this.answers = answers;
  }

  open() {
    const answer = this.answers.length > 1 ? this.answers.shift() : this.answers[0];
    this.numOpened += 1;
    let listeners;
    const lose = (reason) => {
      const [, onLost] = listeners ?? [];
      listeners = undefined;
      onLost?.(reason);
    };
    const reply = (uuid, content) => {
      if (content === LOST) lose("it was ended");
      else if (content instanceof Error) {
        listeners?.[0]({ kind: "throw", uuid, content: "", error: content.info });
      } else if (content !== undefined) {
        listeners?.[0]({ kind: "return", uuid, content: structuredClone(content) });
      }
    };
    this.opened.push(() => lose("it was ended"));
    return {
      listen: (...given) => (listeners = given),
      close: () => (listeners = undefined),
      post: (message) => {
        const { kind, uuid, content } = structuredClone(message);
        setImmediate(async () => {
          if (!listeners) return;
          this.received.push({ kind, uuid, content });
          if (kind === "hello") reply(uuid, { protocol: 3 });
          else reply(uuid, await answer({ kind, uuid, content }));
        });
      },
    };
  }

  engine({ persist = true, ...config } = {}) {
    return new WebWorkerMLCEngine({ open: () => this.open(), persist }, config);
  }

  /** The contents of the messages of a kind. */
  of(kind) {
    return this.received.filter((each) => each.kind === kind).map(({ content }) => content);
  }
}

/** Answers each pull with the next chunk, and everything else with nothing. */
export function streaming(...chunks) {
  return ({ kind }) => (kind.endsWith("NextChunk") ? chunks.shift() : null);
}

/** A chunk of text. */
export function text(text, token_ids, finish_reason = null) {
  return { id: "1", created: 1, choices: [{ index: 0, text, token_ids, finish_reason }] };
}

/**
 * Answers as our engine does: choice i has the i-th of `answers`, with a token for each letter, and
 * a stream begins behind the tokens that it is asked to. `isLost()` ends the worker in place of a
 * reply. `most()` is the number of tokens in a chunk.
 */
export function spelling(answers, isLost, most = () => 1) {
  const streams = new Map();
  let isLoaded = false;
  const begin = ({ request, streamId, modelId }) => {
    isLoaded ||= modelId.length > 0;
    if (!isLoaded) throw new Error("no model is loaded");
    const isChat = request.messages !== undefined;
    const { resumable = {}, return_token_ids } = request.extra_body ?? {};
    const from = resumable.fromToken ?? answers.map(() => 0);
    streams.set(streamId, chunksOf(answers, from, request, isChat, return_token_ids, most));
    return null;
  };
  const table = {
    reload: () => ((isLoaded = true), null),
    chatCompletionStreamInit: begin,
    completionStreamInit: begin,
    completionStreamNextChunk: ({ streamId }) => streams.get(streamId).next().value ?? null,
    completionNonStreaming: () => ({ choices: answers.map((each) => ({ text: each })) }),
    deleteResumableSession: () => null,
    listResumableSessions: () => [],
  };
  return ({ kind, content }) => (isLost(kind) ? LOST : table[kind]?.(content));
}

function* chunksOf(answers, from, request, isChat, hasIds, most) {
  const chunk = (choices, usage) => ({ id: crypto.randomUUID(), created: 1, choices, usage });
  const choice = (index, letters, finish_reason = null, role) => ({
    index,
    ...(isChat ? { delta: { content: letters, role } } : { text: letters }),
    finish_reason,
    ...(hasIds && { token_ids: [...letters].map((letter) => letter.charCodeAt(0)) }),
  });
  if (isChat) yield chunk(answers.map((_, index) => choice(index, "", null, "assistant")));
  const at = [...from];
  const ended = new Set();
  while (ended.size < answers.length) {
    const choices = [];
    for (const [index, answer] of answers.entries()) {
      const num = most();
      if (ended.has(index) || num === 0) continue;
      const letters = answer.slice(at[index], at[index] + num);
      at[index] += letters.length;
      const isEnd = at[index] >= answer.length;
      if (isEnd) ended.add(index);
      choices.push(choice(index, letters, isEnd ? "stop" : null));
    }
    if (choices.length > 0) yield chunk(choices);
  }
  const total = answers.join("").length;
  if (request.stream_options?.include_usage) yield chunk([], { completion_tokens: total });
}

/** Reads a stream: each choice's text and roles, the ids of chunks, reasons, and the usages. */
export async function read(stream) {
  const [texts, roles, reasons, usages, ids] = [[], [], [], [], new Set()];
  for await (const { id, choices, usage } of stream) {
    ids.add(id);
    if (usage) usages.push(usage);
    for (const { index, delta, text, finish_reason, token_ids } of choices) {
      texts[index] = (texts[index] ?? "") + (delta?.content ?? text);
      if (delta?.role) roles.push(index);
      if (finish_reason) reasons.push(index);
      if (token_ids) throw new Error("token ids that nobody asked for");
    }
  }
  return { texts, roles, reasons: reasons.sort(), usages, numIds: ids.size };
}
