import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { loadModel } from '../../src/index.ts';

const folder = mkdtempSync(path.join(os.tmpdir(), 'train-command-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const sentence = (i: number) =>
  `The ${['fox', 'crow', 'king', 'mouse'][i % 4]} saw ${i} ${['apples', 'stars', 'eggs'][i % 3]} and was glad.`;
const texts = Array.from({ length: 400 }, (_, i) =>
  JSON.stringify({ text: [0, 1, 2, 3].map((j) => sentence(i + j)).join(' ') }),
);
writeFileSync(path.join(folder, 'texts.jsonl'), texts.join('\n'));

const model = readFileSync('examples/tales.toml', 'utf8')
  .split('[data]')[0]!
  .replace('vocab_size = 2048', 'vocab_size = 320')
  .replace('num_hidden_layers = 4', 'num_hidden_layers = 2');
const configFile = (name: string, content: string) => {
  const file = path.join(folder, `${name.replaceAll(/\W+/g, '-')}.toml`);
  writeFileSync(file, content);
  return file;
};
const runOf = (name: string, steps = 30) => `
[data]
train = ["texts.jsonl"]
sequence = 64
batch_tokens = 256
[schedule]
peak = 3e-3
steps = ${steps}
warmup_steps = 5
[run]
folder = "${name}"
checkpoint_every = 5
validate_every = 10
sample_prompts = ["The fox", "A mouse"]
sample_tokens = 8
`;

function train(file: string, ...flags: string[]) {
  const child = spawn('node', ['--import', 'tsx', 'src/cli/main.ts', 'train', '--config', file, '--json', ...flags], {
    env: { ...process.env, NO_COLOR: '1' },
  });
  let [out, problem] = ['', ''];
  child.stdout.on('data', (data) => {
    out += data;
  });
  child.stderr.on('data', (data) => {
    problem += data;
  });
  const ended = new Promise<number | null>((resolve) => child.once('close', (code) => resolve(code)));
  return {
    child,
    ended,
    reports: () =>
      out
        .trim()
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line)),
    problem: () => problem,
  };
}

const stepsIn = (name: string): number[] =>
  readFileSync(path.join(folder, name), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line).step);

test('a run is killed, goes on from its checkpoint, and leaves a model that answers and a curve', async () => {
  const file = configFile('kept', model + runOf('kept'));
  const first = train(file);
  first.child.stdout.on('data', () => {
    if (first.reports().some(({ step }) => step >= 7)) first.child.kill('SIGKILL');
  });
  expect(await first.ended).toBe(null);
  const again = train(file);
  expect(await again.ended).toBe(1);
  expect(again.problem()).toContain('holds a run already. Add --resume');

  const resumed = train(file, '--resume');
  expect(await resumed.ended, resumed.problem()).toBe(0);
  const reports = resumed.reports();
  expect(reports[0].step).toBeGreaterThanOrEqual(6);
  expect(reports[0].step % 5).toBe(1);
  expect(reports.at(-1)).toMatchObject({ step: 30, tokens: 256 });
  expect(reports.at(-1).loss).toBeLessThan(first.reports()[0].loss - 1);
  expect(reports.at(-1).bitsPerByte).toBeGreaterThan(0);
  // percent of the mean, for each of 16 experts; the MTP module is layer 2
  const { expertLoads } = reports.at(-1) as { expertLoads: Record<string, number[]> };
  expect(Object.keys(expertLoads)).toEqual(['1', '2']);
  for (const loads of Object.values(expertLoads)) expect(loads.reduce((a, b) => a + b)).toBeCloseTo(1600, -1.3);
  expect(Math.max(...Object.values(expertLoads).flat()) / 100).toBeCloseTo(reports.at(-1).imbalance, 1);
  expect(readFileSync(path.join(folder, 'kept/loss.svg'), 'utf8')).toMatch(/^<svg/);
  expect(stepsIn('kept/metrics.jsonl')).toEqual(Array.from({ length: 30 }, (_, i) => i + 1));
  expect(stepsIn('kept/samples.jsonl')).toEqual([10, 10, 20, 20, 30, 30]);
  expect(reports.at(-1).samples.map(({ prompt }: { prompt: string }) => prompt)).toEqual(['The fox', 'A mouse']);

  const trained = await loadModel(path.join(folder, 'kept/model'));
  let text = '';
  for await (const piece of trained.generate({ prompt: 'The fox saw', temperature: 0, maxTokens: 12 }))
    text += piece.text;
  await trained.close();
  expect(text.length).toBeGreaterThan(0);
});

test('a run that is asked to stop saves the step it is at, and goes on from there', async () => {
  const file = configFile(
    'stopped',
    model + runOf('stopped', 12).replace('checkpoint_every = 5', 'checkpoint_every = 100'),
  );
  const first = train(file);
  first.child.stdout.once('data', () => first.child.kill('SIGINT'));
  expect(await first.ended).toBe(130);
  const last = first.reports().at(-1).step;
  expect(last).toBeLessThan(12);
  const resumed = train(file, '--resume');
  expect(await resumed.ended, resumed.problem()).toBe(0);
  expect(resumed.reports()[0].step).toBe(last + 1);
});

test.each<[string, string, RegExp]>([
  [
    'an unknown key',
    runOf('x').replace('warmup_steps', 'warmup_stepz'),
    /unknown key "schedule.warmup_stepz"\. Did you mean "warmup_steps"\?/,
  ],
  ['a text that is not there', runOf('x').replace('texts.jsonl', 'none.jsonl'), /none\.jsonl: not found/],
  [
    'too little text for a batch',
    runOf('x').replace('batch_tokens = 256', 'batch_tokens = 131072'),
    /data\.train: \d+ tokens, expected at least one batch \(data\.batch_tokens = 131072\)/,
  ],
])('%s is refused by name', async (name, rest, message) => {
  const refused = train(configFile(name, model + rest));
  expect(await refused.ended).toBe(1);
  expect(refused.problem()).toMatch(message);
  expect(refused.problem()).not.toContain('    at ');
  expect(existsSync(path.join(folder, 'x/metrics.jsonl'))).toBe(false);
});
