// What the user has set, kept in localStorage.

import type { ChatCompletionRequest } from "../client";

export type Theme = "system" | "light" | "dark";

/** What may be asked for beside the messages; null leaves it to the model. */
export type Sampling = Record<
  "temperature" | "top_p" | "max_tokens" | "repetition_penalty" | "seed",
  number | null
>;

export interface Settings {
  theme: Theme;
  systemPrompt: string;
  sampling: Sampling;
  modelId: string | null; // the one that was loaded last
}

export const DEFAULTS: Settings = {
  theme: "system",
  systemPrompt: "",
  sampling: {
    temperature: null,
    top_p: null,
    max_tokens: null,
    repetition_penalty: null,
    seed: null,
  },
  modelId: null,
};

const KEY = "webllm-settings";

export function readSettings(): Settings {
  const kept = JSON.parse(localStorage.getItem(KEY) ?? "{}") as Partial<Settings>;
  return { ...DEFAULTS, ...kept, sampling: { ...DEFAULTS.sampling, ...kept.sampling } };
}

export function keepSettings(settings: Settings): void {
  localStorage.setItem(KEY, JSON.stringify(settings));
}

export function applyTheme(theme: Theme): void {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

export function requestFields({ sampling }: Settings): Partial<ChatCompletionRequest> {
  return Object.fromEntries(Object.entries(sampling).filter(([, value]) => value !== null));
}
