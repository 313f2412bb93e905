import { type ChildProcess, spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { openModel } from '../../src/model/load.ts';
import { createRunner } from '../../src/model/runner.ts';
import { writeSafetensors } from '../../src/numerics/safetensors-writer.ts';
import { createParameters } from '../../src/train/parameters.ts';
import { fingerprint, tinyConfig, tinyRun } from './tiny-run.ts';

const STEPS = 24;
const folder = mkdtempSync(path.join(os.tmpdir(), 'train-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const program = path.join(import.meta.dirname, 'tiny-run.ts');
const start = (checkpoints: string, out: string, environment: NodeJS.ProcessEnv = {}): ChildProcess =>
  spawn('node', ['--import', 'tsx', program, String(STEPS), checkpoints, out], {
    env: { ...process.env, ...environment },
    stdio: 'inherit',
  });
const ended = (child: ChildProcess) =>
  new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)));

/** Checkpoints that are being written, or were when the process died. */
const partsIn = (checkpoints: string) => namesIn(checkpoints).filter((name) => name.endsWith('.part'));
const whole = (checkpoints: string) => namesIn(checkpoints).filter((name) => name.startsWith('step-'));
const namesIn = (checkpoints: string) => (existsSync(checkpoints) ? readdirSync(checkpoints) : []);

const uninterrupted = tinyRun(STEPS, null);

test('the loss falls, and experts share the work', async () => {
  const { losses } = await uninterrupted;
  expect(losses.at(-1)!).toBeLessThan(losses[0]! - 0.3);
});

test('a run that goes on from a checkpoint has the weights of one that was not stopped, bit for bit', async () => {
  const checkpoints = path.join(folder, 'stopped');
  await tinyRun(STEPS, checkpoints, 5);
  const { parameters, losses } = await tinyRun(STEPS, checkpoints);
  expect(losses.length).toBe(STEPS - 5);
  expect(fingerprint(parameters)).toBe(fingerprint((await uninterrupted).parameters));
});

test('so has one that stopped while its batches still grew', async () => {
  const checkpoints = path.join(folder, 'growing');
  const growing = { batchWarmupSteps: 6 };
  const first = await tinyRun(9, checkpoints, 3, 'bf16', growing);
  const rest = await tinyRun(9, checkpoints, 9, 'bf16', growing);
  const whole = await tinyRun(9, null, 9, 'bf16', growing);
  expect(fingerprint(rest.parameters)).toBe(fingerprint(whole.parameters));
  expect([...first.tokens, ...rest.tokens]).toEqual([128, 128, 128, 128, 128, 128, 256, 256, 256]);
});

test('so has one in FP8', async () => {
  const checkpoints = path.join(folder, 'fp8');
  await tinyRun(STEPS, checkpoints, 5, 'fp8');
  const { parameters, losses } = await tinyRun(STEPS, checkpoints, STEPS, 'fp8');
  const whole = await tinyRun(STEPS, null, STEPS, 'fp8');
  expect(fingerprint(parameters)).toBe(fingerprint(whole.parameters));
  expect(losses.at(-1)!).toBeCloseTo((await uninterrupted).losses.at(-1)!, 1);
});

test('so has one that is killed again and again while it writes checkpoints', async () => {
  const checkpoints = path.join(folder, 'killed');
  const out = path.join(folder, 'killed.txt');
  let torn = 0;
  for (let life = 1; life <= 6; life++) {
    const before = whole(checkpoints).at(-1);
    const child = start(checkpoints, out);
    const exit = ended(child);
    // each life writes a checkpoint and dies later: every other one while it is seen to write or remove one
    const watch = setInterval(() => {
      const advanced = whole(checkpoints).at(-1) !== before;
      const moment = life % 2 === 0 || partsIn(checkpoints).length > 0;
      if (advanced && moment && Math.random() < 0.15) child.kill('SIGKILL');
    }, 1);
    await exit;
    clearInterval(watch);
    if (partsIn(checkpoints).length > 0) torn++;
  }
  expect(torn).toBeGreaterThan(0);
  expect(await ended(start(checkpoints, out))).toBe(0);
  expect(readFileSync(out, 'utf8')).toBe(fingerprint((await uninterrupted).parameters));
});

test.each([
  ['model.layers.1.self_attn.o_proj.weight', 'fp8', 'model.layers.1.self_attn.o_proj.weight has a number'],
  [
    'model.layers.0.input_layernorm.weight',
    'fp8',
    'step 1: the input of model.layers.0.self_attn.q_a_proj has a number',
  ],
  ['model.layers.0.input_layernorm.weight', 'bf16', 'step 1: the gradient is NaN'],
] as const)('a NaN in %s stops a run in %s by name, before a weight changes', async (name, precision, message) => {
  const parameters = createParameters(tinyConfig, 5, precision);
  parameters.master[parameters.list.find((each) => each.name === name)!.at] = Number.NaN;
  const before = fingerprint(parameters);
  await expect(tinyRun(2, null, 2, precision, { parameters })).rejects.toThrow(message);
  expect(fingerprint(parameters)).toBe(before);
});

test('the number of threads changes no bit of a trained weight', async () => {
  const prints = await Promise.all(
    ['1', '3'].map(async (threads) => {
      const out = path.join(folder, `threads-${threads}.txt`);
      expect(await ended(start('none', out, { FARTHING_THREADS: threads }))).toBe(0);
      return readFileSync(out, 'utf8');
    }),
  );
  expect(prints).toEqual([
    fingerprint((await uninterrupted).parameters),
    fingerprint((await uninterrupted).parameters),
  ]);
});

test('a checkpoint is a model folder that loads and answers', async () => {
  const checkpoints = path.join(folder, 'loads');
  await tinyRun(2, checkpoints);
  const names = readdirSync(checkpoints);
  expect(names).toEqual(['step-00000001', 'step-00000002']);
  const model = await openModel(path.join(checkpoints, names.at(-1)!));
  const limits = { tokens: 8, logits: 8, sequences: 1, blocks: 1, blockTokens: 64, blocksPerSequence: 1 };
  const runner = await createRunner(model, limits);
  const logits = await runner.step([{ ids: [0, 7, 12], start: 0, blocks: [0], logits: 3 }]);
  expect(logits.length).toBe(3 * tinyConfig.vocabSize);
  expect(logits.every(Number.isFinite)).toBe(true);
});

test('the newest two checkpoints are kept, and what a kill left half-written is cleared away', async () => {
  const checkpoints = path.join(folder, 'kept');
  await tinyRun(2, checkpoints);
  mkdirSync(path.join(checkpoints, '.step-00000003.part'));
  await tinyRun(4, checkpoints);
  expect(readdirSync(checkpoints)).toEqual(['step-00000003', 'step-00000004']);
});

describe('a checkpoint that is not what it should be is refused by name', () => {
  const state = 'training-state.safetensors';
  const cases: [string, RegExp, (checkpoint: string) => void | Promise<void>][] = [
    [
      'a torn state',
      /step-00000001.*training-state\.safetensors/,
      (checkpoint) => truncateSync(path.join(checkpoint, state), 5000),
    ],
    ['no state', /step-00000001.*training-state\.safetensors/, (checkpoint) => rmSync(path.join(checkpoint, state))],
    [
      'a torn configuration',
      /step-00000001.*config\.json: no JSON/,
      (checkpoint) => truncateSync(path.join(checkpoint, 'config.json'), 40),
    ],
    [
      'another model of the same size',
      /config\.json: "routed_scaling_factor" is 2, expected 1\. The checkpoint is of another model/,
      (checkpoint) => {
        const file = path.join(checkpoint, 'config.json');
        const json = JSON.parse(readFileSync(file, 'utf8'));
        writeFileSync(file, JSON.stringify({ ...json, routed_scaling_factor: 2 }));
      },
    ],
    [
      'the state of another step',
      /training-state\.safetensors: it is of step "1", expected that of its folder/,
      (checkpoint) => renameSync(checkpoint, path.join(path.dirname(checkpoint), 'step-00000009')),
    ],
    [
      'the state of another model',
      /training-state\.safetensors: tensor "master" is F32 \[4\], expected F32 \[\d+\]/,
      (checkpoint) => {
        const tensor = { name: 'master', dtype: 'F32', shape: [4], bytes: new Uint8Array(16) } as const;
        return writeSafetensors(path.join(checkpoint, state), [tensor], { step: '1' });
      },
    ],
  ];
  test.each(cases)('%s', async (name, message, spoil) => {
    const checkpoints = path.join(folder, name.replaceAll(' ', '-'));
    await tinyRun(1, checkpoints);
    await spoil(path.join(checkpoints, 'step-00000001'));
    await expect(tinyRun(2, checkpoints)).rejects.toThrow(message);
  });
});
