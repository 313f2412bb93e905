/** Operands of matrix products in every stored type, with the exact numbers they hold. */
import { compile } from '../../src/backend/compile.ts';
import { type Graph, type Region, resident, storageBytes, type Tensor } from '../../src/backend/graph.ts';
import { pack, packFours, packTransposed } from '../../src/backend/ops.ts';
import { bf16ToFloat32, float32ToBf16 } from '../../src/numerics/bf16.ts';
import { dequantiseBlocks } from '../../src/numerics/block-scales.ts';
import { f16ToFloat32 } from '../../src/numerics/f16.ts';
import { noise } from './run-op.ts';

export type Stored = 'f32' | 'bf16' | 'f16' | 'fp8' | 'nvfp4';
export type Packed = 'packed_f32' | 'packed_bf16' | 'packed_fp8' | 'packed_fp4';

export interface Matrix {
  readonly tensor: Tensor;
  readonly rows: number;
  readonly cols: number;
  /** What the tensor held when it was made, dequantised. */
  readonly values: Float32Array;
  /** NVFP4 only: e4m3 scales [rows, ceil(cols / 16)] and the scale of all. */
  readonly fours?: { readonly scales: Tensor; readonly global: Region };
}

export function matrix(values: ArrayLike<number>, cols: number): Matrix {
  const held = Float32Array.from(values);
  const rows = held.length / cols;
  return { tensor: resident(rows, cols, 'f32', regionOf(held.slice())), rows, cols, values: held };
}

export function column(values: ArrayLike<number>): Tensor {
  return resident(values.length, 1, 'i32', regionOf(Int32Array.from(values)));
}

/** A row-major matrix of noise as a checkpoint stores it; `skew` bytes off any alignment. */
export function stored(dtype: Stored, rows: number, cols: number, seed: number, skew = 0): Matrix {
  const numbers = Float32Array.from(noise(rows * cols, seed));
  if (dtype === 'nvfp4') return storedFours(rows, cols, seed);
  const make = (bytes: Uint8Array, values: Float32Array, scales: Float32Array | null): Matrix => {
    const shifted = new Uint8Array(bytes.length + skew);
    shifted.set(bytes, skew);
    const region = { buffer: shifted.buffer, byteOffset: skew, byteLength: bytes.length };
    return { tensor: resident(rows, cols, dtype, region, scales && regionOf(scales)), rows, cols, values };
  };
  const bytesOf = (array: Uint16Array | Float32Array) => new Uint8Array(array.buffer, 0, array.byteLength);
  if (dtype === 'f32') return make(bytesOf(numbers), numbers, null);
  if (dtype === 'bf16') {
    const bits = float32ToBf16(numbers);
    return make(bytesOf(bits), bf16ToFloat32(bits), null);
  }
  if (dtype === 'f16') {
    const bits = Uint16Array.from(numbers, (x) => (x < 0 ? 0x8000 : 0) | Math.floor(Math.abs(x) * 0x3fff));
    return make(bytesOf(bits), f16ToFloat32(bits), null);
  }
  // every code but the two NaNs, subnormals included
  const codes = Uint8Array.from(numbers, (x) => (x < 0 ? 0x80 : 0) | Math.floor(Math.abs(x) * 0x7f));
  const blocks = Math.ceil(rows / 128) * Math.ceil(cols / 128);
  const scales = Float32Array.from(noise(blocks, seed + 1), (x) => 0.01 * (1.5 + x));
  return make(codes, dequantiseBlocks(codes, scales, rows, cols), scales);
}

/** Every code and every kind of scale, subnormal ones included, drawn with decoders of the test's own. */
function storedFours(rows: number, cols: number, seed: number): Matrix {
  const blocks = Math.ceil(cols / 16);
  const bytes = Uint8Array.from(noise(rows * Math.ceil(cols / 2), seed), (x) => Math.floor((x + 1) * 128));
  const scales = Uint8Array.from(noise(rows * blocks, seed + 1), (x) => Math.floor((x + 1) * 0x3f));
  const global = 2 ** -4 * 1.3;
  const four = (code: number) => [0, 0.5, 1, 1.5, 2, 3, 4, 6][code & 7]! * (code & 8 ? -1 : 1);
  const eight = (code: number) => (code < 8 ? code * 2 ** -9 : (1 + (code & 7) / 8) * 2 ** ((code >> 3) - 7));
  const single = Math.fround(global);
  const values = new Float32Array(rows * cols);
  for (let i = 0; i < rows * cols; i++) {
    const [row, col] = [Math.floor(i / cols), i % cols];
    const both = bytes[row * Math.ceil(cols / 2) + (col >> 1)]!;
    values[i] = four(col % 2 === 0 ? both & 15 : both >> 4) * eight(scales[row * blocks + (col >> 4)]!) * single;
  }
  return {
    tensor: resident(rows, Math.ceil(cols / 2), 'fp8', regionOf(bytes)),
    rows,
    cols,
    values,
    fours: { scales: resident(rows, blocks, 'fp8', regionOf(scales)), global: regionOf(Float32Array.of(single)) },
  };
}

/** Room for the packed form of a matrix and the op that fills it. */
export function packedOf(graph: Graph, source: Matrix, dtype: Packed): Tensor {
  if (dtype === 'packed_fp4') {
    const { scales, global } = source.fours!;
    const packed = packedRoom(source.rows, source.cols, dtype, global);
    packFours(graph, source.tensor, scales, packed);
    return packed;
  }
  const scales = dtype === 'packed_fp8' ? source.tensor.storage.scales : null;
  const packed = packedRoom(source.rows, source.cols, dtype, scales);
  pack(graph, source.tensor, packed);
  return packed;
}

/** The same of the transpose: `source` is [k, n]. */
export function packedTransposeOf(graph: Graph, source: Matrix, dtype: Packed): Tensor {
  const packed = packedRoom(source.cols, source.rows, dtype, null);
  packTransposed(graph, source.tensor, packed);
  return packed;
}

function packedRoom(n: number, k: number, dtype: Packed, scales: Region | null): Tensor {
  return resident(n, k, dtype, regionOf(new Uint8Array(storageBytes(dtype, n, k)).fill(0xff)), scales);
}

/** Room for a result, filled with a number that no test computes. */
export function room(rows: number, cols: number, fill = 12345): Tensor {
  return resident(rows, cols, 'f32', regionOf(new Float32Array(Math.max(rows * cols, 1)).fill(fill)));
}

export async function runGraph(graph: Graph): Promise<void> {
  await compile(graph, { token: 0, logit: 0, sequence: 0 }).run({});
}

export function held(tensor: Tensor): Float32Array {
  const { buffer, byteOffset } = tensor.storage.memory as Region;
  return new Float32Array(buffer, byteOffset, tensor.storage.rows.times * tensor.storage.cols).slice();
}

export const roundedToBf16 = (values: Float32Array) => bf16ToFloat32(float32ToBf16(values));

function regionOf(array: Float32Array | Int32Array | Uint8Array): Region {
  return { buffer: array.buffer as ArrayBuffer, byteOffset: array.byteOffset, byteLength: array.byteLength };
}
