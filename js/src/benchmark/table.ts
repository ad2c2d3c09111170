// The table of results: a row for each engine, medians with their spread and ratios under them.

import { h } from "../page/dom";
import { decimals } from "../page/format";
import { FIGURES, ratio, spread, type Figure, type Result, type Spread } from "./summary";

export function table(results: Result[]): HTMLTableElement {
  const heads = FIGURES.map(({ label, unit }) =>
    h("th", { class: "number" }, label, h("span", { class: "unit" }, unit === "ms" ? "s" : unit)),
  );
  return h(
    "table",
    { class: "results" },
    h("thead", {}, h("tr", {}, h("th", {}, "Engine"), ...heads)),
    h("tbody", {}, ...results.map((result) => row(result, results))),
  );
}

function row(result: Result, results: Result[]): HTMLTableRowElement {
  const { contender, samples, error } = result;
  const notes = [contender.version, samples.at(-1)?.device].filter(Boolean).join(" · ");
  const head = h(
    "th",
    {},
    contender.name,
    h("span", { class: "note" }, notes),
    Boolean(error) && h("span", { class: "note error" }, error),
  );
  head.scope = "row";
  return h(
    "tr",
    { data: { engine: contender.id } },
    head,
    ...FIGURES.map((figure) => cell(result, results, figure)),
  );
}

function cell(result: Result, results: Result[], figure: Figure): HTMLTableCellElement {
  const found = spread(result.samples, figure);
  if (!found) return h("td", { class: "number" }, "–");
  const times = ratio(result, results, figure);
  return h(
    "td",
    { class: "number" },
    show(found.median, figure),
    result.samples.length > 1 && h("span", { class: "note" }, extent(found, figure)),
    times !== null && h("span", { class: "times" }, `ours ${decimals(times, 1)}×`),
  );
}

function extent({ least, greatest }: Spread, figure: Figure): string {
  return `${show(least, figure)} – ${show(greatest, figure)}`;
}

function show(value: number, { unit }: Figure): string {
  return unit === "ms" ? decimals(value / 1000, 2) : decimals(value, value < 100 ? 1 : 0);
}
