import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { readTrainConfig } from '../../src/train/train-config.ts';

const folder = mkdtempSync(path.join(os.tmpdir(), 'train-config-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const keys = `model_type = "qwen2"
vocab_size = 320
hidden_size = 64
intermediate_size = 128
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
max_position_embeddings = 512
`;
const rest = `[data]
train = ["texts.jsonl"]
sequence = 64
batch_tokens = 256
[schedule]
peak = 3e-3
steps = 30
[run]
folder = "run"
`;
const whole = `[model]\n${keys}${rest}`;
const read = (content: string) => {
  const file = path.join(folder, 'run.toml');
  writeFileSync(file, content);
  return readTrainConfig(file);
};

test('the example is a valid config of a DeepSeek-V3 model; its paths are relative to its file', async () => {
  const { model, data, run } = await readTrainConfig('examples/tales.toml');
  expect(model).toMatchObject({ family: 'deepseek', nRoutedExperts: 16, numNextnPredictLayers: 1 });
  expect(data.train).toEqual([path.resolve('models/corpus/storybooks.jsonl.gz')]);
  expect(run.folder).toBe(path.resolve('runs/tales'));
});

test('what is left out has its default', async () => {
  const { optimizer, schedule, objective, run } = await read(whole);
  expect(optimizer).toMatchObject({ beta1: 0.9, beta2: 0.95, weight_decay: 0.1, clip: 1, precision: 'bf16' });
  expect(schedule).toMatchObject({ shape: 'wsd', warmup_steps: 50 });
  expect(objective.mtp_weight).toBe(0.3);
  expect(run).toMatchObject({ checkpoint_every: 100, sample_prompts: [] });
});

test('the model may be in a config.json of its own', async () => {
  const json = Object.fromEntries(
    keys
      .trim()
      .split('\n')
      .map((line) => line.split(' = '))
      .map(([k, v]) => [k, JSON.parse(v!)]),
  );
  writeFileSync(path.join(folder, 'model.json'), JSON.stringify(json));
  const given = await read(`[model]\nconfig = "model.json"\n${rest}`);
  expect(given.model).toEqual((await read(whole)).model);
});

test.each<[string, string, RegExp]>([
  [
    'an unknown key, with the nearest known one',
    whole.replace('batch_tokens', 'batch_token'),
    /run\.toml: unknown key "data\.batch_token"\. Did you mean "batch_tokens"\?/,
  ],
  [
    'an unknown key of a section with defaults',
    `${whole}[optimizer]\nwieght_decay = 0.1\n`,
    /unknown key "optimizer\.wieght_decay"\. Did you mean "weight_decay"\?/,
  ],
  [
    'an unknown section, with the known ones',
    `${whole}[hyperparameters]\n`,
    /unknown key "hyperparameters"\. Known are model, data, optimizer, schedule, objective, run\./,
  ],
  [
    'every value out of range',
    whole.replace('3e-3', '30').replace('sequence = 64', 'sequence = "long"'),
    /data\.sequence is "long", expected a whole number from 8 to 1048576\n +schedule\.peak is 30, expected a number from /,
  ],
  [
    'a choice that there is not',
    `${whole}[optimizer]\nprecision = "fp4"\n`,
    /optimizer\.precision is "fp4", expected one of "bf16", "fp32"/,
  ],
  ['a key that is missing', whole.replace('steps = 30', ''), /schedule\.steps is missing, expected a whole number/],
  ['no texts', whole.replace('["texts.jsonl"]', '[]'), /data\.train is \[\], expected at least one path/],
  [
    'a batch that holds no whole windows',
    whole.replace('batch_tokens = 256', 'batch_tokens = 100'),
    /data\.batch_tokens is 100, expected a multiple of data\.sequence \(64\)/,
  ],
  [
    'windows beyond the positions of the model',
    whole.replace('sequence = 64', 'sequence = 1024').replace('batch_tokens = 256', 'batch_tokens = 1024'),
    /data\.sequence is 1024, expected at most the model's max_position_embeddings \(512\)/,
  ],
  [
    'a field of the model',
    whole.replace('hidden_size = 64', 'hidden_size = 0'),
    /run\.toml \[model\]: "hidden_size" is 0/,
  ],
  ['a model file that is not there', `[model]\nconfig = "none.json"\n${rest}`, /none\.json: not found/],
  ['a model file and keys beside it', `[model]\nconfig = "none.json"\n${keys}${rest}`, /"config" and other keys/],
  ['no TOML', 'peak = = 3', /run\.toml: no TOML: /],
])('%s is refused by name', async (_, content, message) => {
  await expect(read(content)).rejects.toThrow(message);
});

test('a file that is not there is named', async () => {
  await expect(readTrainConfig(path.join(folder, 'none.toml'))).rejects.toThrow(/none\.toml: not found/);
});
