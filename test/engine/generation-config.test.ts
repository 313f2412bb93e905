import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { readGenerationConfig } from '../../src/engine/generation-config.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'farthing-generation-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const given = async (text: string) => {
  await writeFile(path.join(folder, 'generation_config.json'), text);
  return readGenerationConfig(folder);
};

test("DeepSeek-R1's own file is understood", async () => {
  const published = {
    _from_model_config: true,
    bos_token_id: 0,
    eos_token_id: 1,
    do_sample: true,
    temperature: 0.6,
    top_p: 0.95,
  };
  expect(await given(JSON.stringify(published))).toEqual({
    eosTokenIds: [1],
    sampling: { temperature: 0.6, topP: 0.95, topK: 0 },
  });
});

test('several ends, and greedy where sampling is off', async () => {
  expect(await given('{"eos_token_id": [5, 6], "do_sample": false, "temperature": 0.7, "top_k": 20}')).toEqual({
    eosTokenIds: [5, 6],
    sampling: { temperature: 0, topP: 1, topK: 20 },
  });
});

test('a folder without the file samples without limits', async () => {
  expect(await readGenerationConfig('test/fixtures/golden/v3-tiny')).toEqual({
    eosTokenIds: [],
    sampling: { temperature: 1, topP: 1, topK: 0 },
  });
});

test.each([
  ['{', 'generation_config.json: not JSON'],
  ['{"temperature": "hot"}', '"temperature": expected a number'],
  ['{"top_p": 3}', '"top_p": expected 0 to 1'],
  ['{"eos_token_id": "</s>"}', '"eos_token_id": expected a token id or an array of them'],
])('%s is refused by name', async (text, message) => {
  await expect(given(text)).rejects.toThrow(message);
});
