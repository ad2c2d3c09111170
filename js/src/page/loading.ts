// Load progress as one bar: each phase of WebLLM's reports has its part of it.

import type { InitProgressReport } from "../client";
import { bytes } from "./format";
import type { ModelState } from "./state";

type Loading = Extract<ModelState, { phase: "loading" }>;

interface Part {
  text: string;
  begin: number;
  end: number;
}

const PARTS: Record<string, Part> = {
  runtime: { text: "Starting Python", begin: 0, end: 0.05 },
  fetch: { text: "Downloading the model", begin: 0.05, end: 0.8 },
  load: { text: "Loading the model", begin: 0.8, end: 0.95 },
  compile: { text: "Preparing the device", begin: 0.95, end: 1 },
};

export const STARTING: Loading = {
  phase: "loading",
  text: "Starting Python",
  progress: null,
  detail: "",
};

/** What to show after a report; the bar never goes back. */
export function loading(report: InitProgressReport, last: Loading): Loading {
  const part = PARTS[report.phase ?? ""] ?? { text: "Loading the model", begin: 0, end: 1 };
  const progress = part.begin + report.progress * (part.end - part.begin);
  return {
    phase: "loading",
    text: part.text,
    progress: Math.max(last.progress ?? 0, progress),
    detail: amount(report),
  };
}

/** Phases without bytes count something else, in ones. */
function amount({ loadedBytes = 0, totalBytes }: InitProgressReport): string {
  if (loadedBytes < 1000) return "";
  return totalBytes ? `${bytes(loadedBytes)} of ${bytes(totalBytes)}` : bytes(loadedBytes);
}
