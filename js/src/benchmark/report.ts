// The report to copy: measurements and their circumstances.

import type { Machine, Settings } from "./contender";
import { FIGURES, ratio, spread, type Result } from "./summary";

export function report(settings: Settings, repeats: number, results: Result[], machine: Machine) {
  return {
    browser: navigator.userAgent,
    cores: navigator.hardwareConcurrency,
    ...machine,
    settings,
    repeats,
    engines: results.map((result) => ({
      id: result.contender.id,
      name: result.contender.name,
      ...(result.contender.version && { version: result.contender.version }),
      ...(result.error && { error: result.error }),
      comparedWith: result.contender.comparedWith,
      figures: Object.fromEntries(
        FIGURES.map((figure) => [
          figure.field,
          { ...spread(result.samples, figure), oursTimesAsFast: ratio(result, results, figure) },
        ]),
      ),
      samples: result.samples,
    })),
  };
}

export async function describeMachine(): Promise<Machine> {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return { gpu: adapter ? words(adapter.info) : "", isIsolated: crossOriginIsolated };
}

function words({ vendor, architecture, description, isFallbackAdapter }: GPUAdapterInfo): string {
  const known = [vendor, architecture, description].filter(Boolean);
  return [...known, isFallbackAdapter ? "(software)" : ""].join(" ").trim() || "unnamed";
}
