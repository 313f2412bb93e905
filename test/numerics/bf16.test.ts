import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { bf16ToFloat32, float32ToBf16 } from '../../src/numerics/bf16.ts';

const rounded = (value: number) => bf16ToFloat32(float32ToBf16(Float32Array.of(value)))[0]!;

/** Nearest multiple of the value's last bf16 place, halves to the even one, in float64 where all of it is exact. */
function nearestBf16(value: number): number {
  const exponent = Math.max(Math.floor(Math.log2(Math.abs(value))), -126);
  const place = 2 ** (exponent - 7);
  const places = value / place;
  const down = Math.floor(places);
  const rest = places - down;
  const nearest = rest > 0.5 || (rest === 0.5 && Math.abs(down) % 2 === 1) ? down + 1 : down;
  const result = nearest * place;
  return Math.abs(result) >= 2 ** 128 ? Math.sign(result) * Number.POSITIVE_INFINITY : result;
}

describe('bf16', () => {
  test('every bit pattern survives the way to float32 and back', () => {
    const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const back = float32ToBf16(bf16ToFloat32(bits));
    const changed = [...bits.keys()].filter((i) => back[i] !== i && (i & 0x7f80) !== 0x7f80);
    expect(changed).toEqual([]);
  });

  test('rounding is to the nearest value, ties to even', () => {
    fc.assert(
      fc.property(fc.float({ noNaN: true, noDefaultInfinity: true }), (value) => {
        fc.pre(value !== 0);
        expect(rounded(value) + 0).toBe(nearestBf16(value) + 0);
      }),
      { numRuns: 5000 },
    );
  });

  test('halves between two neighbours go to the even one', () => {
    expect(rounded(1 + 2 ** -8)).toBe(1);
    expect(rounded(1 + 3 * 2 ** -8)).toBe(1 + 2 ** -6);
    expect(rounded(-(1 + 2 ** -8))).toBe(-1);
  });

  test('the ends of the range keep their meaning', () => {
    expect(rounded(3.4e38)).toBe(Number.POSITIVE_INFINITY);
    expect(rounded(Number.NEGATIVE_INFINITY)).toBe(Number.NEGATIVE_INFINITY);
    expect(rounded(-0)).toBe(-0);
    expect(rounded(Number.NaN)).toBeNaN();
    const signalling = new Float32Array(Uint32Array.of(0x7f800001).buffer);
    expect(bf16ToFloat32(float32ToBf16(signalling))[0]).toBeNaN();
  });
});
