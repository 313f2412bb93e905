import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { agrees } from '../../src/economics/comparison.ts';
import { validation } from '../../src/economics/validation.ts';

const { checks } = JSON.parse(readFileSync('test/fixtures/economics/derived_checks.json', 'utf8'));
const rows = validation().flatMap((section) => section.rows);
const idOf = (id: string) =>
  id
    .toLowerCase()
    .replace(/\.active_.*/, '.active')
    .replace('deepseek-v3.active', 'deepseek-v3.active.file');

// Figures that were recalled rather than read are no expected values.
const printed: { id: string; computed: number; published: number; suggested_tolerance: number; unit: string }[] =
  checks.filter(
    (check: { status: string; published_source: string }) =>
      check.status === 'agrees' && !check.published_source.includes('from memory'),
  );
const SCALE: Record<string, number> = {
  'kv.deepseek-v3': 1000,
  'kv.qwen2.5-72b': 1000,
  'kv.llama-3.1-405b': 1000,
  'train.hours': 1000,
};

test.each(printed)('$id comes out as the independent arithmetic has it, and agrees with print', (check) => {
  const row = rows.find(({ id }) => id.toLowerCase() === idOf(check.id))!;
  const computed = row.computed * (SCALE[row.id] ?? 1);
  expect(Math.abs(computed / check.computed - 1)).toBeLessThan(1e-3);
  expect(Math.abs(computed / check.published - 1)).toBeLessThanOrEqual(check.suggested_tolerance * 1.001 + 1e-12);
});

test('figures that are counted or follow from each other all agree, but for the one that cannot', () => {
  const sections = validation().slice(0, 4);
  expect(
    sections.flatMap((section) => section.rows.filter((row) => !agrees(row))).map(({ id, note }) => [id, note]),
  ).toEqual([['train.flops.qwen2.5-72b', expect.stringContaining('no convention reproduces it')]]);
});

test('the production day is 87,072 dollars and 545 per cent, to the printed digits', () => {
  const of = (id: string) => rows.find((row) => row.id === id)!.computed;
  expect(of('d6.cost')).toBe(87072);
  expect(Math.floor(of('d6.margin'))).toBe(545);
  expect(Math.abs(of('d6.revenue') - 562027)).toBeLessThan(100);
});
