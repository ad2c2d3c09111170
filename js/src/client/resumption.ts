// What a client has of an answer, and the request that gets the rest from another worker. As
// resumption.py.

import { newUuid } from "../../../src/webllm/workers/uuid.js";
import type {
  ChatCompletionChunk,
  ChatCompletionRequest,
  Completion,
  CompletionRequest,
  ExtraBody,
} from "./api";
import { gaveUp, type WebLLMError } from "./errors";
import type { Resumable } from "./resumable";

export type Request = ChatCompletionRequest | CompletionRequest;
export type AnyChunk = ChatCompletionChunk | Completion;

const MAX_LOSSES = 5;

/** Counts the workers that a call has lost, one after another, without progress between. */
export class Losses {
  private num = 0;

  reset(): void {
    this.num = 0;
  }

  /** Throws WorkerLostError once they are too many: perhaps the request itself ends them. */
  add(error: WebLLMError): void {
    this.num += 1;
    if (this.num >= MAX_LOSSES) throw gaveUp(MAX_LOSSES, error);
  }
}

/** One request whose answer survives its worker, under the id of a session. */
export class Resumption {
  readonly sessionId: string;
  /** Whether the session is this client's alone, which removes it after the answer. */
  readonly isOwn: boolean;
  isInterrupted = false;
  private readonly fields: Request;
  private readonly numChoices: number;
  private readonly numTokens: number[]; // by choice
  private readonly showsIds: boolean;
  private awaitsUsage: boolean;
  private readonly begun = new Set<number>(); // choices with a chunk so far
  private readonly ended = new Set<number>();
  private head: Pick<AnyChunk, "id" | "created"> | undefined; // of the first chunk

  /** Returns nothing for a request that is not to be kept, and for one that cannot be read. */
  static of(request: Request, isKept: boolean): Resumption | undefined {
    const fields = copied(request);
    const extra = fields?.extra_body ?? {};
    if (!fields || !isRecord(extra)) return undefined;
    const resumable = extra.resumable == null ? {} : camelCased(extra.resumable);
    if (!resumable || !isReadable(resumable)) return undefined;
    const isWanted = extra.resumable == null ? isKept : (resumable.enabled ?? true);
    return isWanted ? new Resumption(fields, extra, resumable) : undefined;
  }

  private constructor(
    fields: Request,
    private readonly extra: ExtraBody,
    private readonly resumable: Resumable,
  ) {
    this.isOwn = extra.resumable == null;
    // The next worker draws the same tokens, even if the lost one kept nothing.
    this.fields = this.isOwn && fields.seed == null ? { ...fields, seed: newSeed() } : fields;
    this.sessionId = resumable.sessionId ?? newUuid();
    this.numChoices = countOf(fields.n);
    const start = resumable.fromToken ?? 0;
    this.numTokens = Array.isArray(start) ? [...start] : Array(this.numChoices).fill(start);
    this.showsIds = extra.return_token_ids === true;
    this.awaitsUsage = fields.stream_options?.include_usage === true;
  }

  /** Whether every choice has ended, and the usage has come if it was asked for. */
  get isComplete(): boolean {
    return this.ended.size >= this.numChoices && !this.awaitsUsage;
  }

  /** Returns the request for the answer, from behind the tokens that have come. */
  request(): Request {
    const resumable: Resumable = { ...this.resumable, enabled: true, sessionId: this.sessionId };
    const extra: ExtraBody = { ...this.extra, resumable };
    if (this.fields.stream) {
      extra.return_token_ids = true;
      if (this.numTokens.some((num) => num > 0)) resumable.fromToken = [...this.numTokens];
    }
    return { ...this.fields, extra_body: extra };
  }

  /**
   * Counts a chunk's tokens; returns what the caller has not seen yet of it. A resumed stream may
   * begin again with the role or the prompt's echo, and end choices that have ended before.
   */
  take<Chunk extends AnyChunk>(chunk: Chunk): Chunk | undefined {
    const { id, created } = (this.head ??= { id: chunk.id, created: chunk.created });
    if (chunk.usage) this.awaitsUsage = false;
    const choices = (chunk.choices as AnyChunk["choices"][number][]).filter((each) =>
      this.isNew(each),
    );
    if (chunk.choices.length > 0 && choices.length === 0 && !chunk.usage) return undefined;
    return { ...chunk, id, created, choices };
  }

  /** Counts a choice of a chunk; returns whether it has anything new. */
  private isNew(choice: AnyChunk["choices"][number]): boolean {
    const { index, finish_reason } = choice;
    if (this.ended.has(index)) return false;
    const num = choice.token_ids?.length ?? 0;
    this.numTokens[index] = (this.numTokens[index] ?? 0) + num;
    if (!this.showsIds) delete choice.token_ids;
    if (finish_reason) this.ended.add(index);
    const isFirst = !this.begun.has(index);
    this.begun.add(index);
    return isFirst || num > 0 || Boolean(finish_reason);
  }
}

/** A copy of the request as it is now, since it may be sent again later; none if it is no data. */
function copied(request: Request): Request | undefined {
  try {
    return structuredClone(request);
  } catch {
    return undefined; // posting it says what is wrong
  }
}

type Fields = Record<string, unknown>;

function isRecord(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Renames fields that are spelled as in Python; nothing if one is given in both spellings. */
function camelCased(resumable: unknown): Fields | undefined {
  if (!isRecord(resumable)) return undefined;
  const renamed: Fields = {};
  for (const [given, value] of Object.entries(resumable)) {
    if (value == null) continue;
    const name = given.replace(/_[a-z]/g, ([, letter = ""]) => letter.toUpperCase());
    if (name in renamed) return undefined;
    renamed[name] = value;
  }
  return renamed;
}

function isReadable(resumable: Fields): resumable is Resumable & Fields {
  const { enabled = true, sessionId = "", fromToken = 0 } = resumable;
  const isCounts = [fromToken].flat().every((each) => Number.isInteger(each));
  return typeof enabled === "boolean" && typeof sessionId === "string" && isCounts;
}

function countOf(n: unknown): number {
  return typeof n === "number" && Number.isInteger(n) && 0 < n && n < 1000 ? n : 1;
}

function newSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0] as number;
}
