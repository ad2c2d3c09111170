// Subresource Integrity: hashes as WebLLM's records and browsers write them, "sha256-<base64>".

import { IntegrityError } from "./error_classes";
import { configError } from "./errors";

export type SRIString = string;
/** By the names of files. */
export type FileIntegrityMap = Record<string, SRIString>;
export type { ModelIntegrity } from "./messages";

const LENGTHS: Record<string, number> = { "SHA-256": 44, "SHA-384": 64, "SHA-512": 88 };

/** Throws IntegrityError if the data's hash is another, or logs that with `onFailure` "warn". */
export async function verifyIntegrity(
  data: ArrayBuffer,
  expectedSRI: SRIString,
  url: string,
  onFailure: "error" | "warn" = "error",
): Promise<void> {
  const parts = parse(expectedSRI);
  if (!parts) {
    throw configError(
      `"${expectedSRI}" is no hash of ${url}; give "sha256-", "sha384-" or "sha512-" and base64`,
    );
  }
  if (!globalThis.crypto?.subtle) {
    throw configError(`${url} cannot be verified here: browsers hash on https and localhost only`);
  }
  const digest = new Uint8Array(await crypto.subtle.digest(parts.algorithm, data));
  const actual = parts.prefix + btoa(String.fromCharCode(...digest));
  if (actual === expectedSRI) return;
  const error = new IntegrityError(url, expectedSRI, actual);
  if (onFailure === "error") throw error;
  console.warn(error.message);
}

export function isValidSRI(sri: string): boolean {
  return parse(sri) !== undefined;
}

function parse(sri: string): { algorithm: string; prefix: string } | undefined {
  const [, bits, base64] = /^sha(256|384|512)-([A-Za-z0-9+/]+={0,2})$/.exec(sri) ?? [];
  const algorithm = `SHA-${bits}`;
  if (!base64 || base64.length !== LENGTHS[algorithm]) return undefined;
  return { algorithm, prefix: `sha${bits}-` };
}
