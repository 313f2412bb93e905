import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openDiskCache } from '../../src/engine/disk-tier.ts';
import { Engine, type Request, type SampledToken, type Usage } from '../../src/engine/engine.ts';
import { type Model, type OpenOptions, openModel } from '../../src/model/load.ts';
import { createRunner } from '../../src/model/runner.ts';

const CONTEXT = 128;
const warnings: string[] = [];
const made: string[] = [];
afterAll(async () => {
  for (const folder of made) await rm(folder, { recursive: true, force: true });
});
let models: Record<string, Model>;
beforeAll(async () => {
  const open = (name: string, options: OpenOptions) => openModel(`test/fixtures/golden/${name}`, options);
  models = {
    mla: await open('v3-tiny', {}),
    'mla fp8': await open('v3-tiny', { cacheDtype: 'fp8' }),
    'mla f32': await open('v3-tiny', { compute: 'f32' }),
    gqa: await open('qwen3-tiny', {}),
    'mla with drafts': await open('v3-tiny-mtp', {}),
  };
});

async function newFolder(): Promise<string> {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'farthing-tier-'));
  made.push(folder);
  return folder;
}

const SHAPE = { blocks: 64, blockTokens: 16, bytes: 2 ** 24, sequences: 4, drafts: 2 };

async function engineOf(model: Model, folder: string | null, shape: Partial<typeof SHAPE> = {}): Promise<Engine> {
  return (await engineAndRunner(model, folder, shape)).engine;
}

async function engineAndRunner(model: Model, folder: string | null, shape: Partial<typeof SHAPE>) {
  const { blocks, blockTokens, bytes, sequences, drafts } = { ...SHAPE, ...shape };
  const blocksPerSequence = Math.min(blocks, CONTEXT / blockTokens);
  const logits = sequences * (1 + drafts);
  const runner = await createRunner(model, {
    tokens: 32,
    logits,
    sequences,
    blocks,
    blockTokens,
    blocksPerSequence,
    drafts,
  });
  const warn = (problem: string) => warnings.push(problem);
  const diskCache = folder === null ? {} : { diskCache: await openDiskCache(model, runner, { folder, bytes, warn }) };
  return { runner, engine: new Engine(runner, { waiting: 100, contextTokens: CONTEXT, ...diskCache }) };
}

const request = (family: number, promptTokens: number, tenant = ''): Request => ({
  prompt: Array.from({ length: promptTokens }, (_, i) => (family * 101 + i * 17) % 256),
  maxTokens: 10,
  sampling: { temperature: 1, topP: 0.95, topK: 50, seed: family },
  stopTokens: new Set<number>(),
  topLogprobs: 2,
  tenant,
});

async function answer(engine: Engine, wanted: Request): Promise<{ tokens: SampledToken[]; usage: Usage }> {
  const generation = engine.submit(wanted);
  const tokens: SampledToken[] = [];
  for await (const token of generation) tokens.push(token);
  return { tokens, usage: generation.usage };
}

test.each(['mla', 'mla fp8', 'mla f32', 'gqa', 'mla with drafts'])(
  '%s: after a restart prompts are found on disk, counted exactly, and answered the same to the bit',
  async (name) => {
    const model = models[name]!;
    const folder = await newFolder();
    const wanted = [request(0, 70), request(1, 33), request(0, 90)];
    const alone = await engineOf(model, null);
    const expected: SampledToken[][] = [];
    for (const one of wanted) expected.push((await answer(alone, one)).tokens);
    const first = await engineOf(model, folder);
    for (const [i, one] of wanted.entries()) expect((await answer(first, one)).tokens).toEqual(expected[i]);
    await first.close();

    const second = await engineOf(model, folder);
    const answers = await Promise.all(wanted.map((one) => answer(second, one)));
    expect(answers.map(({ tokens }) => tokens)).toEqual(expected);
    expect(answers.map(({ usage }) => usage.cachedTokens)).toEqual([64, 32, 80]);
    expect(second.status().counts).toMatchObject({ cachedPromptTokens: 176, fetchedPromptTokens: 176 });
    // What came from the disk is in memory now.
    expect((await answer(second, wanted[0]!)).tokens).toEqual(expected[0]);
    expect(second.status().counts).toMatchObject({ cachedPromptTokens: 240, fetchedPromptTokens: 176 });
    await second.close();
    expect(second.status().disk?.counts).toMatchObject({ damaged: 0, failed: 0 });
  },
);

test('a block on disk holds what it holds in memory, the MTP module’s layer included', async () => {
  const folder = await newFolder();
  const { engine, runner } = await engineAndRunner(models['mla with drafts']!, folder, {});
  await Promise.all([request(0, 70), request(1, 33), request(2, 100)].map((one) => answer(engine, one)));
  await engine.close();
  const inMemory = Array.from({ length: SHAPE.blocks }, (_, block) => {
    const content = Buffer.alloc(runner.blocks.bytes);
    runner.blocks.read(block, content);
    return content.toString('base64');
  });
  const files = await readdir(folder);
  expect(files.length).toBeGreaterThan(10);
  for (const name of files) {
    const content = (await readFile(path.join(folder, name))).subarray(-32 - runner.blocks.bytes, -32);
    expect(inMemory.indexOf(content.toString('base64'))).not.toBe(-1);
  }
});

test('what another tenant, model, compute mode, cache type or block size computed is not found', async () => {
  const folder = await newFolder();
  const first = await engineOf(models.mla!, folder);
  await answer(first, request(0, 70, 'a'));
  await first.close();
  const hits = async (model: Model, tenant: string, blockTokens = 16) => {
    const engine = await engineOf(model, folder, { blockTokens });
    const { usage } = await answer(engine, request(0, 70, tenant));
    await engine.close();
    return usage.cachedTokens;
  };
  expect(await hits(models.mla!, 'b')).toBe(0);
  expect(await hits(models['mla f32']!, 'a')).toBe(0);
  expect(await hits(models['mla fp8']!, 'a')).toBe(0);
  expect(await hits(models.gqa!, 'a')).toBe(0);
  expect(await hits(models.mla!, 'a', 32)).toBe(0);
  expect(await hits(models['mla with drafts']!, 'a')).toBe(0);
  expect(await hits(models.mla!, 'a')).toBe(64);
});

test('a damaged block is reported, computed anew and written anew; the answer is the same', async () => {
  const folder = await newFolder();
  const first = await engineOf(models.mla!, folder);
  const expected = await answer(first, request(0, 70));
  await first.close();
  for (const name of await readdir(folder)) {
    const file = await readFile(path.join(folder, name));
    file[file.length >> 1]! ^= 1;
    await writeFile(path.join(folder, name), file);
  }
  warnings.length = 0;
  const second = await engineOf(models.mla!, folder);
  expect(await answer(second, request(0, 70))).toEqual(expected);
  await second.close();
  expect(warnings[0]).toContain('is damaged: its checksum is not that of its content');
  const third = await engineOf(models.mla!, folder);
  expect((await answer(third, request(0, 70))).usage.cachedTokens).toBe(64);
});

test('with memory and disk for few blocks, interruptions, and clients that leave while blocks are read, answers stay the same', async () => {
  const folder = await newFolder();
  const alone = await engineOf(models.mla!, null);
  const wanted = Array.from({ length: 12 }, (_, i) => request(i % 5, 20 + 8 * i));
  const expected: SampledToken[][] = [];
  for (const one of wanted) expected.push((await answer(alone, one)).tokens);
  for (let life = 0; life < 3; life++) {
    const tight = await engineOf(models.mla!, folder, { blocks: 12, bytes: 2 ** 17 });
    const leaving = wanted.map((one) => tight.submit(one));
    await new Promise(setImmediate);
    const answers = Promise.all(wanted.map((one) => answer(tight, one)));
    for (const generation of leaving) generation.cancel();
    expect((await answers).map(({ tokens }) => tokens)).toEqual(expected);
    const { blocks, disk, counts } = tight.status();
    if (life > 0) expect(counts.fetchedPromptTokens).toBeGreaterThan(0);
    expect(blocks.free).toBe(blocks.total);
    expect(disk!.bytes).toBeLessThanOrEqual(2 ** 17);
    await tight.close();
  }
});
