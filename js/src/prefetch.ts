// Starts downloads before Python runs, and buffers their bodies until Python takes them over.

const MAX_BUFFERED_BYTES = 256 * 2 ** 20; // of each download

export class Prefetch {
  private readonly responses = new Map<string, Promise<Response>>(); // by URL

  begin(url: URL): void {
    const response = fetch(url).then(buffered);
    response.catch(() => {}); // `take` reports the error
    this.responses.set(url.href, response);
  }

  /** Returns the response to a URL, once; undefined if its download was not begun or is taken. */
  take(url: string): Promise<Response> | undefined {
    const { href } = new URL(url, location.href);
    const response = this.responses.get(href);
    this.responses.delete(href);
    return response;
  }
}

/** Returns the same response, whose body is read at once, up to a limit. */
function buffered(response: Response): Response {
  if (!response.body) return response;
  const queue = new ByteLengthQueuingStrategy({ highWaterMark: MAX_BUFFERED_BYTES });
  const buffer = new TransformStream<Uint8Array, Uint8Array>(undefined, undefined, queue);
  return new Response(response.body.pipeThrough(buffer), response);
}
