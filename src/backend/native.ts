/** The native addon, typed. One instance per process; FARTHING_ISA and FARTHING_THREADS are read here. */
import { createRequire } from 'node:module';
import os from 'node:os';
import { fileURLToPath } from 'node:url';

/** A view as native/binding.cc parses it; `bytes` is what the kernel may touch from `byteOffset` on. */
export interface PreparedView {
  readonly buffer: ArrayBuffer;
  readonly byteOffset: number;
  readonly bytes: number;
  readonly stride: number;
  readonly cols: number;
  readonly axis: number;
  readonly times: number;
  readonly dtype: number;
  readonly scales: { readonly buffer: ArrayBuffer; readonly byteOffset: number; readonly bytes: number } | null;
}

export interface PreparedOp {
  readonly kernel: string;
  readonly views: readonly (PreparedView | null)[];
  readonly scalars: readonly number[];
  /** Whether threads wait for each other before it. */
  readonly meets: boolean;
}

declare const nativeProgram: unique symbol;
export type NativeProgram = { readonly [nativeProgram]: true };

interface Addon {
  allocate(bytes: number): ArrayBuffer;
  mapFile(path: string, byteOffset: number, bytes: number): ArrayBuffer;
  adviseMapped(buffer: ArrayBuffer, byteOffset: number, bytes: number, soon: boolean): void;
  createProgram(ops: readonly PreparedOp[], buffers: readonly ArrayBuffer[]): NativeProgram;
  runPrograms(
    programs: readonly NativeProgram[],
    lengths: readonly (readonly number[])[],
    profile: boolean,
  ): Promise<ArrayBuffer | undefined>;
  setThreads(threads: number): void;
  peakBytes(): number;
  useInstructionSet(name: string): InstructionSet;
}

export type InstructionSet = 'amx' | 'avx512' | 'avx2' | 'plain';

/** The file with the kernels. */
export const kernelFile =
  process.env.FARTHING_ADDON ?? fileURLToPath(new URL('../../native/build/farthing.node', import.meta.url));

function loadAddon(): Addon {
  try {
    return createRequire(import.meta.url)(kernelFile) as Addon;
  } catch (cause) {
    throw new Error(`The native kernels could not be loaded from ${kernelFile}. Build them with: npm run install`, {
      cause,
    });
  }
}

const addon = loadAddon();

/** The kernels in use: the best this processor has, or what FARTHING_ISA asks for. */
export const instructionSet: InstructionSet = addon.useInstructionSet(process.env.FARTHING_ISA ?? '');

let threadCount = 0;

/** Threads that execute programs, the caller's included. Results do not depend on it. */
export function setThreads(threads: number): void {
  addon.setThreads(threads);
  threadCount = threads;
}

export function threads(): number {
  return threadCount;
}

const wanted = process.env.FARTHING_THREADS;
if (wanted !== undefined && !/^[1-9]\d{0,3}$/.test(wanted)) {
  throw new Error(`FARTHING_THREADS is "${wanted}": expected a number of threads from 1 to 1024`);
}
setThreads(wanted ? Number(wanted) : os.availableParallelism());

export const { allocate, mapFile, adviseMapped, createProgram, runPrograms, peakBytes } = addon;
