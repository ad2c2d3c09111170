// The measurements with all that bears upon them, to be copied.

import type { Settings } from "./contender";
import { FIGURES, ratio, spread, type Result } from "./summary";

export function report(settings: Settings, repeats: number, results: Result[], gpu: string) {
  return {
    browser: navigator.userAgent,
    cores: navigator.hardwareConcurrency,
    crossOriginIsolated,
    gpu,
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

/** The graphics adapter in words. */
export async function describeGpu(): Promise<string> {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  if (!adapter) return "none";
  const { vendor, architecture, description, isFallbackAdapter } = adapter.info;
  const words = [vendor, architecture, description].filter(Boolean).join(" ");
  return isFallbackAdapter ? `${words} (software)` : words;
}
