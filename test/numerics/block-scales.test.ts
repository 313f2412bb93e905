import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { blockCodes, blockScales, dequantiseBlocks, quantiseBlocks } from '../../src/numerics/block-scales.ts';
import { E4M3_VALUES } from '../../src/numerics/e4m3.ts';

/** Values of mixed size, so that blocks differ in scale. */
const matrices = fc
  .record({ rows: fc.integer({ min: 1, max: 150 }), cols: fc.integer({ min: 1, max: 300 }), seed: fc.nat() })
  .map(({ rows, cols, seed }) => {
    let state = seed;
    const random = () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return state / 2 ** 31 - 1;
    };
    const values = Float32Array.from({ length: rows * cols }, () => random() * 10 ** (6 * random()));
    return { rows, cols, values };
  });

describe('block scales', () => {
  test('a partial edge block uses the scale of its own row and column of blocks', () => {
    const [rows, cols] = [130, 257];
    const codes = new Uint8Array(rows * cols).fill(0x38);
    const values = dequantiseBlocks(codes, Float32Array.of(1, 2, 3, 4, 5, 6), rows, cols);
    const at = (row: number, col: number) => values[row * cols + col];
    expect([at(0, 0), at(127, 127), at(0, 128), at(0, 256)]).toEqual([1, 1, 2, 3]);
    expect([at(128, 0), at(129, 255), at(129, 256)]).toEqual([4, 5, 6]);
  });

  test('quantising errs by at most half a step of its block: 1/16 of the value or 2^-10 of the scale', () => {
    fc.assert(
      fc.property(matrices, ({ rows, cols, values }) => {
        const { codes, scales } = quantiseBlocks(values, rows, cols);
        const back = dequantiseBlocks(codes, scales, rows, cols);
        const gridCols = Math.ceil(cols / 128);
        const wrong = [...values.keys()].filter((i) => {
          const block = Math.floor(i / cols / 128) * gridCols + Math.floor((i % cols) / 128);
          const bound = Math.max(Math.abs(values[i]!) / 16, scales[block]! * 2 ** -10) * (1 + 1e-6);
          return Math.abs(back[i]! - values[i]!) > bound;
        });
        expect(wrong).toEqual([]);
      }),
      { numRuns: 20 },
    );
  });

  test('the largest value of a block becomes 448 and keeps its size', () => {
    fc.assert(
      fc.property(matrices, ({ rows, cols, values }) => {
        const scales = blockScales(values, rows, cols, 1);
        const codes = blockCodes(values, scales, rows, cols, 1);
        for (let row = 0; row < rows; row++) {
          for (let from = 0; from < cols; from += 128) {
            const tile = codes.subarray(row * cols + from, row * cols + Math.min(from + 128, cols));
            const original = values.subarray(row * cols + from, row * cols + Math.min(from + 128, cols));
            const largest = Math.max(...original.map(Math.abs));
            expect(Math.max(...[...tile].map((code) => Math.abs(E4M3_VALUES[code]!)))).toBe(largest > 0 ? 448 : 0);
            expect(scales[row * Math.ceil(cols / 128) + from / 128]! * 448).toBeCloseTo(largest, -Math.log10(largest));
          }
        }
      }),
      { numRuns: 10 },
    );
  });

  test('what came from FP8 goes back to the same codes', () => {
    const codes = Uint8Array.from({ length: 128 * 128 }, (_, i) => ((i & 0x7f) === 0x7f ? 0x7e : i & 0xff));
    const values = dequantiseBlocks(codes, Float32Array.of(2 ** -5), 128, 128);
    expect(quantiseBlocks(values, 128, 128)).toEqual({ codes, scales: Float32Array.of(2 ** -5) });
  });

  test('a block of zeros stays zero', () => {
    const { codes, scales } = quantiseBlocks(new Float32Array(9), 3, 3);
    expect([...codes, ...scales]).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
  });
});
