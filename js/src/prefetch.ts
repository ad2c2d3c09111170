// Starts downloads before Python runs, and buffers their bodies until Python takes them over.

const MAX_BUFFERED_BYTES = 256 * 2 ** 20; // of each download

interface Download {
  response: Promise<Response>;
  abort: AbortController;
}

export class Prefetch {
  private readonly downloads = new Map<string, Download>(); // by URL

  begin(url: URL): void {
    const abort = new AbortController();
    const response = fetch(url, { signal: abort.signal }).then(buffered);
    response.catch(() => {}); // `take` reports the error
    this.downloads.set(url.href, { response, abort });
  }

  /** Ends every download that was not taken. */
  stop(): void {
    for (const { abort } of this.downloads.values()) abort.abort();
    this.downloads.clear();
  }

  /** Returns the response to a URL, once; undefined if its download was not begun or is taken. */
  take(url: string): Promise<Response> | undefined {
    const { href } = new URL(url, location.href);
    const download = this.downloads.get(href);
    this.downloads.delete(href);
    return download?.response;
  }
}

/** Returns the same response, whose body is read at once, up to a limit. */
function buffered(response: Response): Response {
  if (!response.body) return response;
  const queue = new ByteLengthQueuingStrategy({ highWaterMark: MAX_BUFFERED_BYTES });
  const buffer = new TransformStream<Uint8Array, Uint8Array>(undefined, undefined, queue);
  return new Response(response.body.pipeThrough(buffer), response);
}
