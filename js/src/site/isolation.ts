// The headers that isolate a page from other origins, which it needs for threads, for hosts that
// cannot send them. Those that the host sends stay.

const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};
const CONTEXTS: ReadonlySet<string> = new Set(["document", "worker", "sharedworker"]);

/** The response to a request of the site, with these headers if it starts a page or a worker. */
export function isolated(response: Response, { destination }: Request): Response {
  const missing = Object.entries(HEADERS).filter(([name]) => !response.headers.has(name));
  if (!CONTEXTS.has(destination) || !missing.length || !response.ok) return response;
  const { status, statusText } = response;
  const headers = new Headers(response.headers);
  for (const [name, value] of missing) headers.set(name, value);
  return new Response(response.body, { status, statusText, headers });
}
