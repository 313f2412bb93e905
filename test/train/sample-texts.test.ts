import { mkdtemp, readFile, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { loadModel } from '../../src/index.ts';
import { parseConfig } from '../../src/model/config.ts';
import { bf16ToFloat32, float32ToBf16 } from '../../src/numerics/bf16.ts';
import { loadTokenizer } from '../../src/tokenizer/tokenizer.ts';
import { createParameters } from '../../src/train/parameters.ts';
import { textSampler } from '../../src/train/sample-texts.ts';
import { writeModel } from '../../src/train/training-checkpoint.ts';
import { makeTinyModel } from '../server/tiny-model.ts';

const out = await mkdtemp(path.join(os.tmpdir(), 'samples-'));
afterAll(() => rm(out, { recursive: true, force: true }));

const prompts = ['The fox', 'A crow and a mouse met.', ''];

/** A model in training whose weights are what its checkpoint can hold. */
async function inTraining() {
  const folder = await makeTinyModel();
  const json = JSON.parse(await readFile(path.join(folder, 'config.json'), 'utf8'));
  const config = parseConfig({ ...json, initializer_range: 0.3 }, 'config.json');
  const parameters = createParameters(config, 7, 'fp32');
  parameters.master.set(bf16ToFloat32(float32ToBf16(parameters.master)));
  const tokenizer = (await loadTokenizer(folder))!;
  const sample = async (temperature: number, seed: number) => {
    const sampler = textSampler(config, parameters, tokenizer, { prompts, tokens: 12, temperature, seed });
    await parameters.repack();
    return sampler();
  };
  return { folder, config, parameters, sample };
}

test('greedy samples in training are what the engine writes from the checkpoint', async () => {
  const { folder, config, parameters, sample } = await inTraining();
  const samples = await sample(0, 1);
  const files = ['tokenizer.json', 'tokenizer_config.json'].map((name) => path.join(folder, name));
  await writeModel(out, config, parameters, files);
  const model = await loadModel(out, { compute: 'f32' });
  // the longest prompt decides how many positions there are: each text has at least 12 tokens
  for (const [i, { prompt, text }] of samples.entries()) {
    let written = '';
    for await (const piece of model.generate({ prompt: `<bos>${prompts[i]}`, temperature: 0, maxTokens: 12 }))
      written += piece.text;
    expect(prompt).toBe(prompts[i]);
    expect(text.startsWith(written.replace(/\uFFFD+$/, ''))).toBe(true);
    expect(written.length).toBeGreaterThan(0);
  }
  await model.close();
});

test('samples are a function of the weights and the seed', async () => {
  const { sample } = await inTraining();
  const first = await sample(0.9, 3);
  expect(await sample(0.9, 3)).toEqual(first);
  expect(await sample(0.9, 4)).not.toEqual(first);
});
