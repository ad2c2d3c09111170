// Checks of plain data from outside.

export type Fields = Record<string, unknown>;

export function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** An object's fields; none for anything else. */
export function fields(value: unknown): Fields {
  return isFields(value) ? value : {};
}

export function isText(value: unknown): value is string {
  return typeof value === "string";
}

export function isNumber(
  value: unknown,
  { min = -Infinity, max = Infinity } = {},
): value is number {
  return typeof value === "number" && Number.isFinite(value) && min <= value && value <= max;
}

export function isOneOf<Option extends string>(
  value: unknown,
  options: readonly Option[],
): value is Option {
  return options.includes(value as Option);
}
