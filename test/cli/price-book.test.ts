import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { farthing } from './farthing.ts';

let scratch: string;
let calls: string;
beforeAll(async () => {
  scratch = await mkdtemp(path.join(tmpdir(), 'farthing-book-'));
  calls = path.join(scratch, 'calls.jsonl');
  const lines = [
    // The answer of an API, in the discounted hours of 2025.
    {
      object: 'chat.completion',
      created: Date.parse('2025-03-01T17:00:00Z') / 1000,
      model: 'deepseek-chat',
      usage: { prompt_tokens: 1000, completion_tokens: 200, prompt_cache_hit_tokens: 600 },
    },
    { model: 'gpt-4o', at: '2024-10-05T00:00:00Z', usage: { prompt_tokens: 1000, completion_tokens: 200 } },
  ];
  await writeFile(calls, `${lines.map((line) => JSON.stringify(line)).join('\n')}\n`);
});
afterAll(() => rm(scratch, { recursive: true }));

test('price book lists the prices and the names they went by', async () => {
  const { code, stdout } = await farthing(['price', 'book']);
  expect(code).toBe(0);
  expect(stdout).toMatch(/deepseek-r1 +2025-02-26T16:30Z +2025-09-05T16:00Z +off-peak +0\.035 +0\.135 +0\.55/);
  expect(stdout).toMatch(/deepseek-chat +deepseek-v3\.2 +2025-09-29 +2026-04-24/);
});

test('price book prices a call that fell on an unknown holiday between two bounds', async () => {
  const call = [
    'deepseek-flash',
    '--at',
    '2027-02-01T10:30:00+08:00',
    '--hit',
    '12000',
    '--miss',
    '800',
    '--output',
    '600',
  ];
  const { stdout } = await farthing(['price', 'book', ...call]);
  expect(stdout).toContain('from 0.000516 to 0.001032 USD');
  expect(stdout).toContain('whether the day is a holiday is not');
  const { stdout: json } = await farthing(['price', 'book', ...call, '--json']);
  expect(JSON.parse(json)).toMatchObject({
    least: '0.000516',
    most: '0.001032',
    rates: [{ hours: 'peak' }, { hours: null }],
  });
});

test('price book re-prices a file of calls', async () => {
  // 600 × 0.035 + 400 × 0.135 + 200 × 0.55 millionths, and 1000 × 2.5 to 5 with 200 × 10 to 15.
  expect((await farthing(['price', 'book', '--calls', calls])).stdout).toContain('from 0.004685 to 0.008185 USD');
  const { stdout } = await farthing(['price', 'book', '--calls', calls, '--csv']);
  expect(stdout.split('\n')[1]).toBe('2025-03-01T17:00:00.000Z,deepseek-chat,600,400,200,USD,0.000185,0.000185,');
});

test('a line that is no call, or has no price, is named', async () => {
  const file = path.join(scratch, 'wrong.jsonl');
  const refused = async (line: string) => {
    await writeFile(file, `\n${line}\n`);
    const { code, stderr } = await farthing(['price', 'book', '--calls', file]);
    expect(code).toBe(1);
    return stderr;
  };
  expect(await refused('{')).toContain('wrong.jsonl, line 2: not JSON');
  expect(await refused('{"model":"m","created":1}')).toContain(
    'line 2: "usage" is missing, expected the tokens of the call',
  );
  expect(await refused('{"model":"m","created":1,"usage":{"prompt_tokens":1,"completion_tokens":1}}')).toContain(
    'line 2: the price book has no model "m"',
  );
});

test('a book of one’s own is used, and a negative price in it refused', async () => {
  const file = path.join(scratch, 'book.json');
  const book = (miss: string) => ({
    prices: [{ model: 'ours', currency: 'EUR', from: '2026', cache_hit: null, cache_miss: miss, output: '2' }],
  });
  const ask = [
    'price',
    'book',
    'ours',
    '--book',
    file,
    '--currency',
    'EUR',
    '--at',
    '2026-05-01T00:00:00Z',
    '--miss',
    '3',
  ];
  await writeFile(file, JSON.stringify(book('0.1')));
  expect((await farthing(ask)).stdout).toContain('exactly 0.0000003 EUR');
  await writeFile(file, JSON.stringify(book('-0.1')));
  expect((await farthing(ask)).stderr).toContain('"prices.0.cache_miss" is "-0.1", expected a price from 0 to 999999');
});
