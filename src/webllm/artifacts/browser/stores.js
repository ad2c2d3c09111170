// Model files in the browser's stores, for pages and for Python. The wheel carries these plain
// modules: pages import them, and Python does as `webllm_stores`. The type checker of js/ covers
// them. They raise StoreErrors, each with the name of one of our error classes.
//
//     <name>.note                 JSON: URL, size, version, and the SHA-256 once the file is whole
//     <name>.00000.<checksums>    its parts, which all have PART_BYTES, except for the last one
//     <name>.set                  JSON: the files of a source of several, as manifest.py writes it
//
// A part's checksums are in its key, so that both are stored in one step and listing the keys finds
// them. The name is the file's SHA-256 if that is known, else a hash of its URL; the note tells two
// URLs of one hash apart. In a set a file's "URL" is "<file> of <source>": sets share no files.

import { StoreError, storeError, UNSTORED } from "./blobs.js";
import { Lock } from "./locks.js";
import { bytesOf, hex, SUM_DIGITS, WindowedFile, windowsOf } from "./windows.js";

export * from "./blobs.js";
export * from "./journal.js";
export * from "./locks.js";
export * from "./windows.js";

const PART_BYTES = 4 << 20; // stored, and fetched again, as one
const OVERHEAD_BYTES = 1 << 20; // of a store: keys, tables

/** @typedef {import("./blobs.js").Blobs} Blobs */
/** @typedef {import("./windows.js").Bytes} Bytes */
/** @typedef {import("./windows.js").Checksum} Checksum */
/** @typedef {{ size: number | null, etag: string | null, last_modified: string | null }} Version */
/** @typedef {Version & { url: string, part_bytes: number, sha256: string | null }} Note */

/**
 * One model file in a store: whole, incomplete or absent. `recover` to `drop` make it the
 * `Destination` of a download, see destination.py; the downloader holds the lock.
 */
export class ModelFile {
  partBytes = PART_BYTES;
  #blobs;
  #url;
  #name;
  #checksum;
  #size = 0; // of the download
  /** @type {Map<number, string>} */
  #stored = new Map(); // checksums of the download's parts, by their numbers

  /**
   * Without a `checksum` it can only be looked up and deleted.
   * @param {Blobs} blobs
   * @param {string} url
   * @param {string | null} [sha256] in hex
   * @param {Checksum} [checksum]
   */
  constructor(blobs, url, sha256, checksum) {
    this.#blobs = blobs;
    this.#url = url;
    this.#name = sha256 ? `sha256-${sha256.toLowerCase()}` : `url-${fnv1a(url)}`;
    this.#checksum = /** @type {Checksum} */ (checksum);
  }

  /**
   * Returns whether all of the file is stored.
   * @param {string[]} [keys] of the store, if they are known: to list them takes time
   */
  async has(keys) {
    return (await this.#whole(keys)) !== undefined;
  }

  /**
   * Opens the file; undefined unless all of it is stored. Its `read` throws IntegrityError for a part
   * that is damaged or missing, and deletes it.
   * @param {string[]} [keys] as in `has`
   */
  async find(keys) {
    const whole = await this.#whole(keys);
    if (!whole) return undefined;
    const { size, sha256, parts } = whole;
    const opened = new Map();
    const file = new WindowedFile(size, (start, end) => this.#read(parts, start, end, opened));
    return { file, sha256 };
  }

  /** Deletes the file and any part of it. Throws ArtifactError while it is being downloaded. */
  async delete() {
    const lock = this.lock(true);
    try {
      if (!(await lock.granted)) throw isDownloaded(this.#url);
      await this.drop();
    } finally {
      await lock.release();
    }
  }

  /** @param {boolean} ifFree */
  lock(ifFree) {
    return new Lock(this.#blobs.isKept ? `webllm ${this.#name}` : undefined, ifFree);
  }

  async recover() {
    const note = await this.#note();
    if (!note || note.size === null) return undefined;
    this.#size = note.size;
    this.#stored = await this.#parts();
    const { size, etag, last_modified } = note;
    return { size, etag, last_modified, parts: [...this.#stored.keys()] };
  }

  /** @param {Version} version */
  async restart(version) {
    await this.drop();
    this.#size = version.size ?? 0;
    this.#stored = new Map();
    await this.keep(version, null);
  }

  /**
   * Without an estimate (Safari before 17) it returns; `put` then throws if the space is used up.
   * @param {number} numBytes
   */
  async requireSpace(numBytes) {
    if (!this.#blobs.isKept) return;
    const estimate = await navigator.storage?.estimate?.().catch(() => undefined);
    const { quota = Infinity, usage = 0 } = estimate ?? {};
    if (numBytes + OVERHEAD_BYTES <= quota - usage) return;
    await this.#free();
    const [more, all, used] = [numBytes, quota, usage].map((bytes) => (bytes / 1e6).toFixed());
    throw new StoreError(
      "StorageFullError",
      `${this.#url} needs ${more} MB more, but the browser lets this site store ${all} MB, of ` +
        `which ${used} MB are used; delete a model, choose a smaller one, or ${UNSTORED}`,
    );
  }

  /** @param {number} part @param {Bytes[]} chunks */
  async put(part, chunks) {
    const sums = this.#checksum.of(chunks);
    const before = this.#stored.get(part);
    await this.#put(this.#key(part, sums), new Blob(chunks));
    this.#stored.set(part, sums);
    if (before && before !== sums) await this.#blobs.delete(this.#key(part, before));
  }

  /**
   * Returns a part of the download; undefined if it is damaged or missing.
   * @param {number} part
   */
  async read(part) {
    const start = part * PART_BYTES;
    const end = Math.min(start + PART_BYTES, this.#size);
    try {
      return await this.#read(this.#stored, start, end, new Map());
    } catch (error) {
      if (storeError(error).name === "IntegrityError") return undefined;
      throw error;
    }
  }

  /** @param {Version} version @param {string | null} sha256 */
  async keep({ size, etag, last_modified }, sha256) {
    const note = { url: this.#url, size, part_bytes: PART_BYTES, sha256, etag, last_modified };
    await this.#put(`${this.#name}.note`, new Blob([JSON.stringify(note)]));
  }

  async drop() {
    await this.#blobs.delete(`${this.#name}.note`); // first: without it the parts do not count
    for (const key of await this.#blobs.keys(`${this.#name}.`)) await this.#blobs.delete(key);
  }

  /**
   * Drops the download if the store is full: a site has no other way to free the space.
   * @param {string} key @param {Blob} blob
   */
  async #put(key, blob) {
    try {
      await this.#blobs.put(key, blob);
    } catch (error) {
      if (storeError(error).name === "StorageFullError") await this.#free();
      throw error;
    }
  }

  /** Drops the download, because space ran out: that error is to be reported, no other. */
  async #free() {
    await this.drop().catch(() => {});
  }

  /** @param {number} part @param {string} sums */
  #key(part, sums) {
    return `${this.#name}.${String(part).padStart(5, "0")}.${sums}`;
  }

  /**
   * Returns the note; undefined if it is absent, damaged, or being replaced by another tab.
   * @returns {Promise<Note | undefined>}
   */
  async #note() {
    const blob = await this.#blobs.get(`${this.#name}.note`);
    try {
      const note = JSON.parse((await blob?.text()) ?? "null");
      const isOurs = note.url === this.#url || this.#name.startsWith("sha256-");
      const hasSize = note.size === null || (Number.isSafeInteger(note.size) && note.size >= 0);
      if (!isOurs || !hasSize || note.part_bytes !== PART_BYTES) return undefined;
      return { ...note, etag: textOf(note.etag), last_modified: textOf(note.last_modified) };
    } catch {
      return undefined;
    }
  }

  /**
   * Returns the checksums of all parts that are stored, by their numbers.
   * @param {string[]} [keys] as in `has`
   */
  async #parts(keys) {
    /** @type {Map<number, string>} */
    const parts = new Map();
    for (const key of keys ?? (await this.#blobs.keys(`${this.#name}.`))) {
      if (!key.startsWith(this.#name)) continue;
      const [, part, sums] = /^\.(\d{5,})\.([0-9a-f]+)$/.exec(key.slice(this.#name.length)) ?? [];
      if (part && sums) parts.set(Number(part), sums);
    }
    return parts;
  }

  /**
   * Returns the size, hash and parts; undefined unless all of the file is stored.
   * @param {string[]} [keys] as in `has`
   */
  async #whole(keys) {
    const { size, sha256 } = (await this.#note()) ?? {};
    if (typeof size !== "number" || typeof sha256 !== "string") return undefined;
    const parts = await this.#parts(keys);
    for (let start = 0; start < size; start += PART_BYTES) {
      const { length } = windowsOf(start, Math.min(start + PART_BYTES, size));
      if (parts.get(start / PART_BYTES)?.length !== SUM_DIGITS * length) return undefined;
    }
    return { size, sha256, parts };
  }

  /**
   * Returns whole windows of one part, verified. If they are damaged or missing, deletes the part and
   * throws IntegrityError.
   * @param {Map<number, string>} parts
   * @param {number} start
   * @param {number} end
   * @param {Map<number, Promise<Blob | undefined>>} opened Blobs by part
   */
  async #read(parts, start, end, opened) {
    const part = Math.floor(start / PART_BYTES);
    const key = this.#key(part, parts.get(part) ?? "");
    const blob = opened.get(part) ?? this.#blobs.get(key);
    opened.set(part, blob);
    const [from, to] = [start % PART_BYTES, end - part * PART_BYTES];
    const [first = 0] = windowsOf(from, to);
    const bytes = await readable(await blob, from, to);
    const expected = parts.get(part)?.slice(SUM_DIGITS * first) ?? "none";
    if (bytes?.length === end - start && expected.startsWith(this.#checksum.of([bytes]))) {
      return bytes;
    }
    opened.delete(part);
    if (parts.delete(part)) await this.#blobs.delete(key);
    const message = `part ${part} of ${this.#url} is damaged or missing in the browser's store`;
    throw new StoreError("IntegrityError", message);
  }
}

/** A source of several files in a store, of which each is a ModelFile. */
export class ModelSet {
  #blobs;
  #source;
  #name;

  /** @param {Blobs} blobs @param {string} source as Python writes it */
  constructor(blobs, source) {
    this.#blobs = blobs;
    this.#source = source;
    this.#name = `set-${fnv1a(source)}`;
  }

  /** Returns the JSON of its files; undefined if it is not known which they are. */
  async manifest() {
    const text = await (await this.#blobs.get(`${this.#name}.set`))?.text();
    return filesOf(text, this.#source) && text;
  }

  /** Enters the files, before the first of them is stored. @param {string} manifest */
  async keep(manifest) {
    await this.#blobs.put(`${this.#name}.set`, new Blob([manifest]));
  }

  /** Returns whether all files are stored, whole. */
  async has() {
    const files = await this.#files();
    if (!files) return false;
    const keys = await this.keys();
    const found = await Promise.all(files.map((file) => file.has(keys)));
    return found.every(Boolean);
  }

  /** Returns the keys of the store, for `find` of many files. */
  async keys() {
    return this.#blobs.keys("");
  }

  /** Deletes all files and any part of them. Throws ArtifactError while it is being downloaded. */
  async delete() {
    const lock = this.lock(true);
    try {
      if (!(await lock.granted)) throw isDownloaded(this.#source);
      for (const file of (await this.#files()) ?? []) await file.delete();
      await this.#blobs.delete(`${this.#name}.set`); // last: without it nothing finds the files
    } finally {
      await lock.release();
    }
  }

  /** @param {boolean} ifFree */
  lock(ifFree) {
    return new Lock(this.#blobs.isKept ? `webllm ${this.#name}` : undefined, ifFree);
  }

  async #files() {
    const files = filesOf(await this.manifest(), this.#source);
    return files?.map(({ name }) => new ModelFile(this.#blobs, memberOf(name, this.#source)));
  }
}

/**
 * Returns the key of a file in a set.
 * @param {string} name @param {string} source
 */
function memberOf(name, source) {
  return `${name} of ${source}`;
}

/** @param {string} what */
function isDownloaded(what) {
  const message = `${what} is being downloaded; stop that, then delete it`;
  return new StoreError("ArtifactError", message);
}

/**
 * Returns the files that a manifest lists; undefined if it is absent, damaged or another source's.
 * @param {string | undefined} manifest @param {string} source
 * @returns {{ name: string }[] | undefined}
 */
function filesOf(manifest, source) {
  try {
    const { source: its, files } = JSON.parse(manifest ?? "null");
    const isWhole = Array.isArray(files) && files.every(({ name }) => typeof name === "string");
    return its === source && isWhole ? files : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Returns a part of a Blob; undefined if there is none, or none that can be read any more.
 * @param {Blob | undefined} blob @param {number} start @param {number} end
 */
async function readable(blob, start, end) {
  try {
    return blob && (await bytesOf(blob, start, end));
  } catch {
    return undefined;
  }
}

/** @param {unknown} value */
function textOf(value) {
  return typeof value === "string" ? value : null;
}

/**
 * Returns a hash of 64 bits in hex, FNV-1a: pages without https have no crypto.subtle.
 * @param {string} text
 */
function fnv1a(text) {
  let hash = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(text)) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  }
  return hex(hash);
}

const CHANNEL = "webllm-picked";

/**
 * Offers files that the user picked, of one model, to all workers of this site, which read them in
 * place while this page is open. Returns their source: "picked:<id>/<name of the first>".
 * @param {File | FileSystemFileHandle | readonly (File | FileSystemFileHandle)[]} picked
 */
export async function offerFiles(picked) {
  const each = Array.isArray(picked) ? picked : [picked];
  /** @type {File[]} */
  const files = await Promise.all(each.map((one) => ("getFile" in one ? one.getFile() : one)));
  if (!files[0]) throw new StoreError("ConfigError", "no file was picked; pick one or several");
  const random = crypto.getRandomValues(new Uint8Array(16)); // randomUUID needs https
  const id = Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const channel = new BroadcastChannel(CHANNEL);
  channel.onmessage = ({ data }) => {
    if (data.want === id) channel.postMessage({ id, files });
  };
  return `picked:${id}/${files[0].name}`;
}

/**
 * Opens the files of a source from `offerFiles`, by their names. Throws ModelNotFoundError if its
 * page was closed.
 * @param {string} source
 * @param {number} [timeoutMs] a busy page may take seconds to answer
 * @returns {Promise<[string, WindowedFile][]>}
 */
export async function openPicked(source, timeoutMs = 10_000) {
  const id = source.slice("picked:".length).split("/")[0];
  const channel = new BroadcastChannel(CHANNEL);
  try {
    /** @type {File[]} */
    const files = await new Promise((resolve, reject) => {
      channel.onmessage = ({ data }) => data.id === id && resolve(data.files);
      const message = `${source} is no longer open in any page of this site; pick the file again`;
      setTimeout(() => reject(new StoreError("ModelNotFoundError", message)), timeoutMs);
      channel.postMessage({ want: id });
    });
    return files.map((file) => {
      const read = (/** @type {number} */ start, /** @type {number} */ end) =>
        bytesOf(file, start, end);
      return [file.name, new WindowedFile(file.size, read)];
    });
  } finally {
    channel.close();
  }
}
