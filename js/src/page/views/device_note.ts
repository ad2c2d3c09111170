// Shows the chosen model and the device that it runs on, in the header and below the input.

import { byId } from "../dom";
import { deviceKind, deviceText, isCpu } from "../device_text";
import { bytes, modelName } from "../format";
import type { Device } from "../device";
import type { ModelState, State } from "../state";
import type { Store } from "../store";
import { t } from "../texts";

export class DeviceNote {
  private readonly note = byId("device-note", HTMLParagraphElement);
  private readonly badge = byId("device-badge", HTMLSpanElement);
  private readonly dot = byId("model-dot", HTMLSpanElement);
  private readonly name = byId("model-name", HTMLSpanElement);

  constructor(private readonly store: Store<State>) {
    store.watch(["device", "model", "modelId"], () => this.render());
  }

  private render(): void {
    const model = this.store.get("model");
    const device = this.store.get("device");
    this.note.textContent = noteText(model, device);
    this.name.textContent = modelName(this.store.get("modelId")) || t("noModel");
    this.dot.dataset.phase = model.phase;
    this.badge.hidden = model.phase !== "ready" && model.phase !== "asleep";
    this.badge.className = model.phase === "asleep" ? "badge asleep" : "badge";
    if (model.phase === "asleep") {
      this.badge.textContent = t("asleep");
      this.badge.title = t("asleepText");
    }
    if (model.phase !== "ready") return;
    this.badge.textContent = deviceKind(model.device);
    this.badge.title = model.isShared ? t("sharedByTabs", model.device) : model.device;
  }
}

function noteText(model: ModelState, device: Device | null): string {
  const reason = device?.noGpuReason ? `: ${device.noGpuReason}` : "";
  if (model.phase === "ready") {
    const { memoryBytes } = model;
    const memory = memoryBytes === null ? "" : `${t("memoryTaken", bytes(memoryBytes))} `;
    const why = isCpu(model.device) ? reason : "";
    return t("runsOn", `${deviceText(model.device)}${why}.`, memory + t("privacy"));
  }
  if (device === null || model.phase === "asleep") return t("privacy");
  return t("willRunOn", `${device.gpu ? "WebGPU" : t("theCpu")}${reason}.`, t("privacy"));
}
