// Downloads that start before Python does. Their bodies are read ahead until Python takes over.

const AHEAD_BYTES = 256 * 2 ** 20; // held in memory at most

export class Prefetch {
  private readonly begun = new Map<string, Promise<Response>>();

  begin(url: URL): void {
    const response = fetch(url).then(readAhead);
    response.catch(() => {}); // `take` reports the error
    this.begun.set(url.href, response);
  }

  /** The response to a URL, as `fetch` would give it, once. */
  take(url: string): Promise<Response> | undefined {
    const { href } = new URL(url, location.href);
    const response = this.begun.get(href);
    this.begun.delete(href);
    return response;
  }
}

function readAhead(response: Response): Response {
  if (!response.body) return response;
  const queue = new ByteLengthQueuingStrategy({ highWaterMark: AHEAD_BYTES });
  const ahead = new TransformStream<Uint8Array, Uint8Array>(undefined, undefined, queue);
  return new Response(response.body.pipeThrough(ahead), response);
}
