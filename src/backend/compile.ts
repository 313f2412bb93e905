/**
 * From a graph to a program the native backend can run: plans memory, resolves every view to an address,
 * and hands the whole list over once. Running it again costs one native call.
 */
import {
  AXES,
  type Axis,
  DTYPES,
  ELEMENT_BYTES,
  type Graph,
  type Region,
  type Storage,
  storageBytes,
  type Tensor,
} from './graph.ts';
import { allocate, createProgram, type NativeProgram, type PreparedView, runPrograms } from './native.ts';

export type Lengths = Readonly<Record<Axis, number>>;

/** A compiled graph. Runs are not reentrant: await one before the next. */
export interface Program {
  /** The memory of an `own` or resident tensor, row-major, at its greatest length. */
  f32(tensor: Tensor): Float32Array;
  i32(tensor: Tensor): Int32Array;
  /** @throws RangeError when a length exceeds what the program was compiled for */
  run(lengths: Partial<Lengths>): Promise<void>;
  /** As `run`. @returns for each op of the graph, in order, when each thread worked on it */
  profile(lengths: Partial<Lengths>): Promise<OpTimes[]>;
  /** A run, to be given to `runInTurn`. @throws as `run` */
  prepare(lengths: Partial<Lengths>): PreparedRun;
  /** Bytes of planned memory: shared temporaries plus `own` tensors. */
  readonly bytes: number;
}

export interface PreparedRun {
  readonly program: NativeProgram;
  readonly lengths: readonly number[];
}

/** Runs programs one after another in one native call, so that one may read what those before it wrote. */
export async function runInTurn(runs: readonly PreparedRun[]): Promise<void> {
  await runPrograms(
    runs.map(({ program }) => program),
    runs.map(({ lengths }) => lengths),
    false,
  );
}

/** Times of one op in seconds from the start of the program. */
export interface OpTimes {
  /** From the end of the op before to the end of the last thread. */
  readonly start: number;
  readonly end: number;
  /** A thread's own part; from its end to that of the op it waits for the others. */
  readonly threads: readonly { readonly start: number; readonly end: number }[];
}

const ALIGNMENT = 64;
const align = (bytes: number) => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;

/**
 * Compiles `graph` for runs of at most `greatest` lengths. Tensors in `keep` hold their content after a run, like
 * `own` ones, so that results and inner values can be read.
 */
export function compile(graph: Graph, greatest: Lengths, keep: readonly Tensor[] = []): Program {
  const bytesOf = (s: Storage) => {
    const rows = s.rows.axis === null ? s.rows.times : s.rows.times * greatest[s.rows.axis];
    return storageBytes(s.dtype, rows, s.cols);
  };
  const { offsets, bytes } = planMemory(graph, bytesOf, keep);
  const arena = allocate(Math.max(bytes, ALIGNMENT));
  const regionOf = (s: Storage): Region => {
    if (typeof s.memory !== 'string') return s.memory;
    const byteOffset = offsets.get(s);
    if (byteOffset === undefined) throw new Error('the tensor is not part of this program');
    return { buffer: arena, byteOffset, byteLength: bytesOf(s) };
  };
  const view = (tensor: Tensor | null): PreparedView | null => {
    if (tensor === null) return null;
    const { storage } = tensor;
    const region = regionOf(storage);
    const needed = bytesOf(storage);
    if (region.byteLength < needed) {
      throw new RangeError(`a ${storage.dtype} tensor needs ${needed} bytes, its memory has ${region.byteLength}`);
    }
    const skipped = tensor.offset * ELEMENT_BYTES[storage.dtype];
    return {
      buffer: region.buffer,
      byteOffset: region.byteOffset + skipped,
      bytes: needed - skipped,
      stride: storage.cols,
      cols: tensor.cols,
      axis: storage.rows.axis === null ? -1 : AXES.indexOf(storage.rows.axis),
      times: storage.rows.times,
      dtype: DTYPES.indexOf(storage.dtype),
      scales: storage.scales && {
        buffer: storage.scales.buffer,
        byteOffset: storage.scales.byteOffset,
        bytes: storage.scales.byteLength,
      },
    };
  };
  const meets = meetings();
  const prepared = graph.ops.map((op) => {
    const writes = op.writes.map(view);
    const reads = op.reads.map(view);
    return { kernel: op.kernel, views: [...writes, ...reads], scalars: op.scalars, meets: meets(writes, reads) };
  });
  const buffers = new Set(prepared.flatMap((op) => op.views.flatMap((v) => (v ? [v.buffer, v.scales?.buffer] : []))));
  const native = createProgram(
    prepared,
    [...buffers].filter((b) => b !== undefined),
  );

  const given = (lengths: Partial<Lengths>) =>
    AXES.map((axis) => {
      const length = lengths[axis] ?? greatest[axis];
      if (!Number.isInteger(length) || length < 0 || length > greatest[axis]) {
        throw new RangeError(`${length} ${axis} rows: the program was compiled for 0 to ${greatest[axis]}`);
      }
      return length;
    });
  const typed = <T>(tensor: Tensor, make: (buffer: ArrayBuffer, byteOffset: number, length: number) => T) => {
    const region = regionOf(tensor.storage);
    return make(region.buffer, region.byteOffset, Math.floor(bytesOf(tensor.storage) / 4));
  };
  const prepare = (lengths: Partial<Lengths>): PreparedRun => ({ program: native, lengths: given(lengths) });
  return {
    prepare,
    f32: (tensor) => typed(tensor, (b, o, n) => new Float32Array(b, o, n)),
    i32: (tensor) => typed(tensor, (b, o, n) => new Int32Array(b, o, n)),
    bytes,
    async run(lengths) {
      await runInTurn([prepare(lengths)]);
    },
    async profile(lengths) {
      return opTimes((await runPrograms([native], [given(lengths)], true))!, graph.ops.length);
    },
  };
}

/**
 * Says of each op in turn whether all threads must have ended what came before it: not where it neither reads nor writes
 * what an op since they last met writes, nor writes what one of those reads.
 */
function meetings() {
  type Piece = Pick<PreparedView, 'buffer' | 'byteOffset' | 'bytes'>;
  const pieces = (views: readonly (PreparedView | null)[]): Piece[] =>
    views.flatMap((v) => (v ? [v, ...(v.scales ? [v.scales] : [])] : []));
  const overlap = (some: readonly Piece[], others: readonly Piece[]) =>
    some.some((a) =>
      others.some(
        (b) => a.buffer === b.buffer && a.byteOffset < b.byteOffset + b.bytes && b.byteOffset < a.byteOffset + a.bytes,
      ),
    );
  let written: Piece[] = [];
  let read: Piece[] = [];
  return (writes: readonly (PreparedView | null)[], reads: readonly (PreparedView | null)[]): boolean => {
    const to = pieces(writes);
    const from = pieces(reads);
    const meet = overlap(from, written) || overlap(to, written) || overlap(to, read);
    written = meet ? to : [...written, ...to];
    read = meet ? from : [...read, ...from];
    return meet;
  };
}

/** @param buffer f64 [ops, threads, 2] */
function opTimes(buffer: ArrayBuffer, ops: number): OpTimes[] {
  const numbers = new Float64Array(buffer);
  const threads = numbers.length / (2 * ops);
  let start = 0;
  return Array.from({ length: ops }, (_, op) => {
    const parts = Array.from({ length: threads }, (_, thread) => {
      const at = 2 * (op * threads + thread);
      return { start: numbers[at]!, end: numbers[at + 1]! };
    });
    const times = { start, end: Math.max(...parts.map(({ end }) => end)), threads: parts };
    start = times.end;
    return times;
  });
}

/**
 * Places every storage: `own` ones apart, `temp` ones by first fit over the span of ops in which they live.
 */
function planMemory(graph: Graph, bytesOf: (s: Storage) => number, keep: readonly Tensor[]) {
  const spans = new Map<Storage, { first: number; last: number }>();
  graph.ops.forEach((op, at) => {
    for (const tensor of [...op.writes, ...op.reads]) {
      if (tensor === null || typeof tensor.storage.memory !== 'string') continue;
      const span = spans.get(tensor.storage);
      if (span) span.last = at;
      else spans.set(tensor.storage, { first: at, last: at });
    }
  });
  const offsets = new Map<Storage, number>();
  let bytes = 0;
  const owned = new Set([...spans.keys()].filter((s) => s.memory === 'own'));
  for (const { storage } of keep) if (typeof storage.memory === 'string') owned.add(storage);
  for (const storage of owned) {
    offsets.set(storage, bytes);
    bytes += align(bytesOf(storage));
  }
  const placed: { from: number; to: number; first: number; last: number }[] = [];
  const temps = [...spans].filter(([s]) => !owned.has(s)).sort((a, b) => bytesOf(b[0]) - bytesOf(a[0]));
  for (const [storage, span] of temps) {
    const size = align(bytesOf(storage));
    let from = bytes;
    for (const other of placed) {
      if (other.last < span.first || other.first > span.last) continue;
      if (other.from >= from + size) break;
      from = Math.max(from, other.to);
    }
    offsets.set(storage, from);
    const after = placed.findIndex((other) => other.from > from);
    placed.splice(after < 0 ? placed.length : after, 0, { from, to: from + size, ...span });
  }
  return { offsets, bytes: placed.reduce((most, p) => Math.max(most, p.to), bytes) };
}
