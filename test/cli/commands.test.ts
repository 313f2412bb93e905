import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openSafetensors } from '../../src/model/mapped-safetensors.ts';
import { makeTinyModel } from '../server/tiny-model.ts';
import { farthing } from './farthing.ts';

const GOLDEN = 'test/fixtures/golden/v3-tiny';
let tiny: string;
let scratch: string;
beforeAll(async () => {
  tiny = await makeTinyModel();
  scratch = await mkdtemp(path.join(os.tmpdir(), 'farthing-cli-'));
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

test('every command explains itself with examples', async () => {
  for (const command of [
    'run',
    'serve',
    'inspect',
    'logits',
    'train',
    'bench',
    'convert',
    'make-checkpoint',
    'price',
  ]) {
    const { code, stdout } = await farthing([command, '--help']);
    expect({ command, code }).toEqual({ command, code: 0 });
    expect(stdout).toContain(`$ farthing ${command}`);
  }
});

test('the version is that of the package', async () => {
  const { version } = JSON.parse(await readFile('package.json', 'utf8'));
  expect((await farthing(['--version'])).stdout).toBe(`${version}\n`);
});

test('logits writes the golden logits of a prompt', async () => {
  const golden = JSON.parse(await readFile(path.join(GOLDEN, 'golden.json'), 'utf8'));
  const { input_ids: ids } = golden.prompts[1];
  const tokens = path.join(scratch, 'tokens.json');
  const out = path.join(scratch, 'logits.safetensors');
  await writeFile(tokens, JSON.stringify(ids));
  const { code, stderr } = await farthing([
    'logits',
    '--model',
    GOLDEN,
    '--tokens',
    tokens,
    '--out',
    out,
    '--compute',
    'f32',
  ]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  const written = tensorOf(out, 'logits');
  const expected = tensorOf(path.join(GOLDEN, 'golden.safetensors'), 'p1.logits');
  expect(written.shape).toEqual([ids.length, 384]);
  expect(relativeL2(written.values, expected.values)).toBeLessThan(golden.tolerance.logits_rel_l2);
});

test('inspect prints the architecture and the cache beside other attentions', async () => {
  const { stdout } = await farthing(['inspect', GOLDEN, '--json']);
  expect(JSON.parse(stdout)).toMatchObject({
    architecture: expect.stringContaining('multi-head latent attention'),
    layers: 4,
    // (64 + 16) values, against 4 heads of 48 + 32, in 4 layers of two bytes; in FP8 64 codes, a scale and 16 of BF16.
    cacheBytesPerToken: { model: 640, multiHead: 2560, fp8: 400 },
  });
  expect((await farthing(['inspect', GOLDEN])).stdout).toMatch(/as multi-head +2\.50 KiB, 4\.0 ×/);
});

test('run answers a prompt, the same for the same seed, from an argument or a pipe', async () => {
  const options = ['--model', tiny, '--max-tokens', '12', '--seed', '3'];
  const given = await farthing(['run', ...options, 'Tell', 'me', 'a', 'tale']);
  expect({ code: given.code, stderr: given.stderr }).toEqual({ code: 0, stderr: '' });
  expect(given.stdout.length).toBeGreaterThan(1);
  expect((await farthing(['run', ...options], { stdin: 'Tell me a tale' })).stdout).toBe(given.stdout);
  const json = await farthing(['run', ...options, '--json', 'Tell me a tale']);
  expect(JSON.parse(json.stdout)).toMatchObject({
    content: given.stdout.slice(0, -1),
    finish: 'length',
    usage: { completionTokens: 12 },
  });
});

test('run continues raw text with a model that has no chat template', async () => {
  await writeFile(
    path.join(tiny, 'tokenizer_config.json'),
    JSON.stringify({ tokenizer_class: 'PreTrainedTokenizerFast' }),
  );
  const { code, stdout } = await farthing(['run', '--model', tiny, '--max-tokens', '8', 'Once upon a time']);
  expect(code).toBe(0);
  expect(stdout).toMatch(/\n$/);
});

test('bench prints the measured rates and the profile of a step as JSON, and writes its timeline', async () => {
  const trace = path.join(scratch, 'step.json');
  const { code, stdout } = await farthing([
    'bench',
    '--model',
    GOLDEN,
    '--prompt',
    '32',
    '--decode',
    '8',
    '--depth',
    '16',
    '--batch',
    '2',
    '--repeat',
    '2',
    '--profile',
    '--trace',
    trace,
    '--json',
  ]);
  expect(code).toBe(0);
  const rate = { median: expect.any(Number), min: expect.any(Number), max: expect.any(Number) };
  expect(JSON.parse(stdout)).toMatchObject({
    prefill: { tokens: 32, tokensPerSecond: rate, flopsPerToken: expect.any(Number) },
    decode: { tokens: 8, depth: 16, batch: 2, tokensPerSecond: rate },
    memory: { peakBytes: expect.any(Number), shareOfBandwidth: expect.any(Number) },
    arithmetic: { flopsPerSecond: expect.any(Number), shareOfPeak: expect.any(Number) },
    machine: { threads: 2, flopsPerSecond: expect.any(Number), readBytesPerSecond: expect.any(Number) },
    profile: { steps: [{ name: 'prefill of 32 tokens after 0' }, { name: 'decode of 2 after 16 tokens' }] },
  });
  const { traceEvents } = JSON.parse(await readFile(trace, 'utf8'));
  expect(traceEvents).toContainEqual(
    expect.objectContaining({ ph: 'X', name: 'latent_attention', dur: expect.any(Number) }),
  );
});

test.each([
  [['inspect', 'no-such-folder'], /no-such-folder/],
  [
    ['logits', '--model', GOLDEN, '--tokens', 'package.json', '--out', 'x'],
    /package\.json: expected a JSON array of token ids/,
  ],
  [['logits', '--model', GOLDEN, '--tokens', 'README.md.none', '--out', 'x'], /README\.md\.none/],
  [['run', '--model', GOLDEN, 'hello'], /has no tokenizer\.json: give token ids/],
  [['run', '--temperature', '3', 'hello'], /Expected a number from 0 to 2/],
  [['bench', '--model', GOLDEN, '--prompt', '1000'], /1000 tokens are more than the model's context of 128/],
  [
    ['run', '--model', 'test/fixtures/golden/qwen2-tiny', '--cache-dtype', 'fp8', 'hi'],
    /an FP8 cache holds the latents of MLA; qwen2 keeps/,
  ],
  [['serve', '--port', '99999'], /Expected a whole number from 0 to 65535/],
  [['brew'], /unknown command 'brew'/],
])('%j fails with one message and no stack trace', async (args, message) => {
  const { code, stdout, stderr } = await farthing(args);
  expect(code).toBe(1);
  expect(stdout).toBe('');
  expect(stderr).toMatch(message);
  expect(stderr).not.toMatch(/^ {4}at /m);
});

function tensorOf(file: string, name: string) {
  const { shape, bytes } = openSafetensors(file).tensors.get(name)!;
  return { shape, values: new Float32Array(bytes.slice().buffer) };
}

function relativeL2(a: Float32Array, b: Float32Array): number {
  const norm = (values: Float32Array) => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
  return norm(a.map((value, i) => value - b[i]!)) / norm(b);
}
