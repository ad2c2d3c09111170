// Load progress as one bar and a text.

import type { InitProgressReport } from "../client";
import { bytes } from "./format";
import type { ModelState } from "./state";

type Loading = Extract<ModelState, { phase: "loading" }>;

const TEXTS: Record<string, string> = {
  runtime: "Starting Python",
  fetch: "Downloading the model",
  upload: "Loading the model",
  compile: "Preparing the device",
};

export const STARTING: Loading = {
  phase: "loading",
  text: "Starting Python",
  progress: null,
  detail: "",
};

/** The state after a progress report. The bar never goes back. */
export function loading(report: InitProgressReport, last: Loading): Loading {
  return {
    phase: "loading",
    text: TEXTS[report.phase ?? ""] ?? "Loading the model",
    progress: Math.max(last.progress ?? 0, report.progress),
    detail: amount(report),
  };
}

/** Phases without bytes count something else, in ones. */
function amount({ loadedBytes = 0, totalBytes }: InitProgressReport): string {
  if (loadedBytes < 1000) return "";
  return totalBytes ? `${bytes(loadedBytes)} of ${bytes(totalBytes)}` : bytes(loadedBytes);
}
