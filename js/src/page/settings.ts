// The user's settings, in localStorage.

import { fields, isFields, isNumber, isOneOf, isText, type Fields } from "./reader";
import { readItem, writeItem } from "./storage";

export const THEMES = ["system", "light", "dark"] as const;
export type Theme = (typeof THEMES)[number];

/** Allowed values of the sampling settings. */
export const LIMITS = {
  temperature: { min: 0, max: 2, step: 0.05 },
  top_p: { min: 0.05, max: 1, step: 0.05 },
  max_tokens: { min: 1, max: 100_000, step: 1 },
  repetition_penalty: { min: 0.5, max: 2, step: 0.05 },
  seed: { min: 0, max: 2 ** 31 - 1, step: 1 },
};

/** null leaves it to the model. */
export type Sampling = Record<keyof typeof LIMITS, number | null>;

/** What is not left to the model. */
export type SampledWith = Partial<Record<keyof Sampling, number>>;

export interface Settings {
  theme: Theme;
  systemPrompt: string;
  sampling: Sampling;
  modelId: string | null; // the one that was loaded last
}

export const DEFAULTS: Settings = settingsOf({});

const KEY = "webllm-settings";
const UNREADABLE_KEY = "webllm-settings-unreadable"; // where damaged ones are set aside

/** Saved settings, with defaults for the rest. Calls `onRefused` if the browser blocks storage. */
export function readSettings(onRefused: (error: unknown) => void = () => {}): Settings {
  try {
    return settingsOf(keptFields());
  } catch (error) {
    onRefused(error);
    return DEFAULTS;
  }
}

/** Saves the settings that differ from `before`. Throws if the browser blocks storage. */
export function keepSettings(settings: Settings, before: Settings): void {
  const names = Object.keys(settings) as (keyof Settings)[];
  const changed = names.filter((name) => settings[name] !== before[name]);
  if (changed.length === 0) return;
  const changes = Object.fromEntries(changed.map((name) => [name, settings[name]]));
  const text = readItem(KEY);
  if (text !== null && parsed(text) === null) writeItem(UNREADABLE_KEY, text);
  writeItem(KEY, JSON.stringify({ ...keptFields(), ...changes }));
}

export function applyTheme(theme: Theme): void {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

/** The settings that an answer is asked with. The seed is known, so that it can be asked again. */
export function samplingOf({ sampling }: Settings): SampledWith {
  const given = Object.entries(sampling).filter(([, value]) => value !== null);
  return { seed: newSeed(), ...(Object.fromEntries(given) as SampledWith) };
}

/** Damaged fields are left out. */
export function readSampling(record: Fields): SampledWith {
  const read = settingsOf({ sampling: record }).sampling;
  return Object.fromEntries(Object.entries(read).filter(([, value]) => value !== null));
}

function newSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0]! >>> 1; // as LIMITS has it
}

function keptFields(): Fields {
  return parsed(readItem(KEY) ?? "{}") ?? {};
}

/** Returns null if the text is not a JSON object. */
function parsed(text: string): Fields | null {
  try {
    const value: unknown = JSON.parse(text);
    return isFields(value) ? value : null;
  } catch {
    return null;
  }
}

function settingsOf({ theme, systemPrompt, sampling, modelId }: Fields): Settings {
  const kept = fields(sampling);
  const number = (name: keyof Sampling) => {
    const value = kept[name];
    const isWhole = LIMITS[name].step < 1 || Number.isInteger(value);
    return isNumber(value, LIMITS[name]) && isWhole ? value : null;
  };
  return {
    theme: isOneOf(theme, THEMES) ? theme : "system",
    systemPrompt: isText(systemPrompt) ? systemPrompt : "",
    sampling: {
      temperature: number("temperature"),
      top_p: number("top_p"),
      max_tokens: number("max_tokens"),
      repetition_penalty: number("repetition_penalty"),
      seed: number("seed"),
    },
    modelId: isText(modelId) ? modelId : null,
  };
}
