// System prompt, sampling and theme. Changes apply from the next answer on.

import { byId, h } from "../dom";
import { icon } from "../icons";
import { DEFAULTS, LIMITS, THEMES, type Sampling, type Settings, type Theme } from "../settings";
import type { State } from "../state";
import type { Store } from "../store";
import { t, type TextKey } from "../texts";

interface NumberField {
  name: keyof Sampling;
  label: TextKey;
  hint: TextKey;
  empty: TextKey; // shown while there is no number
}

const FIELDS: NumberField[] = [
  {
    name: "temperature",
    label: "temperature",
    hint: "temperatureHint",
    empty: "modelDefault",
  },
  { name: "top_p", label: "topP", hint: "topPHint", empty: "modelDefault" },
  { name: "max_tokens", label: "longestAnswer", hint: "longestAnswerHint", empty: "noLimit" },
  {
    name: "repetition_penalty",
    label: "repetitionPenalty",
    hint: "repetitionPenaltyHint",
    empty: "modelDefault",
  },
  { name: "seed", label: "seed", hint: "seedHint", empty: "random" },
];
const THEME_NAMES: Record<Theme, TextKey> = {
  system: "themeSystem",
  light: "themeLight",
  dark: "themeDark",
};

export class SettingsDialog {
  private readonly dialog = byId("settings", HTMLDialogElement);

  /** `more`: what follows the settings of the chat, and is not reset with them. */
  constructor(
    private readonly store: Store<State>,
    private readonly more: () => HTMLElement[] = () => [],
  ) {
    byId("open-settings", HTMLButtonElement).addEventListener("click", () => this.open());
  }

  private open(): void {
    this.build();
    this.dialog.showModal();
  }

  private build(): void {
    const { sampling } = this.store.get("settings");
    this.dialog.replaceChildren(
      h(
        "div",
        { class: "dialog-head" },
        h("h2", { id: "settings-title" }, t("settings")),
        h(
          "button",
          {
            class: "icon-button",
            aria: { label: t("closeSettings") },
            on: { click: () => this.dialog.close() },
          },
          icon("close"),
        ),
      ),
      this.themes(),
      this.systemPrompt(),
      h("div", { class: "number-fields" }, ...FIELDS.map((each) => this.number(each, sampling))),
      h(
        "div",
        { class: "dialog-actions" },
        h("span", { class: "hint" }, this.keptText()),
        h("button", { class: "button quiet", on: { click: () => this.reset() } }, t("reset")),
      ),
      ...this.more(),
    );
  }

  private keptText(): string {
    const why = this.store.get("notKept").get("settings");
    return why === undefined ? t("savedHere") : t("notSaved", why);
  }

  private change(fields: Partial<Settings>): void {
    this.store.set("settings", { ...this.store.get("settings"), ...fields });
  }

  private reset(): void {
    const { systemPrompt, sampling } = DEFAULTS;
    this.change({ systemPrompt, sampling });
    this.build();
    this.dialog.focus();
  }

  private themes(): HTMLElement {
    const current = this.store.get("settings").theme;
    const options = THEMES.map((theme) => {
      const on = { change: () => this.change({ theme }) };
      const checked = theme === current;
      const radio = h("input", { type: "radio", name: "theme", value: theme, checked, on });
      return h("label", {}, radio, h("span", {}, t(THEME_NAMES[theme])));
    });
    return h(
      "fieldset",
      { class: "field" },
      h("legend", { class: "field-label" }, t("theme")),
      h("div", { class: "segments" }, ...options),
    );
  }

  private systemPrompt(): HTMLElement {
    const field = h("textarea", {
      rows: 3,
      dir: "auto",
      value: this.store.get("settings").systemPrompt,
    });
    field.placeholder = t("systemPromptExample");
    field.addEventListener("input", () => this.change({ systemPrompt: field.value }));
    return h(
      "label",
      { class: "field" },
      h("span", { class: "field-label" }, t("systemPrompt")),
      field,
    );
  }

  private number({ name, label, hint, empty }: NumberField, sampling: Sampling): HTMLElement {
    const value = sampling[name] === null ? "" : String(sampling[name]);
    const field = h("input", { type: "number" });
    Object.assign(field, LIMITS[name], { value, placeholder: t(empty), inputMode: "decimal" });
    field.addEventListener("input", () => {
      if (!field.checkValidity()) return;
      const number = field.value === "" ? null : field.valueAsNumber;
      this.change({ sampling: { ...this.store.get("settings").sampling, [name]: number } });
    });
    return h(
      "label",
      { class: "field" },
      h("span", { class: "field-label" }, t(label)),
      field,
      h("span", { class: "hint" }, t(hint)),
    );
  }
}
