// The settings of an extension's engine: when it sleeps, and which websites may use it. The lists show
// what is kept, also if it changes while they are open.

import { h } from "../page/dom";
import { t } from "../page/texts";
import {
  DEFAULT_IDLE_MINUTES,
  forgetDenial,
  keepExtensionSettings,
  MAX_IDLE_MINUTES,
  readDeniedOrigins,
  readExtensionSettings,
  revokeOrigin,
  type ExtensionSettings,
} from "./extension_storage";

/** Returns elements for the settings dialog, which show what is saved as soon as it is read. */
export function engineSettings(): HTMLElement[] {
  const box = h("div", { class: "engine-settings" });
  const lists = h("div", { class: "site-lists" });
  void readExtensionSettings().then((settings) => box.append(idleMinutes(settings), lists));
  void showSites(lists);
  const kept = chrome!.storage!.onChanged;
  const follow: Parameters<typeof kept.addListener>[0] = (changes) => {
    if (!box.isConnected) kept.removeListener(follow);
    else if ("allowedOrigins" in changes || "deniedOrigins" in changes) void showSites(lists);
  };
  kept.addListener(follow);
  return [box];
}

async function showSites(lists: HTMLElement): Promise<void> {
  const { allowedOrigins } = await readExtensionSettings();
  const deniedOrigins = await readDeniedOrigins();
  lists.replaceChildren(allowed(allowedOrigins));
  if (deniedOrigins.length > 0) lists.append(denied(deniedOrigins));
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

/** Removing one denies it. */
function allowed(origins: string[]): HTMLElement {
  const items = origins.map((each) => {
    return site(each, t("remove"), t("removeSite", each), () => revokeOrigin(each));
  });
  const list = items.length > 0 ? h("ul", { class: "sites" }, ...items) : hint(t("noSites"));
  return section("sites-title", t("sitesTitle"), list);
}

function denied(origins: string[]): HTMLElement {
  const items = origins.map((each) => {
    return site(each, t("askAgain"), t("askAgainSite", each), () => forgetDenial(each));
  });
  const list = h("ul", { class: "denied-sites" }, ...items);
  return section("denied-title", t("deniedTitle"), list, hint(t("deniedHint")));
}

function site(origin: string, text: string, label: string, act: () => Promise<void>): HTMLElement {
  const button = { class: "button quiet", aria: { label }, on: { click: () => void act() } };
  return h("li", {}, h("span", {}, origin), h("button", button, text));
}

function section(id: string, title: string, ...children: HTMLElement[]): HTMLElement {
  const heading = h("h3", { class: "field-label", id }, title);
  return h("section", { class: "field", aria: { labelledby: id } }, heading, ...children);
}

function hint(text: string): HTMLElement {
  return h("p", { class: "hint" }, text);
}
