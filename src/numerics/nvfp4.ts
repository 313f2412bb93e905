/**
 * NVFP4 (NVIDIA, "Pretraining Large Language Models with NVFP4", §2): e2m1 codes, an e4m3 scale for each 16 neighbouring
 * values of a row, and one f32 scale for all: value = code × scale × global.
 */
import { E4M3_VALUES, float32ToE4m3 } from './e4m3.ts';

export const FOUR_BLOCK = 16;

/** The value of each of the 16 codes. */
const E2M1_VALUES: Float32Array = Float32Array.of(0, 0.5, 1, 1.5, 2, 3, 4, 6, -0, -0.5, -1, -1.5, -2, -3, -4, -6);

const E2M1_MAX = 6;
const E4M3_MAX = 448;

export interface Fours {
  /** [rows, cols / 2], the lower of two columns in the low half of a byte. */
  readonly codes: Uint8Array;
  /** e4m3 [rows, cols / 16]. */
  readonly scales: Uint8Array;
  readonly global: number;
}

/** The global scale under which the largest value of a matrix has the largest code and the largest block scale. */
export function globalScale(values: Float32Array): number {
  let most = 0;
  for (let i = 0; i < values.length; i++) most = Math.max(most, Math.abs(values[i]!));
  return Math.fround(most / (E2M1_MAX * E4M3_MAX)) || 1;
}

/** Quantises rows whose number of columns is a multiple of 16. Each block's largest value becomes about 6. */
export function quantiseFours(values: Float32Array, global = globalScale(values)): Fours {
  const codes = new Uint8Array(values.length / 2);
  const scales = new Uint8Array(values.length / FOUR_BLOCK);
  for (let block = 0; block < scales.length; block++) {
    const from = block * FOUR_BLOCK;
    let most = 0;
    for (let i = from; i < from + FOUR_BLOCK; i++) most = Math.max(most, Math.abs(values[i]!));
    const code = float32ToE4m3(Math.fround(most / E2M1_MAX / global));
    scales[block] = code;
    const scale = E4M3_VALUES[code]! * global;
    if (scale === 0) continue;
    for (let i = from; i < from + FOUR_BLOCK; i += 2) {
      codes[i / 2] = nearestFour(values[i]! / scale) | (nearestFour(values[i + 1]! / scale) << 4);
    }
  }
  return { codes, scales, global };
}

/** f32 values of codes. */
export function dequantiseFours({ codes, scales, global }: Fours): Float32Array {
  const values = new Float32Array(codes.length * 2);
  for (let block = 0; block < scales.length; block++) {
    const scale = E4M3_VALUES[scales[block]!]! * global;
    for (let i = block * FOUR_BLOCK; i < (block + 1) * FOUR_BLOCK; i += 2) {
      const both = codes[i / 2]!;
      values[i] = E2M1_VALUES[both & 15]! * scale;
      values[i + 1] = E2M1_VALUES[both >> 4]! * scale;
    }
  }
  return values;
}

/** The code nearest to a value, ties to the even code, saturating. */
function nearestFour(value: number): number {
  const size = Math.abs(value);
  const sign = value < 0 ? 8 : 0;
  if (size <= 2.5) {
    // halves up to 2; between 1.75 and 2.5 the nearest is 2
    if (size < 1.75) return sign | (size <= 0.25 ? 0 : size < 0.75 ? 1 : size <= 1.25 ? 2 : 3);
    return sign | 4;
  }
  return sign | (size < 3.5 ? 5 : size <= 5 ? 6 : 7);
}
