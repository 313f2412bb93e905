import fc from 'fast-check';
import { expect, test } from 'vitest';
import { dequantiseFours, quantiseFours } from '../../src/numerics/nvfp4.ts';
import { noise } from '../backend/run-op.ts';

const FOURS = [0, 0.5, 1, 1.5, 2, 3, 4, 6];
const eight = (code: number) => (code < 8 ? code * 2 ** -9 : (1 + (code & 7) / 8) * 2 ** ((code >> 3) - 7));

test('two codes in a byte, the lower column in the low half; 16 columns share a scale', () => {
  const codes = new Uint8Array(16).fill(0x22);
  codes[0] = 0xd7;
  const values = dequantiseFours({ codes, scales: Uint8Array.of(0x38, 0x40), global: 0.25 });
  expect([...values.subarray(0, 3)]).toEqual([6 * 0.25, -3 * 0.25, 0.25]);
  expect(values[16]).toBe(0.5);
});

test('every value becomes the nearest that its block has, the largest of all among them', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 12 }),
      fc.nat(1e6),
      fc.integer({ min: -30, max: 30 }),
      (blocks, seed, power) => {
        const values = Float32Array.from(noise(blocks * 16, seed + 1), (x, i) => x * 2 ** power * (1 + (i >> 4)));
        const { codes, scales, global } = quantiseFours(values);
        const back = dequantiseFours({ codes, scales, global });
        const most = values.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
        expect(Math.abs(global * 6 * 448 - most)).toBeLessThanOrEqual(most * 2 ** -23);
        for (let i = 0; i < values.length; i++) {
          const block = values.subarray(i & ~15, (i & ~15) + 16);
          const largest = block.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
          const scale = eight(scales[i >> 4]!);
          // the block's scale is the nearest e4m3 to largest / 6 / global
          expect(Math.abs(scale - largest / 6 / global)).toBeLessThanOrEqual(Math.max(scale / 15.9, 2 ** -10));
          const distance = Math.min(...FOURS.map((four) => Math.abs(Math.abs(values[i]!) - four * scale * global)));
          expect(Math.abs(back[i]! - values[i]!)).toBeLessThanOrEqual(distance * (1 + 1e-5) + most * 1e-7);
        }
      },
    ),
    { numRuns: 60 },
  );
});

test('zeros stay zeros', () => {
  expect(dequantiseFours(quantiseFours(new Float32Array(32)))).toEqual(new Float32Array(32));
});
