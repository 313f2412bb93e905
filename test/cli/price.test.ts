import { expect, test } from 'vitest';
import { farthing } from './farthing.ts';

test('price counts prints the published cache of V3 beside other attentions', async () => {
  const { code, stdout } = await farthing(['price', 'counts', 'deepseek-v3']);
  expect(code).toBe(0);
  expect(stdout).toMatch(/as published\s+70\.272/);
  expect(stdout).toMatch(/MHA .*56\.89 ×/);
});

test('price counts prints all shipped models as CSV with whole numbers', async () => {
  const { stdout } = await farthing(['price', 'counts', '--csv']);
  const [head, ...rows] = stdout.trim().split('\n');
  expect(head).toMatch(/^model,total,/);
  expect(rows).toHaveLength(22);
  expect(rows.find((row) => row.startsWith('deepseek-v3,'))).toContain('671026419200');
});

test('a model that is not shipped is refused with the names of those that are', async () => {
  const { code, stderr } = await farthing(['price', 'counts', 'deepseek-v9']);
  expect(code).toBe(1);
  expect(stderr).toContain('there is no model "deepseek-v9"; there are deepseek-v3, deepseek-r1');
});
