// The settings of an extension's engine: when it sleeps, and which websites may use it.

import { h } from "../page/dom";
import { t } from "../page/texts";
import {
  DEFAULT_IDLE_MINUTES,
  keepExtensionSettings,
  MAX_IDLE_MINUTES,
  readExtensionSettings,
  revokeOrigin,
  type ExtensionSettings,
} from "./extension_storage";

/** Returns elements for the settings dialog, which show what is saved as soon as it is read. */
export function engineSettings(): HTMLElement[] {
  const box = h("div", { class: "engine-settings" });
  void readExtensionSettings().then((settings) => {
    box.replaceChildren(idleMinutes(settings), sites(settings.allowedOrigins));
  });
  return [box];
}

function idleMinutes({ idleMinutes: minutes }: ExtensionSettings): HTMLElement {
  const field = h("input", { type: "number" });
  const limits = { min: "0", max: String(MAX_IDLE_MINUTES), step: "1", inputMode: "numeric" };
  Object.assign(field, limits, { value: String(minutes), placeholder: DEFAULT_IDLE_MINUTES });
  field.addEventListener("input", () => {
    if (!field.checkValidity()) return;
    const chosen = field.value === "" ? DEFAULT_IDLE_MINUTES : field.valueAsNumber;
    void keepExtensionSettings({ idleMinutes: chosen });
  });
  return h(
    "label",
    { class: "field" },
    h("span", { class: "field-label" }, t("idleMinutes")),
    field,
    h("span", { class: "hint" }, t("idleHint")),
  );
}

function sites(origins: string[]): HTMLElement {
  const empty = h("p", { class: "hint", hidden: origins.length > 0 }, t("noSites"));
  const onRemoved = () => (empty.hidden = list.childElementCount > 0);
  const list = h("ul", { class: "sites" }, ...origins.map((each) => site(each, onRemoved)));
  return h(
    "section",
    { class: "field", aria: { labelledby: "sites-title" } },
    h("h3", { class: "field-label", id: "sites-title" }, t("sitesTitle")),
    list,
    empty,
  );
}

/** It is shown until its removal is stored. */
function site(origin: string, onRemoved: () => void): HTMLElement {
  const click = async () => {
    await revokeOrigin(origin);
    item.remove();
    onRemoved();
  };
  const remove = { class: "button quiet", aria: { label: t("removeSite", origin) } };
  const item = h(
    "li",
    {},
    h("span", {}, origin),
    h("button", { ...remove, on: { click: () => void click() } }, t("remove")),
  );
  return item;
}
