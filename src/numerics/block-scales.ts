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
  return quantise(values, rows, cols, BLOCK);
}

/** Activations [rows, cols] in 1×128 tiles, scaled as blocks are. */
export function quantiseTiles(values: Float32Array, rows: number, cols: number): Quantised {
  return quantise(values, rows, cols, 1);
}

function quantise(values: Float32Array, rows: number, cols: number, blockRows: number): Quantised {
  const gridCols = Math.ceil(cols / BLOCK);
  const scales = new Float32Array(Math.ceil(rows / blockRows) * gridCols);
  const scaleAt = (row: number, col: number) => Math.floor(row / blockRows) * gridCols + Math.floor(col / BLOCK);
  for (let row = 0; row < rows; row++) {
    for (let col = 0; col < cols; col++) {
      const at = scaleAt(row, col);
      scales[at] = Math.max(scales[at]!, Math.abs(values[row * cols + col]!));
    }
  }
  for (let i = 0; i < scales.length; i++) {
    // A block of nothing but the smallest subnormals would round its scale to zero and lose the way back.
    const scale = Math.fround(scales[i]! / E4M3_MAX);
    scales[i] = scale > 0 ? scale : 1;
  }
  const codes = new Uint8Array(rows * cols);
  for (let row = 0; row < rows; row++) {
    for (let col = 0; col < cols; col++) {
      const i = row * cols + col;
      codes[i] = float32ToE4m3(Math.fround(values[i]! / scales[scaleAt(row, col)]!));
    }
  }
  return { codes, scales };
}
