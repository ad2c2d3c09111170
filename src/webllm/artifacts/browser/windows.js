// Reads a file in windows, and computes their checksums.

export const WINDOW_BYTES = 2 << 20; // small, because browsers free memory late
export const SUM_DIGITS = 16;
const NUM_RECENT = 4; // windows: tensors are read in nearly, but not exactly, the order of the file
const NUM_GATHERED = 32;
const PAGE_BYTES = 65536; // of WebAssembly's memory

/** @typedef {Uint8Array<ArrayBuffer>} Bytes */

/**
 * A file that is read in windows, the next one ahead: a read is a round trip through the browser's
 * processes, which takes as long for a kilobyte as for a megabyte.
 */
export class WindowedFile {
  /** @type {Map<number, Promise<Bytes>>} */
  #recent = new Map(); // by index, least recently used first
  /** @type {Map<number, Promise<Bytes>>} */
  #gathered = new Map();
  #load;

  /**
   * `load` reads one window.
   * @param {number} size
   * @param {(start: number, end: number) => Promise<Bytes>} load
   */
  constructor(size, load) {
    this.size = size;
    this.#load = load;
  }

  /**
   * Returns bytes `start` to `end`, as a view if they lie in one window. Throws what `load` throws,
   * once nothing is being read any more.
   * @param {number} start @param {number} end
   */
  async read(start, end) {
    const windows = windowsOf(start, end).map((index) => this.#window(index));
    const next = Math.ceil(end / WINDOW_BYTES);
    if (next * WINDOW_BYTES < this.size) this.#window(next);
    const found = await this.#all(windows);
    for (const index of this.#recent.keys()) {
      if (this.#recent.size > NUM_RECENT) this.#recent.delete(index);
    }
    return joined(found, start % WINDOW_BYTES, end - start);
  }

  /**
   * Returns copies of small ranges from all over the file. Only whole windows can be verified, so
   * theirs are read, and some are kept for later calls of `read`: by default up to 64 MiB.
   * @param {[number, number][]} ranges start, end
   * @param {number} [numKept] windows
   */
  async gather(ranges, numKept = NUM_GATHERED) {
    const needed = new Set(ranges.flatMap(([start, end]) => windowsOf(start, end)));
    for (const index of [...needed].slice(0, numKept)) {
      this.#gathered.set(index, this.#recent.get(index) ?? this.#begin(index));
    }
    const found = [];
    for (const [start, end] of ranges) {
      const windows = windowsOf(start, end).map(
        (index) => this.#gathered.get(index) ?? this.#window(index),
      );
      found.push(joined(await this.#all(windows), start % WINDOW_BYTES, end - start).slice());
    }
    return found;
  }

  /** Frees the windows of earlier calls of `read`. */
  forget() {
    this.#recent.clear();
  }

  /** @param {number} index */
  #window(index) {
    const window = this.#recent.get(index) ?? this.#gathered.get(index) ?? this.#begin(index);
    this.#gathered.delete(index);
    this.#recent.delete(index);
    this.#recent.set(index, window);
    return window;
  }

  /** @param {number} index */
  #begin(index) {
    const start = index * WINDOW_BYTES;
    const window = this.#load(start, Math.min(start + WINDOW_BYTES, this.size));
    window.catch(() => {}); // `#all` reports it, if anybody asks for this window
    return window;
  }

  /** @param {Promise<Bytes>[]} windows */
  async #all(windows) {
    try {
      return await Promise.all(windows);
    } catch (error) {
      await Promise.allSettled([...this.#recent.values(), ...this.#gathered.values()]);
      throw error;
    }
  }
}

/**
 * Returns the indices of the windows with bytes `start` to `end`.
 * @param {number} start @param {number} end
 */
export function windowsOf(start, end) {
  const first = Math.floor(start / WINDOW_BYTES);
  const length = Math.ceil(end / WINDOW_BYTES) - first;
  return Array.from({ length }, (_, index) => first + index);
}

/**
 * Returns `size` bytes of adjacent windows, from `offset` in the first one.
 * @param {Bytes[]} windows @param {number} offset @param {number} size
 */
function joined(windows, offset, size) {
  const [first, ...others] = windows;
  if (first && others.length === 0) return first.subarray(offset, offset + size);
  const whole = new Uint8Array(size);
  let filled = 0;
  for (const window of windows) {
    const piece = window.subarray(offset, offset + size - filled);
    whole.set(piece, filled);
    filled += piece.length;
    offset = 0;
  }
  return whole;
}

/**
 * Returns a part of a Blob.
 * @param {Blob} blob @param {number} start @param {number} end
 * @returns {Promise<Bytes>}
 */
export async function bytesOf(blob, start, end) {
  return new Uint8Array(await blob.slice(start, end).arrayBuffer());
}

/** Computes XXH64 by the WebAssembly of checksum.c. */
export class Checksum {
  #xxh64;
  #address;
  #window;

  /** @param {WebAssembly.Exports} exports */
  constructor(exports) {
    const { memory, __heap_base, xxh64 } = /** @type {any} */ (exports);
    memory.grow(WINDOW_BYTES / PAGE_BYTES);
    this.#xxh64 = /** @type {(address: number, numBytes: number) => bigint} */ (xxh64);
    this.#address = /** @type {number} */ (__heap_base.value);
    this.#window = new Uint8Array(memory.buffer, this.#address, WINDOW_BYTES);
  }

  /** @param {Bytes} wasm */
  static async load(wasm) {
    return new Checksum((await WebAssembly.instantiate(wasm)).instance.exports);
  }

  /**
   * Returns the checksums of the windows of bytes that come in chunks, SUM_DIGITS for each.
   * @param {Bytes[]} chunks
   */
  of(chunks) {
    let sums = "";
    let filled = 0;
    for (let rest of chunks) {
      while (rest.length > 0) {
        const piece = rest.subarray(0, WINDOW_BYTES - filled);
        this.#window.set(piece, filled);
        filled += piece.length;
        rest = rest.subarray(piece.length);
        if (filled < WINDOW_BYTES) continue;
        sums += this.#sum(filled);
        filled = 0;
      }
    }
    return filled > 0 ? sums + this.#sum(filled) : sums;
  }

  /** @param {number} numBytes */
  #sum(numBytes) {
    return hex(this.#xxh64(this.#address, numBytes));
  }
}

/**
 * Returns the digits of a number of 64 bits.
 * @param {bigint} value
 */
export function hex(value) {
  return BigInt.asUintN(64, value).toString(16).padStart(SUM_DIGITS, "0");
}
