import { mkdtemp, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { loadModel } from '../../src/engine/language-model.ts';
import { openModel } from '../../src/model/load.ts';
import { tinyConfig, tinyTensors, writeCheckpoint } from './tiny-checkpoint.ts';

const GOLDEN = 'test/fixtures/golden';
let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(path.join(os.tmpdir(), 'farthing-packed-'));
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

async function logitsOf(folder: string, compute: 'f32' | 'fast', packedFile?: string): Promise<Float32Array> {
  const model = await loadModel(folder, { compute, packedFile, sequences: 1 });
  const logits = await model.logits(Array.from({ length: 30 }, (_, i) => (i * 37 + 5) % model.config.vocabSize));
  await model.close();
  return logits;
}

test.each(['v3-tiny-fp8', 'v3-tiny-mtp', 'v2lite-tiny', 'llama-tiny'])(
  'a model from its packed file computes the same bits as from memory: %s',
  async (name) => {
    for (const compute of ['f32', 'fast'] as const) {
      const file = path.join(scratch, `${name}-${compute}.packed`);
      const inMemory = await logitsOf(`${GOLDEN}/${name}`, compute);
      expect(await logitsOf(`${GOLDEN}/${name}`, compute, file)).toEqual(inMemory);
      expect(await logitsOf(`${GOLDEN}/${name}`, compute, file)).toEqual(inMemory);
    }
  },
);

test('the file is written once, and anew when the weights change', async () => {
  const folder = path.join(scratch, 'model');
  const weights = path.join(folder, 'model.safetensors');
  await writeCheckpoint(folder, tinyConfig, tinyTensors());
  const file = path.join(scratch, 'once.packed');
  const pieces: number[] = [];
  const open = () => openModel(folder, { packedFile: file, onPacking: (done) => pieces.push(done) });
  await open();
  const written = await stat(file);
  expect(pieces.length).toBeGreaterThan(20);
  await open();
  expect((await stat(file)).ino).toBe(written.ino);
  await utimes(weights, new Date(), new Date(Date.now() + 5000));
  await open();
  expect((await stat(file)).ino).not.toBe(written.ino);
});

test('weights that are NaN are refused by name, from memory or while the file is written, and no file is left', async () => {
  const folder = path.join(scratch, 'damaged');
  const name = 'model.layers.1.mlp.experts.2.up_proj.weight';
  const tensors = tinyTensors();
  tensors.find((tensor) => tensor.name === name)!.bytes[3] = 0xff;
  await writeCheckpoint(folder, tinyConfig, tensors);
  const refused = `model.safetensors: tensor "${name}" is NaN at [0, 3], expected numbers. The file is damaged`;
  await expect(loadModel(folder)).rejects.toThrow(refused);
  const file = path.join(scratch, 'damaged.packed');
  await expect(loadModel(folder, { packedFile: file })).rejects.toThrow(refused);
  await expect(stat(file)).rejects.toThrow();
});

test('a file of another kind is left alone', async () => {
  const file = path.join(scratch, 'letter.txt');
  await writeFile(file, 'Dear reader, this is a letter and no weights.');
  await expect(openModel(`${GOLDEN}/v3-tiny`, { packedFile: file })).rejects.toThrow(/letter\.txt/);
  expect(await readFile(file, 'utf8')).toMatch(/^Dear reader/);
  const weights = `${GOLDEN}/v3-tiny/model.safetensors`;
  await expect(openModel(`${GOLDEN}/v3-tiny`, { packedFile: weights })).rejects.toThrow(/is no packed file/);
});
