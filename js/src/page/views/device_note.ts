// Shows the chosen model and the device that it runs on, in the header and below the input.

import { byId } from "../dom";
import { deviceKind, deviceText, isCpu } from "../device_text";
import { modelName } from "../format";
import type { Device } from "../device";
import type { ModelState, State } from "../state";
import type { Store } from "../store";

const PRIVACY = "Nothing you type leaves this device.";

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
    this.name.textContent = modelName(this.store.get("modelId")) || "No model";
    this.dot.dataset.phase = model.phase;
    this.badge.hidden = model.phase !== "ready";
    if (model.phase !== "ready") return;
    this.badge.textContent = deviceKind(model.device);
    this.badge.title = model.isShared ? `${model.device}, shared by all tabs` : model.device;
  }
}

function noteText(model: ModelState, device: Device | null): string {
  const reason = device?.noGpuReason ? `: ${device.noGpuReason}` : "";
  if (model.phase === "ready") {
    return `Runs on ${deviceText(model.device)}${isCpu(model.device) ? reason : ""}. ${PRIVACY}`;
  }
  if (device === null) return PRIVACY;
  return `Will run on ${device.gpu ? "WebGPU" : "the CPU"}${reason}. ${PRIVACY}`;
}
