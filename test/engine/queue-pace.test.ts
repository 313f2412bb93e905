import { expect, test } from 'vitest';
import { QueuePace } from '../../src/engine/queue-pace.ts';

test('requests that wait behind one that enters every 100 ms enter in as many times 100 ms', () => {
  const pace = new QueuePace();
  for (let now = 1000; now < 2000; now += 100) pace.entered(1, 30, now);
  expect(pace.msFor(30, 2000)).toBe(3000);
  expect(pace.msFor(0, 2000)).toBe(0);
});

test('a queue that stands still seems longer and longer', () => {
  const pace = new QueuePace();
  pace.entered(8, 4, 0);
  expect(pace.msFor(4, 4000)).toBe(2000);
  expect(pace.msFor(4, 8000)).toBe(4000);
});

test('what was before the queue was last empty, or long ago, does not count', () => {
  const pace = new QueuePace();
  expect(pace.msFor(5, 0)).toBe(null);
  pace.entered(3, 2, 0);
  pace.entered(2, 0, 50_000);
  expect(pace.msFor(5, 50_000)).toBe(null);
  pace.entered(1, 9, 60_000);
  for (let i = 0; i < 64; i++) pace.entered(1, 9, 100_000 + i * 10);
  expect(pace.msFor(10, 100_640)).toBe(100);
});
