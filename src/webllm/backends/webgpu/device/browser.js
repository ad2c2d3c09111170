// The part of browser.py that runs for every step, so that a step is one call from Python. It is a
// plain module, so that the wheel can carry it; Python imports it as `webllm_gpu`. The type checker
// of js/ covers it.

/** @typedef {{ label: string, pipeline: Promise<GPUComputePipeline> }} Kernel */

/**
 * @typedef {object} Dispatch
 * @property {Kernel} kernel
 * @property {[GPUBuffer, number, number][]} bindings buffer, offset, size
 * @property {[number, number, number]} workgroups
 * @property {string} label
 */

/**
 * @typedef {object} Command
 * @property {GPUComputePipeline} pipeline
 * @property {GPUBindGroup} bindGroup
 * @property {[number, number, number]} workgroups
 */

/**
 * `commands` is undefined while the kernels are being compiled. `slice` is the number of commands
 * that a submission takes at most, which follows from the time that earlier ones took.
 * @typedef {{ commands: Command[] | undefined, ready: Promise<Command[]>, slice: number }} Recording
 */

/** @typedef {{ buffer: GPUBuffer, offset: number, staging: GPUBuffer, size: number }} Copy */

/** @typedef {Uint8Array<ArrayBuffer>} Bytes */

/**
 * Pyodide's proxy of an object in Python's memory.
 * @typedef {{ getBuffer(type: "u8"): { data: Bytes, release(): void } }} PyBuffer
 */

/**
 * Missing in TypeScript's lib.dom.d.ts; undefined where there is no WebGPU.
 * @type {{
 *   GPUBufferUsage: Record<"COPY_SRC" | "COPY_DST" | "MAP_READ" | "STORAGE", number>,
 *   GPUMapMode: Record<"READ", number>,
 * }}
 */
const { GPUBufferUsage, GPUMapMode } = /** @type {any} */ (globalThis);

// Some GPUs run what a page draws between two submissions of its engine, not within one. So a step
// that takes long is submitted in slices: two, so that the GPU has work while the end of one is told.
const SLICE_MS = 8; // of a slice; up to half as much again is left as it is
const NUM_SLICES = 2; // submitted and unfinished
const FIRST_SLICE = 4; // commands, of a recording that has not run yet
const LATE_MS = SLICE_MS; // a browser that tells the end of work so late gets whole steps

/** An error that Python raises as its class `name`. */
class GpuError extends Error {
  /**
   * @param {"DeviceError" | "DeviceMemoryError" | "DeviceLostError"} name
   * @param {string} message
   */
  constructor(name, message) {
    super(message);
    this.name = name;
  }
}

/** One device. Writes and replays take effect in the order of the calls. */
export class Gpu {
  #device;
  /** @type {GPUBuffer[]} */
  #staging = []; // free buffers for readbacks
  /** @type {Promise<unknown> | undefined} */
  #backlog; // replays that wait for kernels, and the calls after them
  /** @type {string | undefined} */
  #lost;
  /** @type {GpuError | undefined} */
  #error; // of a call without an answer: all later answers are wrong
  /** @type {Promise<void>[]} */
  #slices = []; // unfinished, the oldest first
  #finishedAt = 0; // the last submission whose end is known, in ms
  #isTimely;

  /**
   * @param {GPUDevice} device
   * @param {boolean} isTimely whether the browser tells soon that work has ended
   */
  constructor(device, isTimely) {
    this.#device = device;
    this.#isTimely = isTimely;
    void device.lost.then(({ message, reason }) => (this.#lost = message || reason));
    device.onuncapturederror = (event) => {
      event.preventDefault();
      this.#error ??= new GpuError("DeviceError", event.error.message);
    };
  }

  /**
   * @param {GPUAdapter} adapter
   * @param {GPUFeatureName[]} features
   * @param {(keyof GPUSupportedLimits)[]} limits
   */
  static async open(adapter, features, limits) {
    const requiredLimits = Object.fromEntries(limits.map((name) => [name, adapter.limits[name]]));
    const device = await adapter.requestDevice({ requiredFeatures: features, requiredLimits });
    return new Gpu(device, await tellsSoon(device.queue)); // before Python keeps this thread busy
  }

  /**
   * @param {string} code
   * @param {Record<string, number>} constants
   * @param {string} label
   * @returns {Kernel}
   */
  compile(code, constants, label) {
    const pipeline = this.#pipeline(code, constants, label);
    pipeline.catch(() => {}); // `record` reports it
    return { label, pipeline };
  }

  /**
   * @param {string} code
   * @param {Record<string, number>} constants
   * @param {string} label
   */
  async #pipeline(code, constants, label) {
    this.#device.pushErrorScope("validation");
    const module = this.#device.createShaderModule({ label, code });
    const invalid = this.#device.popErrorScope();
    try {
      const compute = { module, entryPoint: "main", constants };
      return await this.#device.createComputePipelineAsync({ label, layout: "auto", compute });
    } catch (error) {
      if (this.#lost !== undefined) throw this.#failure(error);
      const reason = (await invalid)?.message ?? /** @type {Error} */ (error).message;
      const values = JSON.stringify(constants);
      throw new GpuError(
        "DeviceError",
        `the kernel ${label} does not compile with ${values}: ${reason}`,
      );
    }
  }

  /**
   * @param {number} size
   * @param {string} label
   */
  buffer(size, label) {
    const { STORAGE, COPY_SRC, COPY_DST } = GPUBufferUsage;
    this.#device.pushErrorScope("out-of-memory");
    const buffer = this.#device.createBuffer({ label, size, usage: STORAGE | COPY_SRC | COPY_DST });
    void this.#device.popErrorScope().then((error) => {
      if (error === null) return;
      const message = `the browser has no ${size} bytes left for ${label}: ${error.message}`;
      this.#error ??= new GpuError("DeviceMemoryError", message);
    });
    return buffer;
  }

  /**
   * Pads with zeros to a multiple of 4 bytes.
   * @param {GPUBuffer} buffer
   * @param {number} offset
   * @param {Bytes | PyBuffer} data
   */
  write(buffer, offset, data) {
    if (data instanceof Uint8Array) return this.#writeBytes(buffer, offset, data);
    const view = data.getBuffer("u8");
    this.#writeBytes(buffer, offset, view.data);
    view.release();
  }

  /**
   * @param {GPUBuffer} buffer
   * @param {number} offset
   * @param {Bytes} data
   */
  #writeBytes(buffer, offset, data) {
    if (this.#backlog !== undefined) {
      const copy = data.slice();
      void this.#afterBacklog(() => this.#writeNow(buffer, offset, copy));
    } else this.#writeNow(buffer, offset, data);
  }

  /**
   * @param {GPUBuffer} buffer
   * @param {number} offset
   * @param {Bytes} data
   */
  #writeNow(buffer, offset, data) {
    const whole = data.length & ~3;
    this.#device.queue.writeBuffer(buffer, offset, data, 0, whole);
    if (whole === data.length) return;
    const rest = new Uint8Array(4);
    rest.set(data.subarray(whole));
    this.#device.queue.writeBuffer(buffer, offset + whole, rest);
  }

  /**
   * @param {Dispatch[]} dispatches
   * @returns {Recording}
   */
  record(dispatches) {
    const ready = this.#commands(dispatches);
    /** @type {Recording} */
    const recording = { commands: undefined, ready, slice: FIRST_SLICE };
    ready.then(
      (commands) => (recording.commands = commands),
      () => {}, // `replay` reports it
    );
    return recording;
  }

  /** @param {Dispatch[]} dispatches */
  async #commands(dispatches) {
    const pipelines = await Promise.all(dispatches.map(({ kernel }) => kernel.pipeline));
    this.#device.pushErrorScope("validation");
    const commands = dispatches.map(({ bindings, workgroups, label }, i) => {
      const entries = bindings.map(([buffer, offset, size], binding) => ({
        binding,
        resource: { buffer, offset, size },
      }));
      const pipeline = /** @type {GPUComputePipeline} */ (pipelines[i]);
      const layout = pipeline.getBindGroupLayout(0);
      return {
        pipeline,
        bindGroup: this.#device.createBindGroup({ label, layout, entries }),
        workgroups,
      };
    });
    this.#encode(commands).finish(); // validates them
    const error = await this.#device.popErrorScope();
    if (error !== null)
      throw new GpuError("DeviceError", `the browser refuses a dispatch: ${error.message}`);
    return commands;
  }

  /** @param {Command[]} commands */
  #encode(commands) {
    const encoder = this.#device.createCommandEncoder();
    if (commands.length === 0) return encoder;
    const pass = encoder.beginComputePass();
    /** @type {GPUComputePipeline | undefined} */
    let current;
    for (const { pipeline, bindGroup, workgroups } of commands) {
      if (pipeline !== current) pass.setPipeline((current = pipeline));
      pass.setBindGroup(0, bindGroup);
      pass.dispatchWorkgroups(...workgroups);
    }
    pass.end();
    return encoder;
  }

  /**
   * Submits a recording; resolves to the bytes of `source` after it, or to none without one.
   * @param {Recording | undefined} recording
   * @param {GPUBuffer} [source]
   */
  replay(recording, source, offset = 0, size = 0) {
    const commands = recording === undefined ? [] : recording.commands;
    const isWhole = recording === undefined || !this.#isSliced(recording);
    /** @type {Promise<Bytes>} */
    let done;
    if (commands !== undefined && isWhole && this.#backlog === undefined)
      done = this.#submit(recording, commands, source, offset, size);
    else {
      const submitted = this.#afterBacklog(async () => {
        const ready = await (recording?.ready ?? []);
        const rest = await this.#submitSlices(recording, ready);
        return { done: this.#submit(recording, rest, source, offset, size) };
      });
      done = submitted.then(({ done }) => done);
    }
    done.catch(() => {}); // not every caller awaits its replay
    return done;
  }

  /** @param {Recording} recording */
  #isSliced({ commands, slice }) {
    return this.#isTimely && commands !== undefined && commands.length > slice;
  }

  /**
   * Submits all slices but the last, which it returns, once there is room for each.
   * @param {Recording | undefined} recording
   * @param {Command[]} commands
   */
  async #submitSlices(recording, commands) {
    if (recording === undefined || !this.#isSliced(recording)) return commands;
    let first = 0;
    while (commands.length - first > recording.slice) {
      await this.#room();
      const slice = commands.slice(first, (first += recording.slice));
      this.#send(slice);
      this.#keep(this.#timed(recording, slice.length, this.#device.queue.onSubmittedWorkDone()));
    }
    await this.#room();
    return commands.slice(first);
  }

  /** Waits until one more slice may be submitted. */
  async #room() {
    while (this.#slices.length >= NUM_SLICES) await this.#slices[0];
  }

  /** @param {Promise<unknown>} work */
  #keep(work) {
    const end = work.then(
      () => {},
      () => {}, // of a lost device, which the answer reports
    );
    this.#slices.push(end);
    void end.then(() => (this.#slices = this.#slices.filter((each) => each !== end)));
  }

  /**
   * Returns the result of a submission, and adapts the recording's next slices to its time.
   * @template T
   * @param {Recording | undefined} recording
   * @param {number} count of its commands
   * @param {Promise<T>} work
   */
  async #timed(recording, count, work) {
    const submittedAt = performance.now();
    const result = await work;
    const now = performance.now();
    if (recording !== undefined && count > 0) {
      const ms = now - Math.max(submittedAt, this.#finishedAt);
      recording.slice = nextSlice(recording.slice, count, ms);
    }
    this.#finishedAt = now;
    return result;
  }

  /**
   * Submits commands; resolves as `replay` does.
   * @param {Recording | undefined} recording
   * @param {Command[]} commands
   * @param {GPUBuffer | undefined} source
   * @param {number} offset
   * @param {number} size
   */
  async #submit(recording, commands, source, offset, size) {
    const staging = source === undefined ? undefined : this.#takeStaging(size);
    this.#send(commands, source && staging && { buffer: source, offset, staging, size });
    const answer = staging === undefined ? this.#finished() : this.#fetch(staging, size);
    const timed = this.#timed(recording, commands.length, answer);
    if (recording !== undefined && commands !== recording.commands) this.#keep(timed);
    const bytes = await timed;
    if (this.#lost !== undefined) throw this.#failure(this.#lost);
    if (this.#error !== undefined) throw this.#error;
    return bytes;
  }

  /**
   * @param {Command[]} commands
   * @param {Copy} [copy] after them
   */
  #send(commands, copy) {
    const encoder = this.#encode(commands);
    if (copy) encoder.copyBufferToBuffer(copy.buffer, copy.offset, copy.staging, 0, copy.size);
    this.#device.queue.submit([encoder.finish()]);
  }

  /** @param {number} size */
  #takeStaging(size) {
    const found = this.#staging.findIndex((buffer) => buffer.size >= size);
    const [buffer] = found < 0 ? [] : this.#staging.splice(found, 1);
    if (buffer !== undefined) return buffer;
    const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
    return this.#device.createBuffer({ label: "staging", size, usage });
  }

  async #finished() {
    await this.#device.queue.onSubmittedWorkDone();
    return new Uint8Array();
  }

  /**
   * @param {GPUBuffer} staging
   * @param {number} size
   */
  async #fetch(staging, size) {
    try {
      await staging.mapAsync(GPUMapMode.READ, 0, size);
    } catch (error) {
      throw this.#error ?? this.#failure(error); // a refused step, or a lost device
    }
    const bytes = new Uint8Array(staging.getMappedRange(0, size)).slice();
    staging.unmap();
    this.#staging.push(staging);
    return bytes;
  }

  /** @param {unknown} cause */
  #failure(cause) {
    const reason = this.#lost ?? (cause instanceof Error ? cause.message : String(cause));
    return new GpuError(
      "DeviceLostError",
      `the GPU stopped answering (${reason}): reload the model`,
    );
  }

  /**
   * @template T
   * @param {() => T | Promise<T>} work
   */
  #afterBacklog(work) {
    const result = (this.#backlog ?? Promise.resolve()).then(work);
    const end = result.then(
      () => {},
      () => {},
    );
    this.#backlog = end;
    void end.then(() => {
      if (this.#backlog === end) this.#backlog = undefined;
    });
    return result;
  }

  close() {
    this.#device.destroy();
  }
}

/**
 * Whether the browser tells soon that work has ended. One that looks at intervals has just looked
 * when the first answer comes.
 * @param {GPUQueue} queue
 */
async function tellsSoon(queue) {
  await queue.onSubmittedWorkDone();
  for (let i = 0; i < 4; i++) {
    const begun = performance.now();
    await queue.onSubmittedWorkDone();
    if (performance.now() - begun < LATE_MS) return true;
  }
  return false;
}

/**
 * Returns how many commands a recording's next slice takes, after `count` of them took `ms`.
 * @param {number} slice
 * @param {number} count
 * @param {number} ms
 */
function nextSlice(slice, count, ms) {
  const fitting = (count * SLICE_MS) / ms;
  if (ms > 1.5 * SLICE_MS) return Math.ceil(Math.max(fitting, count / 2));
  if (ms < SLICE_MS && count >= slice) return Math.ceil(Math.min(fitting, 2 * slice));
  return slice;
}
