import { expect, test } from 'vitest';
import { splitMix64, uniform } from '../../src/engine/random.ts';

test('SplitMix64 gives the published sequence for seed 1234567', () => {
  const published = [
    6457827717110365317n,
    3203168211198807973n,
    9817491932198370423n,
    4593380528125082431n,
    16408922859458223821n,
  ];
  expect(published.map((_, i) => splitMix64(1234567n, i))).toEqual(published);
});

test('draws are uniform over positions and over seeds', () => {
  const bins = 64;
  const draws = 64_000;
  // Chi-square with 63 degrees of freedom exceeds 120 with probability below 2e-5.
  const chiSquare = (draw: (i: number) => number) => {
    const counts = new Array<number>(bins).fill(0);
    for (let i = 0; i < draws; i++) counts[Math.floor(draw(i) * bins)]! += 1;
    return counts.reduce((sum, count) => sum + (count - draws / bins) ** 2 / (draws / bins), 0);
  };
  expect(chiSquare((i) => uniform(7, i))).toBeLessThan(120);
  expect(chiSquare((i) => uniform(i, 7))).toBeLessThan(120);
});

test('neighbouring seeds do not share their draws at shifted positions', () => {
  const stream = (seed: number) => new Set(Array.from({ length: 200 }, (_, i) => uniform(seed, i)));
  const first = stream(1);
  expect([...stream(2)].filter((draw) => first.has(draw))).toEqual([]);
});
