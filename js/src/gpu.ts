// The hot half of src/webllm/gpu/browser.py: what runs for every step is one call from Python.
// Python imports it as `webllm_gpu`.

import type { PyBuffer } from "pyodide/ffi";

// Missing in TypeScript's lib.dom.d.ts.
declare const GPUBufferUsage: Record<"COPY_SRC" | "COPY_DST" | "MAP_READ" | "STORAGE", number>;
declare const GPUMapMode: Record<"READ", number>;

/** `name` is the class of the error that Python raises. */
class GpuError extends Error {
  constructor(name: "DeviceError" | "DeviceMemoryError" | "DeviceLostError", message: string) {
    super(message);
    this.name = name;
  }
}

interface Kernel {
  label: string;
  pipeline: Promise<GPUComputePipeline>;
}

interface Dispatch {
  kernel: Kernel;
  bindings: [GPUBuffer, number, number][]; // buffer, offset, size
  workgroups: [number, number, number];
  label: string;
}

interface Command {
  pipeline: GPUComputePipeline;
  bindGroup: GPUBindGroup;
  workgroups: [number, number, number];
}

interface Recording {
  commands: Command[] | undefined; // undefined: its kernels are being compiled
  ready: Promise<Command[]>;
}

/** One device. Writes and replays take effect in the order of the calls. */
export class Gpu {
  private readonly staging: GPUBuffer[] = []; // for readback, not in use
  private backlog: Promise<unknown> | undefined; // waits for kernels, and what came after it
  private lost: string | undefined;
  private error: GpuError | undefined; // of a call without an answer: all answers are wrong now

  constructor(private readonly device: GPUDevice) {
    void device.lost.then(({ message, reason }) => (this.lost = message || reason));
    device.onuncapturederror = (event) => {
      event.preventDefault();
      this.error ??= new GpuError("DeviceError", event.error.message);
    };
  }

  static async open(adapter: GPUAdapter, features: GPUFeatureName[], limits: string[]) {
    const limit = (name: string) => adapter.limits[name as keyof GPUSupportedLimits] as number;
    const requiredLimits = Object.fromEntries(limits.map((name) => [name, limit(name)]));
    return new Gpu(await adapter.requestDevice({ requiredFeatures: features, requiredLimits }));
  }

  compile(code: string, constants: Record<string, number>, label: string): Kernel {
    const pipeline = this.pipeline(code, constants, label);
    pipeline.catch(() => {}); // whoever records it hears of it
    return { label, pipeline };
  }

  private async pipeline(code: string, constants: Record<string, number>, label: string) {
    this.device.pushErrorScope("validation");
    const module = this.device.createShaderModule({ label, code });
    const invalid = this.device.popErrorScope();
    try {
      const compute = { module, entryPoint: "main", constants };
      return await this.device.createComputePipelineAsync({ label, layout: "auto", compute });
    } catch (error) {
      if (this.lost !== undefined) throw this.failure(error);
      const reason = (await invalid)?.message ?? (error as Error).message;
      const values = JSON.stringify(constants);
      throw new GpuError(
        "DeviceError",
        `the kernel ${label} does not compile with ${values}: ${reason}`,
      );
    }
  }

  buffer(size: number, label: string): GPUBuffer {
    const { STORAGE, COPY_SRC, COPY_DST } = GPUBufferUsage;
    this.device.pushErrorScope("out-of-memory");
    const buffer = this.device.createBuffer({ label, size, usage: STORAGE | COPY_SRC | COPY_DST });
    void this.device.popErrorScope().then((error) => {
      if (error === null) return;
      const message = `the browser has no ${size} bytes left for ${label}: ${error.message}`;
      this.error ??= new GpuError("DeviceMemoryError", message);
    });
    return buffer;
  }

  /** Pads with zeros to a multiple of 4 bytes. */
  write(buffer: GPUBuffer, offset: number, data: Uint8Array<ArrayBuffer> | PyBuffer): void {
    if (data instanceof Uint8Array) return this.writeBytes(buffer, offset, data);
    const view = data.getBuffer("u8");
    this.writeBytes(buffer, offset, view.data as Uint8Array<ArrayBuffer>);
    view.release();
  }

  private writeBytes(buffer: GPUBuffer, offset: number, data: Uint8Array<ArrayBuffer>): void {
    if (this.backlog !== undefined) {
      const copy = data.slice();
      void this.afterBacklog(() => this.writeNow(buffer, offset, copy));
    } else this.writeNow(buffer, offset, data);
  }

  private writeNow(buffer: GPUBuffer, offset: number, data: Uint8Array<ArrayBuffer>): void {
    const whole = data.length & ~3;
    this.device.queue.writeBuffer(buffer, offset, data, 0, whole);
    if (whole === data.length) return;
    const rest = new Uint8Array(4);
    rest.set(data.subarray(whole));
    this.device.queue.writeBuffer(buffer, offset + whole, rest);
  }

  record(dispatches: Dispatch[]): Recording {
    const ready = this.commands(dispatches);
    const recording: Recording = { commands: undefined, ready };
    ready.then(
      (commands) => (recording.commands = commands),
      () => {}, // whoever replays it hears of it
    );
    return recording;
  }

  private async commands(dispatches: Dispatch[]): Promise<Command[]> {
    const pipelines = await Promise.all(dispatches.map(({ kernel }) => kernel.pipeline));
    this.device.pushErrorScope("validation");
    const commands = dispatches.map(({ bindings, workgroups, label }, i): Command => {
      const entries = bindings.map(([buffer, offset, size], binding) => ({
        binding,
        resource: { buffer, offset, size },
      }));
      const pipeline = pipelines[i]!;
      const layout = pipeline.getBindGroupLayout(0);
      return {
        pipeline,
        bindGroup: this.device.createBindGroup({ label, layout, entries }),
        workgroups,
      };
    });
    this.device.queue.submit([this.encode(commands, true).finish()]); // has it validated, once
    const error = await this.device.popErrorScope();
    if (error !== null)
      throw new GpuError("DeviceError", `the browser refuses a dispatch: ${error.message}`);
    return commands;
  }

  private encode(commands: Command[], empty = false): GPUCommandEncoder {
    const encoder = this.device.createCommandEncoder();
    if (commands.length === 0) return encoder;
    const pass = encoder.beginComputePass();
    let current: GPUComputePipeline | undefined;
    for (const { pipeline, bindGroup, workgroups } of commands) {
      if (pipeline !== current) pass.setPipeline((current = pipeline));
      pass.setBindGroup(0, bindGroup);
      if (empty) pass.dispatchWorkgroups(0);
      else pass.dispatchWorkgroups(...workgroups);
    }
    pass.end();
    return encoder;
  }

  /** Submits a recording; resolves to the bytes of `source` after it, or to none without one. */
  replay(
    recording: Recording | undefined,
    source?: GPUBuffer,
    offset = 0,
    size = 0,
  ): Promise<Uint8Array> {
    const commands = recording === undefined ? [] : recording.commands;
    const submit = (ready: Command[]) => this.submit(ready, source, offset, size);
    let done: Promise<Uint8Array>;
    if (commands !== undefined && this.backlog === undefined) done = submit(commands);
    else {
      const submitted = this.afterBacklog(async () => ({
        done: submit(await (recording?.ready ?? [])),
      }));
      done = submitted.then(({ done }) => done);
    }
    done.catch(() => {}); // not every replay is waited for
    return done;
  }

  private async submit(
    commands: Command[],
    source: GPUBuffer | undefined,
    offset: number,
    size: number,
  ): Promise<Uint8Array> {
    const encoder = this.encode(commands);
    const staging = source === undefined ? undefined : this.takeStaging(size);
    if (source !== undefined) encoder.copyBufferToBuffer(source, offset, staging!, 0, size);
    this.device.queue.submit([encoder.finish()]);
    const bytes = await (staging === undefined ? this.finished() : this.fetch(staging, size));
    if (this.lost !== undefined) throw this.failure(this.lost);
    if (this.error !== undefined) throw this.error;
    return bytes;
  }

  private takeStaging(size: number): GPUBuffer {
    const found = this.staging.findIndex((buffer) => buffer.size >= size);
    if (found >= 0) return this.staging.splice(found, 1)[0]!;
    const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
    return this.device.createBuffer({ label: "staging", size, usage });
  }

  private async finished(): Promise<Uint8Array> {
    await this.device.queue.onSubmittedWorkDone();
    return new Uint8Array();
  }

  private async fetch(staging: GPUBuffer, size: number): Promise<Uint8Array> {
    try {
      await staging.mapAsync(GPUMapMode.READ, 0, size);
    } catch (error) {
      throw this.error ?? this.failure(error); // of a step that was refused, or a lost device
    }
    const bytes = new Uint8Array(staging.getMappedRange(0, size)).slice();
    staging.unmap();
    this.staging.push(staging);
    return bytes;
  }

  private failure(cause: unknown): GpuError {
    const reason = this.lost ?? (cause instanceof Error ? cause.message : String(cause));
    return new GpuError(
      "DeviceLostError",
      `the GPU stopped answering (${reason}): reload the model`,
    );
  }

  private afterBacklog<T>(work: () => T | Promise<T>): Promise<T> {
    const result = (this.backlog ?? Promise.resolve()).then(work);
    const end = result.then(
      () => {},
      () => {},
    );
    this.backlog = end;
    void end.then(() => {
      if (this.backlog === end) this.backlog = undefined;
    });
    return result;
  }

  close(): void {
    this.device.destroy();
  }
}
