import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
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

test('the validation page of the docs is what the command prints', async () => {
  const { stdout } = await farthing(['price', 'validate']);
  expect(await readFile('docs/economics-validation.md', 'utf8')).toBe(stdout);
});

test('price serve answers speed, batch, what binds and cost', async () => {
  const { stdout } = await farthing([
    'price',
    'serve',
    'deepseek-r1',
    '--list',
    '0.14,0.55,2.19',
    '--hit-rate',
    '0.56',
  ]);
  for (const line of [
    /a node .*tokens\/s/,
    /batch .* limited by/,
    /bound by/,
    /margin .*% of revenue/,
    /output .*\$0\./,
  ]) {
    expect(stdout).toMatch(line);
  }
});

test('price serve takes a machine of the user from a file, and refuses one without bandwidth by the field', async () => {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'farthing-price-'));
  const file = path.join(folder, 'machine.json');
  const machine = { id: 'mine', bf16FlopsPerSecond: 1e15, memoryBytes: 8e11, usdPerHour: 3 };
  await writeFile(file, JSON.stringify({ ...machine, memoryBytesPerSecond: 4e12 }));
  const { stdout } = await farthing(['price', 'serve', 'deepseek-v2-lite', '--machine', file, '--json']);
  expect(JSON.parse(stdout)).toMatchObject({ machine: 'mine', serving: { usd: { output: expect.any(Number) } } });
  await writeFile(file, JSON.stringify(machine));
  const { code, stderr } = await farthing(['price', 'serve', 'deepseek-v2-lite', '--machine', file]);
  await rm(folder, { recursive: true });
  expect(code).toBe(1);
  expect(stderr).toContain('"memoryBytesPerSecond" is missing, expected a number from');
});

test('price train answers hours and dollars of V3 beside what each schedule would make of them', async () => {
  const { stdout } = await farthing(['price', 'train', 'deepseek-v3']);
  expect(stdout).toMatch(/device-hours\s+2,67\d,\d{3}/);
  for (const schedule of ['1f1b', 'zb1p', 'dualpipe', 'dualpipev']) expect(stdout).toContain(schedule);
});

test('price compare prints a row for each pair that can serve, and says why others cannot', async () => {
  const { stdout } = await farthing(['price', 'compare', 'deepseek-v3,qwen2.5-72b', '--on', 'h800-sxm,rtx4090']);
  expect(stdout).toMatch(/deepseek-v3\s+h800-sxm/);
  expect(stdout).toMatch(/qwen2\.5-72b\s+h800-sxm/);
  expect(stdout).toContain('deepseek-v3 on rtx4090: memory of');
});

test('price explain prints the waterfall in the order asked for, the shares, and the claims with their arithmetic', async () => {
  const { stdout } = await farthing(['price', 'explain', '--order', 'caching,mtp,wide,fp8,mla,experts']);
  const at = ['dense, multi-head', '+ prefix caching', '+ FP8', '+ sparse experts', 'whatever the order'].map((text) =>
    stdout.indexOf(text),
  );
  expect(at.every((place, i) => place > (at[i - 1] ?? -1))).toBe(true);
  const claims = await farthing(['price', 'explain', '--claims']);
  expect(claims.stdout).toContain('1 − (1 − 8/256)^128');
});
