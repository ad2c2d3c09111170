// How browser.js divides long steps into submissions, on a GPU with a clock of its own.

import assert from "node:assert/strict";
import { test } from "node:test";

globalThis.GPUBufferUsage = { COPY_SRC: 4, COPY_DST: 8, MAP_READ: 1, STORAGE: 128 };
globalThis.GPUMapMode = { READ: 1 };
const { Gpu } = await import("../../src/webllm/backends/webgpu/device/browser.js");

const FRAME_MS = 16.7;

/** A device whose commands take `commandMs` each, one after another. `tellsAt`: when it says so. */
class FakeDevice {
  clock = 0;
  submissions = []; // { commands, at, end }
  log = []; // commands and writes, in the order in which they take effect
  lost = new Promise((resolve) => (this.lose = resolve));
  queue = this;
  #events = []; // { at, resolve, reject }
  #isLost = false;

  constructor(commandMs, tellsAt = (end) => end + 1) {
    this.commandMs = commandMs;
    this.tellsAt = tellsAt;
    globalThis.performance.now = () => this.clock;
  }

  get end() {
    return this.submissions.at(-1)?.end ?? 0;
  }

  pushErrorScope() {}
  async popErrorScope() {
    return null;
  }
  createShaderModule() {}
  async createComputePipelineAsync() {
    return { getBindGroupLayout() {} };
  }
  createBindGroup({ label }) {
    return label;
  }
  createBuffer({ size }) {
    return {
      size,
      mapAsync: () => this.#told(),
      getMappedRange: () => new ArrayBuffer(4),
      unmap() {},
    };
  }
  createCommandEncoder() {
    const commands = [];
    const pass = {
      setPipeline() {},
      setBindGroup: (index, label) => commands.push(label),
      dispatchWorkgroups() {},
      end() {},
    };
    return { beginComputePass: () => pass, copyBufferToBuffer() {}, finish: () => commands };
  }
  submit([commands]) {
    const end = Math.max(this.clock, this.end) + commands.length * this.commandMs;
    this.submissions.push({ commands, at: this.clock, end });
    this.log.push(...commands);
  }
  writeBuffer(buffer, offset, data) {
    this.log.push(`write ${data[0]}`);
  }
  onSubmittedWorkDone() {
    return this.#told();
  }
  #told() {
    const at = this.tellsAt(Math.max(this.end, this.clock));
    return new Promise((resolve, reject) => this.#events.push({ at, resolve, reject }));
  }

  /** Lets time pass until nothing is under way. */
  async run() {
    for (;;) {
      await new Promise(setImmediate);
      this.#events.sort((a, b) => a.at - b.at);
      const next = this.#events.shift();
      if (next === undefined) return;
      this.clock = Math.max(this.clock, next.at);
      if (this.#isLost) next.reject(new Error("lost"));
      else next.resolve();
    }
  }

  breakDown() {
    this.#isLost = true;
    this.lose({ message: "gone", reason: "unknown" });
  }
}

async function open(device) {
  const gpu = Gpu.open({ limits: {}, requestDevice: async () => device }, [], []);
  await device.run();
  return gpu;
}

async function recorded(gpu, count) {
  const kernel = gpu.compile("", {}, "kernel");
  const labels = Array.from({ length: count }, (_, i) => `command ${i}`);
  const recording = gpu.record(
    labels.map((label) => ({ kernel, bindings: [], workgroups: [1, 1, 1], label })),
  );
  await recording.ready;
  return { recording, labels };
}

test("no draw waits for a frame behind a long step, and the GPU never waits", async () => {
  const device = new FakeDevice(1);
  const gpu = await open(device);
  const { recording, labels } = await recorded(gpu, 300);
  for (let i = 0; i < 2; i++) gpu.replay(recording);
  const begun = device.clock;
  await device.run();
  assert.deepEqual(device.log, [...labels, ...labels]);
  for (const [i, { at, end }] of device.submissions.entries()) {
    assert.ok(end - at <= 1.5 * FRAME_MS, `submission ${i} ends after ${end - at} ms`);
    const unfinished = device.submissions.slice(0, i).filter((each) => each.end > at);
    assert.ok(unfinished.length <= 1, `submission ${i} waits for ${unfinished.length}`);
  }
  assert.ok(device.end - begun < 600 + 10, "the first, small slices alone may let it wait");
});

test("a step that is over within a frame is submitted whole, once that is known", async () => {
  const device = new FakeDevice(0.02);
  const gpu = await open(device);
  const { recording } = await recorded(gpu, 300);
  for (let i = 0; i < 8; i++) {
    gpu.replay(recording);
    await device.run();
  }
  assert.equal(device.submissions.at(-1).commands.length, 300);
});

test("a browser that looks for the end of work at intervals gets whole steps", async () => {
  const device = new FakeDevice(1, (end) => 100 * Math.floor(end / 100 + 1));
  const gpu = await open(device);
  const { recording } = await recorded(gpu, 300);
  gpu.replay(recording);
  gpu.replay(recording);
  await device.run();
  assert.deepEqual(
    device.submissions.map(({ commands }) => commands.length),
    [300, 300],
  );
});

test("a browser that is late once at the start still gets slices", async () => {
  let numTold = 0;
  const device = new FakeDevice(1, (end) => end + (numTold++ < 3 ? 50 : 1));
  const gpu = await open(device);
  const { recording } = await recorded(gpu, 300);
  gpu.replay(recording);
  await device.run();
  assert.ok(device.submissions.every(({ commands }) => commands.length < 20));
});

test("what is written between two long steps is written between them", async () => {
  const device = new FakeDevice(1);
  const gpu = await open(device);
  const { recording, labels } = await recorded(gpu, 50);
  const data = new Uint8Array([1, 0, 0, 0]);
  for (let i = 1; i <= 3; i++) {
    data[0] = i;
    gpu.write({}, 0, data);
    gpu.replay(recording);
  }
  await device.run();
  const steps = [1, 2, 3].flatMap((i) => [`write ${i}`, ...labels]);
  assert.deepEqual(device.log, steps);
});

test("a GPU that is lost in a long step fails it and the next", async () => {
  const device = new FakeDevice(1);
  const gpu = await open(device);
  const { recording } = await recorded(gpu, 50);
  const answers = [0, 1].map(() => gpu.replay(recording, gpu.buffer(4, ""), 0, 4));
  device.breakDown();
  await device.run();
  for (const answer of answers) await assert.rejects(answer, { name: "DeviceLostError" });
});
