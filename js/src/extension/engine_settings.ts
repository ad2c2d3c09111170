// The settings of an extension's engine: when it sleeps, and which websites may use it.

import { h } from "../page/dom";
import { t, type TextKey } from "../page/texts";
import {
  DEFAULT_IDLE_MINUTES,
  keepDeniedOrigins,
  keepExtensionSettings,
  MAX_IDLE_MINUTES,
  readDeniedOrigins,
  readExtensionSettings,
  type ExtensionSettings,
} from "./extension_storage";

/** Returns elements for the settings dialog, which show what is saved as soon as it is read. */
export function engineSettings(): HTMLElement[] {
  const box = h("div", { class: "engine-settings" });
  void Promise.all([readExtensionSettings(), readDeniedOrigins()]).then(([settings, denied]) => {
    box.replaceChildren(idleMinutes(settings), sites(settings.allowedOrigins, denied));
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

function sites(allowed: string[], denied: string[]): HTMLElement {
  const empty = h("p", { class: "hint", hidden: allowed.length > 0 }, t("noSites"));
  const list = origins(allowed, "remove", "removeSite", async (origin) => {
    const { allowedOrigins } = await readExtensionSettings();
    await keepExtensionSettings({ allowedOrigins: without(allowedOrigins, origin) });
  });
  list.addEventListener("click", () => (empty.hidden = list.childElementCount > 0));
  const askAgain = async (origin: string) =>
    keepDeniedOrigins(without(await readDeniedOrigins(), origin));
  const refused = [
    h("p", { class: "hint" }, t("sitesRefused")),
    origins(denied, "askAgain", "askAgainSite", askAgain),
  ];
  return h(
    "section",
    { class: "field", aria: { labelledby: "sites-title" } },
    h("h3", { class: "field-label", id: "sites-title" }, t("sitesTitle")),
    list,
    empty,
    ...(denied.length > 0 ? refused : []),
  );
}

function origins(
  all: string[],
  text: TextKey,
  label: TextKey,
  act: (origin: string) => Promise<void>,
): HTMLElement {
  const item = (origin: string) => {
    const button = h(
      "button",
      { class: "button quiet", aria: { label: t(label, origin) } },
      t(text),
    );
    const entry = h("li", {}, h("span", {}, origin), button);
    button.addEventListener("click", () => {
      entry.remove();
      void act(origin);
    });
    return entry;
  };
  return h("ul", { class: "sites" }, ...all.map(item));
}

function without(all: string[], origin: string): string[] {
  return all.filter((each) => each !== origin);
}
