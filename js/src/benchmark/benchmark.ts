// The benchmark page. `?peers` adds other engines if they are served beside this page.

import { loadAppConfig } from "../page/config";
import { byId, h } from "../page/dom";
import { applyTheme, readSettings } from "../page/settings";
import { Choices } from "./choices";
import type { Machine } from "./contender";
import { measure, type Sample } from "./measure";
import { loadPeers } from "./peers";
import { describeMachine, report } from "./report";
import { FIGURES, type Result } from "./summary";
import { table } from "./table";
import { OURS } from "./webllm";

declare global {
  interface Window {
    /** For scripts: takes one sample of an engine with the form's settings. */
    measure: (engineId: string) => Promise<Sample>;
  }
}

const status = byId("status", HTMLParagraphElement);
const say = (text: string) => void (status.textContent = text);

applyTheme(readSettings().theme);
main().catch((error: unknown) => {
  say(`The page could not start: ${error}`);
  throw error;
});

async function main(): Promise<void> {
  const withPeers = new URLSearchParams(location.search).has("peers");
  const [appConfig, peers, machine] = await Promise.all([
    loadAppConfig(),
    withPeers ? loadPeers() : { contenders: [], mlcModelIds: [] },
    describeMachine(),
  ]);
  const contenders = [...OURS, ...peers.contenders];
  const choices = new Choices(contenders, appConfig.model_list, peers.mlcModelIds, machine);
  const never = new AbortController().signal;
  window.measure = (engineId) => {
    const contender = contenders.find(({ id }) => id === engineId);
    if (!contender) throw new Error(`there is no engine ${engineId}`);
    return measure(contender, choices.settings, say, never);
  };
  define(machine);
  new Runs(choices, machine);
}

function define({ gpu, isIsolated }: Machine): void {
  const words = [
    `${navigator.hardwareConcurrency} cores`,
    gpu || "no GPU",
    isIsolated ? "isolated" : "not isolated",
  ];
  byId("machine", HTMLParagraphElement).textContent = words.join(" · ");
  const entries = FIGURES.flatMap(({ label, meaning }) => [
    h("dt", {}, label),
    h("dd", {}, meaning),
  ]);
  byId("definitions", HTMLDListElement).append(...entries);
}

/** The buttons, and the table that grows while it is measured. */
class Runs {
  private readonly run = byId("run", HTMLButtonElement);
  private readonly stop = byId("stop", HTMLButtonElement);
  private results: Result[] = [];
  private running = new AbortController();

  constructor(
    private readonly choices: Choices,
    private readonly machine: Machine,
  ) {
    choices.form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.measureAll();
    });
    this.stop.addEventListener("click", () => this.running.abort());
    byId("copy", HTMLButtonElement).addEventListener("click", () => void this.copy());
  }

  private async measureAll(): Promise<void> {
    const chosen = this.choices.chosen();
    if (chosen.length === 0) return say("Choose an engine.");
    this.running = new AbortController();
    this.results = chosen.map((contender) => ({ contender, samples: [], error: "" }));
    this.setRunning(true);
    const { repeats } = this.choices;
    for (let repeat = 1; repeat <= repeats; repeat++) {
      for (const result of this.results) await this.add(result, `${repeat} of ${repeats}`);
    }
    this.setRunning(false);
    say(this.running.signal.aborted ? "Stopped." : "Done.");
  }

  /** An engine that fails is not measured again. */
  private async add(result: Result, repeat: string): Promise<void> {
    const { signal } = this.running;
    if (result.error || signal.aborted) return;
    const step = (text: string) => say(`${result.contender.name}, ${repeat}: ${text}`);
    try {
      result.samples.push(await measure(result.contender, this.choices.settings, step, signal));
    } catch (error) {
      if (!signal.aborted) result.error = error instanceof Error ? error.message : String(error);
    }
    this.show();
  }

  private setRunning(isRunning: boolean): void {
    this.choices.lock(isRunning);
    this.run.hidden = isRunning;
    this.stop.hidden = !isRunning;
    this.show();
  }

  private show(): void {
    byId("results", HTMLElement).hidden = false;
    byId("table", HTMLDivElement).replaceChildren(table(this.results));
  }

  private async copy(): Promise<void> {
    const all = report(this.choices.settings, this.choices.repeats, this.results, this.machine);
    await navigator.clipboard.writeText(JSON.stringify(all, null, 2));
    say("Copied.");
  }
}
