// Turns samples into the table's medians, spreads and ratios.

import type { Contender } from "./contender";
import type { Sample } from "./measure";

export interface Figure {
  field: "bootMs" | "startColdMs" | "startStoredMs" | "firstTokenMs" | Rate;
  label: string;
  unit: "ms" | "tokens/s";
  meaning: string;
}

type Rate = "prefillTokensPerS" | "decodeTokensPerS";

export const FIGURES: Figure[] = [
  {
    field: "bootMs",
    label: "Boot",
    unit: "ms",
    meaning:
      "from making the worker until Python in it can be asked something. Other engines do not " +
      "tell; it is part of their start.",
  },
  {
    field: "startColdMs",
    label: "Start, store empty",
    unit: "ms",
    meaning:
      "from making the worker until the model can be asked, boot and download included. The " +
      "engine’s store is emptied before; the browser’s HTTP cache may still hold the file.",
  },
  {
    field: "startStoredMs",
    label: "Start, from store",
    unit: "ms",
    meaning: "the same once more in a new worker, with the model in the engine’s store.",
  },
  {
    field: "firstTokenMs",
    label: "First token",
    unit: "ms",
    meaning: "from asking until the page has the first piece of text. Not of the first answer.",
  },
  {
    field: "prefillTokensPerS",
    label: "Prefill",
    unit: "tokens/s",
    meaning: "tokens of the prompt, as the engine counts them, by the time to the first token.",
  },
  {
    field: "decodeTokensPerS",
    label: "Decode",
    unit: "tokens/s",
    meaning: "tokens after the first one, by the time from the first piece of text to the last.",
  },
];

/** The results of one engine. */
export interface Result {
  contender: Contender;
  samples: Sample[];
  error: string;
}

export interface Spread {
  median: number;
  least: number;
  greatest: number;
}

export function spread(samples: Sample[], { field }: Figure): Spread | null {
  const values = samples.map((sample) => sample[field]).filter((value) => value !== null);
  values.sort((a, b) => a - b);
  const middle = values.length / 2;
  const [low, high] = [values[Math.ceil(middle) - 1], values[Math.floor(middle)]];
  if (low === undefined || high === undefined) return null;
  return { median: (low + high) / 2, least: values[0]!, greatest: values.at(-1)! };
}

/** How many times as fast ours is; null for ours, or if either was not measured. */
export function ratio(result: Result, results: Result[], figure: Figure): number | null {
  const { id, comparedWith } = result.contender;
  const ours = results.find(({ contender }) => contender.id === comparedWith);
  const [mine, theirs] = [ours && spread(ours.samples, figure), spread(result.samples, figure)];
  if (id === comparedWith || !mine || !theirs) return null;
  return figure.unit === "ms" ? theirs.median / mine.median : mine.median / theirs.median;
}
