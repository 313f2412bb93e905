/**
 * A computation as plain data: tensors, and the list of operations over them in execution order.
 * The model writes it once (model/), autograd extends it (train/), compile.ts hands it to the native backend.
 */
import type { Fp8 } from './fp8-ops.ts';

/** Lengths known only when a program runs: tokens in the step, rows that need logits, sequences in the step. */
export const AXES = ['token', 'logit', 'sequence'] as const;
export type Axis = (typeof AXES)[number];

/** Order shared with `DType` in native/program.h. Packed formats: see native/kernels/pack.h. */
export const DTYPES = [
  'f32',
  'i32',
  'bf16',
  'f16',
  'fp8',
  'packed_f32',
  'packed_bf16',
  'packed_fp8',
  'packed_fp4',
] as const;
export type DType = (typeof DTYPES)[number];

/** Types that a paged cache may have. */
export const CACHE_DTYPES = ['f32', 'bf16', 'fp8'] as const satisfies readonly DType[];
export type CacheDType = (typeof CACHE_DTYPES)[number];

/** Rows of a tensor: `times × length(axis)`, or `times` where there is no axis. */
export interface Rows {
  readonly axis: Axis | null;
  readonly times: number;
}

/** Memory that is there before the graph: a region of an ArrayBuffer. */
export interface Region {
  readonly buffer: ArrayBuffer;
  readonly byteOffset: number;
  readonly byteLength: number;
}

/**
 * One matrix in memory. `temp` memory is planned at compile time and shared by tensors that do not live at the
 * same time; `own` memory keeps its content between runs and is reached with `Program.array`; a Region is given.
 */
export interface Storage {
  readonly rows: Rows;
  readonly cols: number;
  readonly dtype: DType;
  readonly memory: 'temp' | 'own' | Region;
  /** FP8: f32 block scales [ceil(rows/128), ceil(cols/128)]. Packed FP4: the f32 scale that all values share. */
  readonly scales: Region | null;
}

/** Columns [offset, offset + cols) of a storage. For packed weights: rows = outputs n, cols = depth k. */
export interface Tensor {
  readonly storage: Storage;
  readonly offset: number;
  readonly cols: number;
}

/** One operation. `writes` and `reads` reach the kernel in this order, as one list of views. */
export interface Op {
  readonly kernel: string;
  readonly writes: readonly (Tensor | null)[];
  readonly reads: readonly (Tensor | null)[];
  readonly scalars: readonly number[];
}

/** How products treat activations: FP32 (reference) or rounded to BF16 operands with FP32 sums. */
export type Compute = 'f32' | 'fast';

export interface Graph {
  readonly ops: Op[];
  readonly compute: Compute;
  /** Of FP8 training: products with packed_fp8 weights quantise their activations too. */
  readonly fp8: Fp8 | null;
  /** Ops [first, last) of each decoder layer. */
  readonly layers: { readonly first: number; readonly last: number }[];
}

export function createGraph(compute: Compute, fp8: Fp8 | null = null): Graph {
  return { ops: [], compute, fp8, layers: [] };
}

/** Notes the ops that `append` appends as those of a layer. */
export function asLayer<Result>(graph: Graph, append: () => Result): Result {
  const first = graph.ops.length;
  const result = append();
  graph.layers.push({ first, last: graph.ops.length });
  return result;
}

export function rowsOf(axis: Axis | null, times = 1): Rows {
  return { axis, times };
}

function whole(storage: Storage): Tensor {
  return { storage, offset: 0, cols: storage.cols };
}

/** A tensor whose memory is planned; valid from the op that first writes it to the last that reads it. */
export function temp(rows: Rows, cols: number, dtype: DType = 'f32'): Tensor {
  return whole({ rows, cols, dtype, memory: 'temp', scales: null });
}

/** A tensor that JavaScript fills before a run or reads after it. */
export function own(rows: Rows, cols: number, dtype: DType = 'f32'): Tensor {
  return whole({ rows, cols, dtype, memory: 'own', scales: null });
}

/** A tensor of fixed rows in existing memory: a weight, a cache, a table. */
export function resident(
  rows: number,
  cols: number,
  dtype: DType,
  memory: Region,
  scales: Region | null = null,
): Tensor {
  return whole({ rows: rowsOf(null, rows), cols, dtype, memory, scales });
}

/** What another program keeps in `array`, as rows of this one. */
export function shared(rows: Rows, cols: number, dtype: 'f32' | 'i32', array: ArrayBufferView): Tensor {
  const memory = { buffer: array.buffer as ArrayBuffer, byteOffset: array.byteOffset, byteLength: array.byteLength };
  return whole({ rows, cols, dtype, memory, scales: null });
}

/** Columns [from, from + cols) of a tensor, without a copy. */
export function columns(tensor: Tensor, from: number, cols: number): Tensor {
  if (from < 0 || cols < 1 || from + cols > tensor.cols) {
    throw new RangeError(`columns ${from}..${from + cols} of a tensor with ${tensor.cols} columns`);
  }
  return { storage: tensor.storage, offset: tensor.offset + from, cols };
}

export const ELEMENT_BYTES: Record<DType, number> = {
  f32: 4,
  i32: 4,
  bf16: 2,
  f16: 2,
  fp8: 1,
  packed_f32: 4,
  packed_bf16: 2,
  packed_fp8: 1,
  packed_fp4: 0.5,
};

/**
 * Bytes of a matrix. Packed weights are padded to 16 outputs and to a depth that is a multiple of 2, for FP8 of 4, for
 * FP4 of 16, whose block scales are among them (native/kernels/pack.h).
 */
export function storageBytes(dtype: DType, rows: number, cols: number): number {
  if (!dtype.startsWith('packed')) return rows * cols * ELEMENT_BYTES[dtype];
  const step = dtype === 'packed_fp4' ? 16 : dtype === 'packed_fp8' ? 4 : 2;
  const values = Math.ceil(rows / 16) * 16 * Math.ceil(cols / step) * step;
  return values * ELEMENT_BYTES[dtype] + (dtype === 'packed_fp4' ? values / 16 : 0);
}
