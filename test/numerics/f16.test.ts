import { expect, test } from 'vitest';
import { f16ToFloat32 } from '../../src/numerics/f16.ts';

const value = (bits: number) => f16ToFloat32(Uint16Array.of(bits))[0];

test('f16 has the values that numpy gives the same bits', () => {
  const numpy: [bits: number, value: number][] = [
    [0x0001, 2 ** -24],
    [0x03ff, 6.097555160522461e-5],
    [0x0400, 6.103515625e-5],
    [0x2e66, 0.0999755859375],
    [0x3555, 0.333251953125],
    [0x3c00, 1],
    [0x4248, 3.140625],
    [0x5640, 100],
    [0x7bff, 65504],
    [0x8001, -(2 ** -24)],
    [0xc000, -2],
  ];
  for (const [bits, expected] of numpy) expect(value(bits)).toBe(expected);
  expect(value(0x8000)).toBe(-0);
  expect(value(0x7c00)).toBe(Number.POSITIVE_INFINITY);
  expect(value(0xfc00)).toBe(Number.NEGATIVE_INFINITY);
  expect(value(0x7e01)).toBeNaN();
});

test('all positive f16 grow with their bits', () => {
  const values = f16ToFloat32(Uint16Array.from({ length: 0x7c01 }, (_, bits) => bits));
  expect(values.every((v, i) => i === 0 || v > values[i - 1]!)).toBe(true);
});
