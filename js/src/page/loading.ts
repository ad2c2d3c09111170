// Load progress as one bar and a text.

import type { InitProgressReport } from "../client";
import { bytes } from "./format";
import type { ModelState } from "./state";
import { t, type TextKey } from "./texts";

type Loading = Extract<ModelState, { phase: "loading" }>;

const TEXTS: Record<string, TextKey> = {
  runtime: "startingPython",
  fetch: "downloadingModel",
  upload: "loadingModel",
  compile: "preparingDevice",
};

export const STARTING: Loading = {
  phase: "loading",
  text: t("startingPython"),
  progress: null,
  detail: "",
};

/** The state after a progress report. The bar never goes back. isHere: nothing is downloaded. */
export function loading(report: InitProgressReport, last: Loading, isHere: boolean): Loading {
  const isFetching = report.phase === "fetch";
  return {
    phase: "loading",
    text: t(isHere && isFetching ? "loadingModel" : (TEXTS[report.phase ?? ""] ?? "loadingModel")),
    progress: Math.max(last.progress ?? 0, report.progress),
    detail: amount(report),
  };
}

/** Phases without bytes count something else, in ones. */
function amount({ loadedBytes = 0, totalBytes }: InitProgressReport): string {
  if (loadedBytes < 1000) return "";
  return totalBytes ? t("amountOf", bytes(loadedBytes), bytes(totalBytes)) : bytes(loadedBytes);
}
