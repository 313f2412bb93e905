/**
 * Fine-grained FP8 quantisation (DeepSeek-V3 report §3.3.2): one f32 scale for each 128×128 block of a weight and for
 * each 1×128 tile of an activation, value = e4m3 code × scale. Checkpoints call the weight's scales `weight_scale_inv`.
 */
import { E4M3_MAX, E4M3_VALUES, float32ToE4m3 } from './e4m3.ts';

export const BLOCK = 128;

export interface Quantised {
  /** e4m3 codes [rows, cols]. */
  readonly codes: Uint8Array;
  /** f32 [ceil(rows / blockRows), ceil(cols / 128)], row-major. */
  readonly scales: Float32Array;
}

/** f32 [rows, cols] from codes [rows, cols] and scales [ceil(rows/128), ceil(cols/128)]. Edge blocks may be partial. */
export function dequantiseBlocks(codes: Uint8Array, scales: Float32Array, rows: number, cols: number): Float32Array {
  const gridCols = Math.ceil(cols / BLOCK);
  const values = new Float32Array(rows * cols);
  for (let row = 0; row < rows; row++) {
    const scaleRow = Math.floor(row / BLOCK) * gridCols;
    for (let from = 0; from < cols; from += BLOCK) {
      const scale = scales[scaleRow + from / BLOCK]!;
      const end = row * cols + Math.min(from + BLOCK, cols);
      for (let i = row * cols + from; i < end; i++) values[i] = E4M3_VALUES[codes[i]!]! * scale;
    }
  }
  return values;
}

/** Weights [rows, cols] in 128×128 blocks: each block's largest magnitude becomes 448. A block of zeros has scale 1. */
export function quantiseBlocks(values: Float32Array, rows: number, cols: number): Quantised {
  const scales = blockScales(values, rows, cols);
  return { codes: blockCodes(values, scales, rows, cols), scales };
}

/** The scales alone: f32 [ceil(rows / blockRows), ceil(cols / 128)]. @param blockRows 1 for tiles of activations */
export function blockScales(values: Float32Array, rows: number, cols: number, blockRows = BLOCK): Float32Array {
  const scales = new Float32Array(Math.ceil(rows / blockRows) * Math.ceil(cols / BLOCK));
  eachSegment(rows, cols, blockRows, (at, from, end) => {
    let most = scales[at]!;
    for (let i = from; i < end; i++) most = Math.max(most, Math.abs(values[i]!));
    scales[at] = most;
  });
  // A block of nothing but the smallest subnormals would round its scale to zero and lose the way back.
  return scales.map((most) => Math.fround(most / E4M3_MAX) || 1);
}

/** The e4m3 codes [rows, cols] of values under their scales. */
export function blockCodes(
  values: Float32Array,
  scales: Float32Array,
  rows: number,
  cols: number,
  blockRows = BLOCK,
): Uint8Array {
  const codes = new Uint8Array(rows * cols);
  eachSegment(rows, cols, blockRows, (at, from, end) => {
    const scale = scales[at]!;
    for (let i = from; i < end; i++) codes[i] = float32ToE4m3(Math.fround(values[i]! / scale));
  });
  return codes;
}

/** Calls visit(index of the scale, first value, end) for the part of each row that lies in one block. */
function eachSegment(
  rows: number,
  cols: number,
  blockRows: number,
  visit: (at: number, from: number, end: number) => void,
) {
  const gridCols = Math.ceil(cols / BLOCK);
  for (let row = 0; row < rows; row++) {
    for (let block = 0; block < gridCols; block++) {
      const end = row * cols + Math.min((block + 1) * BLOCK, cols);
      visit(Math.floor(row / blockRows) * gridCols + block, row * cols + block * BLOCK, end);
    }
  }
}
