// Reads a stream of text completions in OpenAI's form, which every engine here has.

import type { Usage } from "./contender";

export interface Chunk {
  choices: { text: string }[];
  usage?: { prompt_tokens: number; completion_tokens: number } | null;
}

export async function read(chunks: AsyncIterable<Chunk>, onText: () => void): Promise<Usage> {
  let usage: Chunk["usage"];
  for await (const chunk of chunks) {
    if (chunk.choices[0]?.text) onText();
    usage = chunk.usage ?? usage;
  }
  if (!usage) throw new Error("the engine did not tell how many tokens there were");
  return { promptTokens: usage.prompt_tokens, completionTokens: usage.completion_tokens };
}
