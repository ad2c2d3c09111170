// System prompt, sampling and theme. Changes apply from the next answer on.

import { byId, h } from "../dom";
import { icon } from "../icons";
import { DEFAULTS, LIMITS, THEMES, type Sampling, type Settings, type Theme } from "../settings";
import type { State } from "../state";
import type { Store } from "../store";

interface NumberField {
  name: keyof Sampling;
  label: string;
  hint: string;
  empty: string; // shown while there is no number
}

const FIELDS: NumberField[] = [
  {
    name: "temperature",
    label: "Temperature",
    hint: "0 is predictable, 2 is very random",
    empty: "Model default",
  },
  {
    name: "top_p",
    label: "Top p",
    hint: "Sample only from the most likely words",
    empty: "Model default",
  },
  {
    name: "max_tokens",
    label: "Longest answer",
    hint: "In tokens",
    empty: "No limit",
  },
  {
    name: "repetition_penalty",
    label: "Repetition penalty",
    hint: "Above 1 reduces repetition",
    empty: "Model default",
  },
  {
    name: "seed",
    label: "Seed",
    hint: "The same seed gives the same answer",
    empty: "Random",
  },
];
const THEME_NAMES: Record<Theme, string> = { system: "System", light: "Light", dark: "Dark" };

export class SettingsDialog {
  private readonly dialog = byId("settings", HTMLDialogElement);

  constructor(private readonly store: Store<State>) {
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
        h("h2", { id: "settings-title" }, "Settings"),
        h(
          "button",
          {
            class: "icon-button",
            aria: { label: "Close settings" },
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
        h("button", { class: "button quiet", on: { click: () => this.reset() } }, "Reset"),
      ),
    );
  }

  private keptText(): string {
    const why = this.store.get("notKept").get("settings");
    return why === undefined ? "Saved in this browser." : `Not saved: ${why}.`;
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
      return h("label", {}, radio, h("span", {}, THEME_NAMES[theme]));
    });
    return h(
      "fieldset",
      { class: "field" },
      h("legend", { class: "field-label" }, "Theme"),
      h("div", { class: "segments" }, ...options),
    );
  }

  private systemPrompt(): HTMLElement {
    const field = h("textarea", {
      rows: 3,
      dir: "auto",
      value: this.store.get("settings").systemPrompt,
    });
    field.placeholder = "You are a helpful assistant.";
    field.addEventListener("input", () => this.change({ systemPrompt: field.value }));
    return h(
      "label",
      { class: "field" },
      h("span", { class: "field-label" }, "System prompt"),
      field,
    );
  }

  private number({ name, label, hint, empty }: NumberField, sampling: Sampling): HTMLElement {
    const value = sampling[name] === null ? "" : String(sampling[name]);
    const field = h("input", { type: "number" });
    Object.assign(field, LIMITS[name], { value, placeholder: empty, inputMode: "decimal" });
    field.addEventListener("input", () => {
      if (!field.checkValidity()) return;
      const number = field.value === "" ? null : field.valueAsNumber;
      this.change({ sampling: { ...this.store.get("settings").sampling, [name]: number } });
    });
    return h(
      "label",
      { class: "field" },
      h("span", { class: "field-label" }, label),
      field,
      h("span", { class: "hint" }, hint),
    );
  }
}
