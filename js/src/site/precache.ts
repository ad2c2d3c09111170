// The site's own files, kept by path and SHA-256 in one cache that all versions of the worker share:
// a new version fetches only what has changed. Knows nothing of models.

type Files = Readonly<Record<string, string>>; // SHA-256 in hex, by path relative to the site

// A body is kept decoded, and is the same for everybody.
const LEFT_OUT = ["content-encoding", "content-length", "transfer-encoding", "vary"];

export class Precache {
  private readonly name: string;
  private readonly downloads = new Map<string, Promise<Response>>(); // under way, by path
  isDeleted = false;

  constructor(
    private readonly files: Files,
    private readonly root: URL,
    private readonly network: typeof fetch,
  ) {
    this.name = `webllm-site ${root.pathname}`;
  }

  /** Returns the path of the file at an address, whatever its query; undefined if it is not listed. */
  find(url: URL): string | undefined {
    if (url.origin !== this.root.origin || !url.pathname.startsWith(this.root.pathname)) return;
    const path = url.pathname.slice(this.root.pathname.length) || "index.html";
    return Object.hasOwn(this.files, path) ? path : undefined;
  }

  /** Returns a listed file; fetches and keeps it if necessary. Throws if it is not as listed. */
  async get(path: string): Promise<Response> {
    const cache = await this.cache();
    return (await cache.match(this.key(path))) ?? this.download(path);
  }

  /** Fetches all that is missing, one after another. Throws what `get` throws. */
  async fill(): Promise<void> {
    const kept = await this.keptUrls();
    for (const path of Object.keys(this.files)) {
      if (!kept.has(this.key(path))) await this.download(path);
    }
  }

  /** Deletes the files of other versions. */
  async prune(): Promise<void> {
    const listed = new Set(Object.keys(this.files).map((path) => this.key(path)));
    const cache = await this.cache();
    for (const url of await this.keptUrls()) {
      if (!listed.has(url) && url.includes(HASH)) await cache.delete(url);
    }
  }

  /** Returns a file that is not listed, from the network if that answers soon, else as it was kept. */
  async newest(url: URL, patienceMs: number): Promise<Response> {
    const cache = await this.cache();
    const fetched = this.network(url, { cache: "no-cache" }).then(async (response) => {
      if (response.ok) await cache.put(url, stored(await response.clone().blob(), response));
      return response;
    });
    fetched.catch(() => {});
    const kept = await cache.match(url);
    if (!kept) return fetched;
    const late = new Promise<void>((resolve) => setTimeout(resolve, patienceMs));
    const response = await Promise.race([fetched.catch(() => {}), late]);
    return response && response.status < 500 ? response : kept;
  }

  /** Deletes all files; from now on nothing is kept, and all else throws. */
  async delete(): Promise<void> {
    this.isDeleted = true;
    await caches.delete(this.name);
  }

  private async cache(): Promise<Cache> {
    if (this.isDeleted) throw new Error(`the cache "${this.name}" is deleted`);
    return caches.open(this.name);
  }

  private async keptUrls(): Promise<Set<string>> {
    const cache = await this.cache();
    return new Set((await cache.keys()).map((request) => request.url));
  }

  private key(path: string): string {
    return new URL(`${path}${HASH}${this.files[path]}`, this.root).href;
  }

  private async download(path: string): Promise<Response> {
    let download = this.downloads.get(path);
    if (!download) {
      download = this.fetchAndKeep(path).finally(() => this.downloads.delete(path));
      this.downloads.set(path, download);
    }
    return (await download).clone();
  }

  private async fetchAndKeep(path: string): Promise<Response> {
    // The browser may have an older file, which the host takes for this one: both have one date.
    const file = await this.fetched(path, "no-cache").catch(() => this.fetched(path, "reload"));
    await (await this.cache()).put(this.key(path), file.clone());
    return file;
  }

  private async fetched(path: string, cache: RequestCache): Promise<Response> {
    const url = new URL(path, this.root).href;
    const response = await this.network(url, { cache });
    if (!response.ok) throw new Error(`${url} cannot be fetched: ${response.status}`);
    const bytes = await response.arrayBuffer();
    const hash = await sha256(bytes);
    if (hash === this.files[path]) return stored(bytes, response);
    throw new Error(`${url} has the SHA-256 ${hash}, expected ${this.files[path]}`);
  }
}

const HASH = "?sha256=";

function stored(body: BodyInit, { headers: given }: Response): Response {
  const headers = new Headers(given);
  for (const name of LEFT_OUT) headers.delete(name);
  return new Response(body, { headers });
}

async function sha256(bytes: ArrayBuffer): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
