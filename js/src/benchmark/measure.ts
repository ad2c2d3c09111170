// One measurement of one engine, by the page's clock, the same for every engine.

import type { Contender, Engine, Settings } from "./contender";
import { nextPrompt } from "./prompt";

/** Durations in ms, rates in tokens a second. */
export interface Sample {
  device: string;
  promptTokens: number;
  completionTokens: number;
  bootMs: number | null;
  startColdMs: number; // until the model answers, with an empty store
  startStoredMs: number; // the same with the model in the store
  firstTokenMs: number;
  prefillTokensPerS: number;
  decodeTokensPerS: number;
}

export type Step = (text: string) => void;

type Answer = Omit<Sample, "device" | "bootMs" | "startColdMs" | "startStoredMs">;

/** Rejects with the signal's reason when it is aborted; what was started is closed in any case. */
export async function measure(
  contender: Contender,
  settings: Settings,
  step: Step,
  stop: AbortSignal,
): Promise<Sample> {
  step("emptying the store");
  await unless(stop, contender.forget(settings));
  step("starting, store empty");
  const cold = await start(contender, settings, stop);
  cold.close();
  step("starting from the store");
  const stored = await start(contender, settings, stop);
  try {
    step("warming up");
    await unless(stop, ask(stored.engine, settings));
    step("answering");
    const answer = await unless(stop, ask(stored.engine, settings));
    const { device, bootMs } = stored.engine;
    return { device, bootMs, startColdMs: cold.ms, startStoredMs: stored.ms, ...answer };
  } finally {
    stored.close();
  }
}

interface Started {
  engine: Engine;
  ms: number;
  close(): void;
}

async function start(
  contender: Contender,
  settings: Settings,
  stop: AbortSignal,
): Promise<Started> {
  const life = new AbortController();
  const close = () => life.abort();
  const begun = performance.now();
  try {
    const engine = await unless(stop, contender.start(settings, life.signal));
    return { engine, ms: performance.now() - begun, close };
  } catch (error) {
    close();
    throw error;
  }
}

async function ask(engine: Engine, { promptTokens, maxTokens }: Settings): Promise<Answer> {
  const prompt = nextPrompt(promptTokens);
  const pieces: number[] = [];
  const begun = performance.now();
  const usage = await engine.complete(prompt, maxTokens, () => pieces.push(performance.now()));
  const [first, last] = [pieces[0], pieces.at(-1)];
  const missing = maxTokens - usage.completionTokens; // WebLLM does not count the first token
  if ((missing !== 0 && missing !== 1) || first === undefined || last === undefined) {
    throw new Error(`${usage.completionTokens} tokens came, not ${maxTokens}`);
  }
  return {
    ...usage,
    firstTokenMs: first - begun,
    prefillTokensPerS: (1000 * usage.promptTokens) / (first - begun),
    decodeTokensPerS: (1000 * (maxTokens - 1)) / (last - first),
  };
}

/** Stops waiting at `stop`, because some engines never answer calls that they received before it. */
function unless<Value>(stop: AbortSignal, work: Promise<Value>): Promise<Value> {
  return new Promise((resolve, reject) => {
    const refuse = () => reject(stop.reason);
    if (stop.aborted) refuse();
    stop.addEventListener("abort", refuse);
    work.then(resolve, reject).finally(() => stop.removeEventListener("abort", refuse));
  });
}
