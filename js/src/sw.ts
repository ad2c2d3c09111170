// The site's Service Worker: the site works offline, and its pages are isolated on any host, so that
// the CPU kernels have threads. Its first line, which the build writes, lists the site's files with
// their hashes, so that browsers notice a change of any of them. Models are not its work: requests
// for all that is not listed go past it.
//
// The first version on a machine is active at once and keeps files as they are fetched; a page asks
// for the others by {kind: "precache"}. A later version first fetches all that has changed, beside
// what the version before it keeps serving, and then waits: until all pages of the site are closed,
// or until its only page, just loaded, sends {kind: "skipWaiting"} (see page/site_worker.ts). So the
// files of two versions never mix in a page.

import "./service_worker"; // the engine, where the page's Home asks for it
import { isolated } from "./site/isolation";
import { Precache } from "./site/precache";
import type { FetchEvent, ScopeMessageEvent, SiteScope } from "./site/scope";

const MAX_EVENT_MS = 240_000; // Chrome ends a worker that has an event of five minutes
const PATIENCE_MS = 3000; // with the network, if there is a kept copy of the catalogue

const scope = self as unknown as SiteScope;
const network = scope.fetch.bind(scope);
const root = new URL("./", scope.location.href);
const catalogue = new URL("models.json", root);
const precache = new Precache(scope.webllmFiles ?? {}, root, network);

scope.addEventListener("install", (event) => event.waitUntil(install()));
scope.addEventListener("activate", (event) => event.waitUntil(activate()));
scope.addEventListener("fetch", answerFetch);
scope.addEventListener("message", receive);
// What runs in this worker fetches the site's files as its pages do.
scope.fetch = (input, init) => {
  const request = new Request(input, init);
  return answer(request) ?? network(request);
};

async function install(): Promise<void> {
  if (!scope.registration.active) return; // its first page would have to wait for its threads
  await reported(precache.fill(), "the new version of this site is not installed");
}

async function activate(): Promise<void> {
  if (!scope.registration.installing) await precache.prune(); // else a next version, which shares it
  await scope.clients.claim();
}

function answerFetch(event: FetchEvent): void {
  const response = answer(event.request);
  if (response) event.respondWith(response);
}

/** Returns undefined for a request that is none of this worker's business. */
function answer(request: Request): Promise<Response> | undefined {
  if (request.method !== "GET" || request.headers.has("range")) return undefined;
  if (precache.isDeleted) return undefined; // pages that are being given back
  const url = new URL(request.url);
  const path = precache.find(url);
  if (path !== undefined) return file(path, request);
  const isCatalogue = url.origin === root.origin && url.pathname === catalogue.pathname;
  return isCatalogue ? precache.newest(catalogue, PATIENCE_MS) : undefined;
}

/** A file that the host has not, or not as listed, comes as it would without this worker. */
async function file(path: string, request: Request): Promise<Response> {
  const response = await precache.get(path).catch(() => {
    if (request.mode === "navigate") void leaveIfGone();
    return network(request);
  });
  return isolated(response, request);
}

function receive(event: ScopeMessageEvent): void {
  const { kind } = (event.data ?? {}) as { kind?: unknown };
  const work = kind === "precache" ? keepAll : kind === "skipWaiting" ? skipWaiting : undefined;
  if (!work) return;
  const done = work().then((isDone) => event.ports[0]?.postMessage(isDone));
  const late = new Promise((resolve) => setTimeout(resolve, MAX_EVENT_MS));
  event.waitUntil(Promise.race([done, late])); // the next page asks for what is missing then
}

/** Asked by a page when it is loaded. Returns whether the site works offline from now on. */
async function keepAll(): Promise<boolean> {
  if (await leaveIfGone()) return false;
  const all = Promise.all([precache.fill(), precache.newest(catalogue, PATIENCE_MS)]);
  return reported(all, "this site does not work offline").then(
    () => true,
    () => false,
  );
}

/** Takes over unless other pages of the site are open, which may be about to fetch its old files. */
async function skipWaiting(): Promise<boolean> {
  const { scope: ours } = scope.registration;
  const pages = await scope.clients.matchAll({ type: "window", includeUncontrolled: true });
  const isAlone = pages.filter((page) => page.url.startsWith(ours)).length <= 1;
  if (isAlone) void scope.skipWaiting();
  return isAlone;
}

/**
 * Whether the host no longer has this script: another site may be served at this address, as often on
 * localhost, or this one without a worker.
 */
async function isGone(): Promise<boolean> {
  const { href } = scope.location;
  const response = await network(href, { method: "HEAD", cache: "no-store" }).catch(() => null);
  if (!response || response.status === 404 || response.status === 410) return response !== null;
  return response.ok && !/javascript/.test(response.headers.get("content-type") ?? "");
}

/**
 * Gives the site's pages back to a host that no longer has this script; returns whether it did. The
 * browser may stop a worker that is not registered any more, and never starts it again.
 */
async function leaveIfGone(): Promise<boolean> {
  if (!(await isGone())) return false;
  await precache.delete();
  await scope.registration.unregister();
  const pages = await scope.clients.matchAll({ type: "window" });
  await Promise.all(pages.map((page) => page.navigate(page.url)));
  return true;
}

async function reported(work: Promise<unknown>, failure: string): Promise<void> {
  try {
    await work;
  } catch (error) {
    console.error(`${failure}: ${String(error)}`);
    throw error;
  }
}
