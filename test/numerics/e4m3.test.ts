import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { E4M3_VALUES, float32ToE4m3, indexOfE4m3NaN } from '../../src/numerics/e4m3.ts';

/** The table of the OCP 8-bit floating point specification: S.EEEE.MMM, bias 7. */
function specified(code: number): number {
  const bits = code.toString(2).padStart(8, '0');
  const exponent = Number.parseInt(bits.slice(1, 5), 2);
  const mantissa = Number.parseInt(bits.slice(5), 2);
  if (bits.slice(1) === '1111111') return Number.NaN;
  const magnitude = exponent === 0 ? 2 ** -6 * (mantissa / 8) : 2 ** (exponent - 7) * (1 + mantissa / 8);
  return bits[0] === '1' ? -magnitude : magnitude;
}

const finite = [...E4M3_VALUES.keys()].filter((code) => (code & 0x7f) !== 0x7f);

describe('e4m3', () => {
  test('all 256 codes have the values of the specification', () => {
    expect([...E4M3_VALUES]).toEqual(Array.from({ length: 256 }, (_, code) => specified(code)));
  });

  test('the published landmarks are where they should be', () => {
    const landmarks = { 1: 2 ** -9, 7: 7 * 2 ** -9, 8: 2 ** -6, 56: 1, 126: 448, 254: -448 };
    for (const [code, value] of Object.entries(landmarks)) expect(E4M3_VALUES[Number(code)]).toBe(value);
    expect(finite).toHaveLength(254);
  });

  test('every value that a code has is given back by that code', () => {
    for (const code of finite) expect(float32ToE4m3(E4M3_VALUES[code]!)).toBe(code);
  });

  test('a value becomes the nearest code, and the even one of two equally near', () => {
    const nearest = (value: number) => {
      const distance = (code: number) => Math.abs(E4M3_VALUES[code]! - value);
      const best = Math.min(...finite.map(distance));
      const candidates = finite.filter((code) => distance(code) === best);
      return E4M3_VALUES[candidates.find((code) => code % 2 === 0) ?? candidates[0]!]!;
    };
    const halves = finite.slice(0, 126).map((code) => (E4M3_VALUES[code]! + E4M3_VALUES[code + 1]!) / 2);
    for (const half of halves) expect(E4M3_VALUES[float32ToE4m3(half)]).toBe(nearest(half));
    const anyValue = fc.oneof(
      fc.float({ min: -500, max: 500, noNaN: true }),
      fc.float({ min: Math.fround(-0.02), max: Math.fround(0.02), noNaN: true }),
    );
    fc.assert(
      fc.property(anyValue, (value) => {
        expect(E4M3_VALUES[float32ToE4m3(value)]! + 0).toBe(nearest(value) + 0);
      }),
      { numRuns: 2000 },
    );
  });

  test('what is too large saturates and NaN stays NaN', () => {
    expect([449, 464, 1e38, Number.POSITIVE_INFINITY].map(float32ToE4m3)).toEqual([0x7e, 0x7e, 0x7e, 0x7e]);
    expect([-449, Number.NEGATIVE_INFINITY].map(float32ToE4m3)).toEqual([0xfe, 0xfe]);
    expect(float32ToE4m3(Number.NaN)).toBe(0x7f);
    expect([0, -0, 1e-45, -1e-45].map(float32ToE4m3)).toEqual([0, 0x80, 0, 0x80]);
  });

  test('a NaN code is found wherever it lies, and nothing else is taken for one', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 70 }), fc.nat({ max: 7 }), (codes, offset) => {
        const shifted = new Uint8Array(new ArrayBuffer(codes.length + offset), offset);
        shifted.set(codes);
        expect(indexOfE4m3NaN(shifted)).toBe(codes.findIndex((code) => code === 0x7f || code === 0xff));
      }),
    );
    const harmless = Uint8Array.from({ length: 1024 }, (_, i) => finite[i % finite.length]!);
    expect(indexOfE4m3NaN(harmless)).toBe(-1);
    for (const at of [0, 1, 2, 3, 1020, 1021, 1022, 1023]) {
      const damaged = harmless.slice();
      damaged[at] = 0xff;
      expect(indexOfE4m3NaN(damaged)).toBe(at);
    }
  });
});
