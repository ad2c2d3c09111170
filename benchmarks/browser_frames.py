"""Measures a page's frames in Chromium while an engine reads a prompt and writes an answer.

    make site && python benchmarks/browser_frames.py MODEL.gguf [--hosts service-worker,worker]
    python benchmarks/browser_frames.py MODEL.gguf --site before=FOLDER --site after=js/dist

The page draws on each animation frame, by WebGPU (`--draw`). Measured are

    frame    from one animation frame to the next
    draw     from a frame's submission until the GPU has finished it
    wait     until the engine's own queue is empty, asked every 16 ms: how long a draw would wait on
             a GPU that runs the work of all in the order in which it comes

in each phase: idle; "first prompt", which also compiles kernels; "prefill" of later prompts, which
share no prefix; "decode" after each prompt. Sites (builds of js/dist) and hosts (the site's Service
Worker, a Web Worker of the page) take turns with every prompt. Frames of an idle page are 16.7 ms
long: if they are not, this browser does not draw as one with a screen does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import threading
from collections import defaultdict
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from playwright.async_api import BrowserContext, Page, async_playwright
from results import Figures, add_save_option, save

if TYPE_CHECKING:
    from collections.abc import Iterator

SITE = Path(__file__).parents[1] / "js" / "dist"
HOSTS = ("service-worker", "worker")
DRAWS = ("webgpu", "webgpu-hidden", "webgl")
LONG_MS = 50
IDLE_S = 3
FLAGS = ["--no-sandbox", "--no-first-run", "--disable-background-networking", "--disable-sync"]
SWIFTSHADER = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]
PHASES = ("idle", "first prompt", "prefill", "decode")
PAGE = """<!doctype html>
<meta charset="utf-8" />
<link rel="icon" href="data:," />
<canvas width="1024" height="1024"></canvas>
<script type="module" src="/frames.js"></script>
"""
QUEUE = """
const channel = new BroadcastChannel("queue");
const { requestDevice } = GPUAdapter.prototype;

GPUAdapter.prototype.requestDevice = async function (options) {
  const device = await requestDevice.call(this, options);
  setInterval(async () => {
    const begun = performance.timeOrigin + performance.now();
    await device.queue.onSubmittedWorkDone();
    channel.postMessage([begun, performance.timeOrigin + performance.now()]);
  }, 16);
  return device;
};
"""
SCRIPT = """
import { CreateServiceWorkerMLCEngine, CreateWebWorkerMLCEngine } from "/client.js";

const SHADER = `
@group(0) @binding(0) var<uniform> angle: f32;
@vertex fn corner(@builtin(vertex_index) i: u32, @builtin(instance_index) j: u32)
    -> @builtin(position) vec4f {
  let a = angle + f32(j) * 0.1 + f32(i) * 2.1;
  return vec4f(cos(a) * 0.9, sin(a) * 0.9, 0, 1);
}
@fragment fn color() -> @location(0) vec4f { return vec4f(0.2, 0.5, 0.9, 0.1); }
`;
const VERTEX = `#version 300 es
uniform float angle;
void main() {
  float a = angle + float(gl_InstanceID) * 0.1 + float(gl_VertexID) * 2.1;
  gl_Position = vec4(cos(a) * 0.9, sin(a) * 0.9, 0, 1);
}`;
const FRAGMENT = `#version 300 es
precision mediump float;
out vec4 color;
void main() { color = vec4(0.2, 0.5, 0.9, 0.1); }`;
let engine, draw, hasQueue;

const waits = [];
new BroadcastChannel("queue").onmessage = ({ data }) => {
  waits.push(data.map((time) => time - performance.timeOrigin));
};

async function openWebGPU(isShown) {
  const adapter = await navigator.gpu.requestAdapter();
  const device = await adapter.requestDevice();
  void device.lost.then(({ reason, message }) => {
    throw new Error(`the page lost its GPU: ${reason} ${message}`);
  });
  const format = navigator.gpu.getPreferredCanvasFormat();
  const size = [1024, 1024];
  const context = isShown ? document.querySelector("canvas").getContext("webgpu") : undefined;
  context?.configure({ device, format });
  const hidden = device.createTexture({ size, format, usage: GPUTextureUsage.RENDER_ATTACHMENT });
  const module = device.createShaderModule({ code: SHADER });
  const pipeline = device.createRenderPipeline({
    layout: "auto", vertex: { module }, fragment: { module, targets: [{ format }] },
  });
  const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST;
  const buffer = device.createBuffer({ size: 16, usage });
  const layout = pipeline.getBindGroupLayout(0);
  const entries = [{ binding: 0, resource: { buffer } }];
  const group = device.createBindGroup({ layout, entries });
  const { vendor, architecture, description } = adapter.info;
  return [`WebGPU, ${vendor} ${architecture} ${description}`, (time) => {
    device.queue.writeBuffer(buffer, 0, new Float32Array([time / 1000]));
    const encoder = device.createCommandEncoder();
    const view = (context?.getCurrentTexture() ?? hidden).createView();
    const pass = encoder.beginRenderPass({
      colorAttachments: [{ view, loadOp: "clear", storeOp: "store" }],
    });
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.draw(3, 64);
    pass.end();
    device.queue.submit([encoder.finish()]);
    return device.queue.onSubmittedWorkDone();
  }];
}

function openWebGL() {
  const gl = document.querySelector("canvas").getContext("webgl2");
  const named = gl.getExtension("WEBGL_debug_renderer_info").UNMASKED_RENDERER_WEBGL;
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  gl.useProgram(program);
  const angle = gl.getUniformLocation(program, "angle");
  return [`WebGL, ${gl.getParameter(named)}`, async (time) => {
    gl.uniform1f(angle, time / 1000);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.drawArraysInstanced(gl.TRIANGLES, 0, 3, 64);
    const fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
    while (gl.getSyncParameter(fence, gl.SYNC_STATUS) !== gl.SIGNALED) await turn();
    gl.deleteSync(fence);
  }];
}

const { port1, port2 } = new MessageChannel();
const turns = [];
port2.onmessage = () => turns.shift()();

/** The end of this turn of the event loop: timers are rounded up to 4 ms. */
function turn() {
  port1.postMessage(undefined);
  return new Promise((resolve) => turns.push(resolve));
}

const open = {
  webgpu: () => openWebGPU(true),
  "webgpu-hidden": () => openWebGPU(false),
  webgl: async () => openWebGL(),
};

window.load = async ([host, kind]) => {
  const appConfig = { model_list: [{ model: "/model.gguf", model_id: "model" }] };
  if (host === "worker") {
    const worker = new Worker("/frames_worker.js", { type: "module" });
    engine = await CreateWebWorkerMLCEngine(worker, "model", { appConfig });
  } else {
    await navigator.serviceWorker.register("/frames_service_worker.js", { type: "module" });
    engine = await CreateServiceWorkerMLCEngine("model", { appConfig, host, root: "/" });
  }
  let drawn;
  [drawn, draw] = await open[kind]();
  const device = await engine.getDeviceName();
  hasQueue = device.includes("WebGPU");
  return `engine on ${device}, page on ${drawn}`;
};

// Draws until `work` has ended. Returns its spans; each frame's begin and the end of its draw; and
// begins and ends of waits in the engine's queue.
async function watch(work) {
  waits.length = 0;
  const frames = [], draws = [];
  let isOver = false, requested;
  const onFrame = () => {
    const frame = [performance.now(), undefined];
    frames.push(frame);
    draws.push(draw(frame[0]).then(() => (frame[1] = performance.now())));
    draws.at(-1).catch(() => {}); // the last line reports it
    if (!isOver) requested = new Promise((resolve) => requestAnimationFrame((time) => {
      onFrame(time);
      resolve();
    }));
  };
  onFrame();
  for (let i = 0; i < 30; i++) await requested;
  const spans = await work();
  isOver = true;
  await requested;
  await Promise.all(draws);
  while (hasQueue && !waits.some(([begun]) => begun > spans.ended)) await turn();
  return { ...spans, frames, waits };
}

window.idle = (ms) => watch(async () => {
  const begun = performance.now();
  await new Promise((resolve) => setTimeout(resolve, ms));
  return { begun, first: performance.now(), ended: performance.now() };
});

window.answer = (prompt, max_tokens) => watch(async () => {
  const begun = performance.now();
  let first, usage, text = "";
  for await (const chunk of await engine.completions.create({
    prompt, max_tokens, temperature: 0, ignore_eos: true,
    stream: true, stream_options: { include_usage: true },
  })) {
    first ??= performance.now();
    text += chunk.choices[0]?.text ?? "";
    usage = chunk.usage ?? usage;
  }
  return { begun, first, ended: performance.now(), usage, text };
});
"""


class Span(NamedTuple):
    """The frames of one phase, in ms."""

    frames: list[float]
    draws: list[float]
    waits: list[float]


class Subject:
    """One page with its engine, and what was measured in it."""

    def __init__(self, name: str, page: Page) -> None:
        self.name = name
        self.page = page
        self.device = ""
        self.spans: dict[str, list[Span]] = defaultdict(list)
        self.rates: dict[str, list[float]] = defaultdict(list)  # tokens/s
        self.texts: list[str] = []

    async def load(self, url: str, host: str, draw: str) -> None:
        self.page.set_default_timeout(0)
        self.page.on("pageerror", lambda error: print(f"page: {error}", file=sys.stderr))
        await self.page.goto(f"{url}/frames.html")
        await self.page.wait_for_function("'load' in window")
        self.device = await self.page.evaluate("load", [host, draw])

    async def idle(self) -> None:
        await self.page.bring_to_front()
        self._take(await self.page.evaluate("idle", 1000 * IDLE_S), "idle", None)

    async def answer(self, index: int, prompt_tokens: int, gen_tokens: int) -> None:
        await self.page.bring_to_front()
        prompt = str(index) + " sea" * (prompt_tokens - 1)
        found = await self.page.evaluate(
            "([prompt, tokens]) => answer(prompt, tokens)", [prompt, gen_tokens]
        )
        self._take(found, "prefill" if index else "first prompt", "decode")
        self.texts.append(found["text"])
        if index:
            usage = found["usage"]
            reading_s = (found["first"] - found["begun"]) / 1000
            writing_s = (found["ended"] - found["first"]) / 1000
            self.rates["prefill"].append(usage["prompt_tokens"] / reading_s)
            self.rates["decode"].append((usage["completion_tokens"] - 1) / writing_s)

    def _take(self, found: dict[str, Any], before: str, after: str | None) -> None:
        self.spans[before].append(_span(found, found["begun"], found["first"]))
        if after is not None:
            self.spans[after].append(_span(found, found["first"], found["ended"]))

    def row(self, phase: str) -> dict[str, float]:
        frames, draws, waits = (
            sorted(ms for span in self.spans[phase] for ms in span[kind]) for kind in range(3)
        )
        row = {
            "frames": len(frames),
            "median frame (ms)": median(frames),
            "p99 frame (ms)": frames[int(0.99 * (len(frames) - 1))],
            "longest frame (ms)": frames[-1],
            f"frames over {LONG_MS} ms": sum(ms > LONG_MS for ms in frames),
            "median draw (ms)": median(draws),
            "longest draw (ms)": draws[-1],
        }
        if waits:
            row |= {"median wait (ms)": median(waits), "longest wait (ms)": waits[-1]}
        if self.rates[phase]:
            row["tokens/s"] = median(self.rates[phase])
        return row


def _span(found: dict[str, Any], begun: float, ended: float) -> Span:
    """Returns what was under way at some time of a phase."""
    starts = [start for start, _ in found["frames"]]
    pairs = [pairwise(starts), found["frames"], found["waits"]]
    return Span(*([b - a for a, b in kind if a < ended and b > begun] for kind in pairs))


class Handler(SimpleHTTPRequestHandler):
    """Serves a built site, the model at /model.gguf, and the page with the animation."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, model: Path, site: Path) -> None:
        self.model = model
        super().__init__(*args, directory=str(site))

    def translate_path(self, path: str) -> str:
        return str(self.model) if path == "/model.gguf" else super().translate_path(path)

    def do_GET(self) -> None:
        kind, body = {
            "/frames.html": ("text/html", PAGE),
            "/frames.js": ("text/javascript", SCRIPT),
            "/queue.js": ("text/javascript", QUEUE),
            "/frames_worker.js": ("text/javascript", _with_queue("worker.js")),
            "/frames_service_worker.js": ("text/javascript", _with_queue("service_worker.js")),
        }.get(self.path, ("", ""))
        if not body:
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def copyfile(self, source: Any, outputfile: Any) -> None:
        with suppress(ConnectionError):  # a page may cancel
            super().copyfile(source, outputfile)

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing."""


def _with_queue(script: str) -> str:
    return f'import "/queue.js";\nimport "/{script}";\n'


@contextmanager
def serving(model: Path, site: Path) -> Iterator[str]:
    handler = partial(Handler, model=model, site=site)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


async def measure(options: argparse.Namespace, context: BrowserContext) -> list[Subject]:
    subjects = []
    with ExitStack() as stack:
        for site_name, folder in options.site.items():
            url = stack.enter_context(serving(options.model, folder))
            for host in options.hosts:
                name = host if len(options.site) == 1 else f"{host}, {site_name}"
                subjects.append(Subject(name, await context.new_page()))
                await subjects[-1].load(url, host, options.draw)
                print(f"{name}: {subjects[-1].device}", file=sys.stderr, flush=True)
        for subject in subjects:
            await subject.idle()
        for index in range(options.prompts + 1):
            for subject in subjects:
                await subject.answer(index, options.prompt_tokens, options.gen_tokens)
        for subject in subjects:
            await subject.page.close()
    return subjects


async def run(options: argparse.Namespace) -> Figures:
    """Prints the tables, and returns the figures."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    assert path, "this measures Chromium: apt-get install chromium"
    flags = [*FLAGS, *(SWIFTSHADER if options.swiftshader else []), *options.flag]
    with tempfile.TemporaryDirectory() as profile:
        async with async_playwright() as playwright:
            context = await playwright.chromium.launch_persistent_context(
                profile, executable_path=path, args=flags
            )
            subjects = await measure(options, context)
            await context.close()
    figures: Figures = {}
    for subject in subjects:
        rows = {phase: subject.row(phase) for phase in PHASES}
        print(f"\n{options.model.stem}, {subject.name} ({subject.device})\n")
        columns = dict.fromkeys(name for row in rows.values() for name in row)
        print(f"| | {' | '.join(columns)} |")
        print("|---" * (len(columns) + 1) + "|")
        for phase, row in rows.items():
            cells = [f"{row[name]:,.1f}" if name in row else "" for name in columns]
            print(f"| {phase} | {' | '.join(cells)} |")
        for phase, row in rows.items():
            for name, value in row.items():
                figures[f"{options.model.stem}, {subject.name}, {phase}: {name}"] = round(value, 2)
    same = all(subject.texts == subjects[0].texts for subject in subjects)
    print(f"\nanswers of all {len(subjects)} engines: {'equal' if same else 'NOT EQUAL'}")
    return figures


def _site(text: str) -> tuple[str, Path]:
    name, _, folder = text.rpartition("=")
    return name, Path(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, nargs="+", help="GGUF files")
    parser.add_argument("--site", type=_site, action="append", help="NAME=FOLDER of a built site")
    parser.add_argument("--hosts", default=",".join(HOSTS), help="separated by commas")
    parser.add_argument("--draw", choices=DRAWS, default=DRAWS[0], help="what the page draws by")
    parser.add_argument("--prompt-tokens", type=int, default=2000)
    parser.add_argument("--gen-tokens", type=int, default=64)
    parser.add_argument("--prompts", type=int, default=5, help="after the first")
    parser.add_argument("--swiftshader", action="store_true", help="WebGPU in software")
    parser.add_argument("--flag", action="append", default=[], help="one more for Chromium")
    parser.add_argument("--json", type=Path, help="also write the figures into this file")
    add_save_option(parser)
    options = parser.parse_args()
    options.hosts = options.hosts.split(",")
    options.site = dict(options.site or [("", SITE)])
    figures: Figures = {}
    for model in options.model:
        figures |= asyncio.run(run(argparse.Namespace(**vars(options) | {"model": model})))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))
    if options.save:
        save("browser_frames", options.save, figures)


if __name__ == "__main__":
    main()
