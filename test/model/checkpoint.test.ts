import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { openCheckpoint, toFloat32 } from '../../src/model/checkpoint.ts';
import { openSafetensors } from '../../src/model/mapped-safetensors.ts';
import { tinyConfig, tinyTensors, writeCheckpoint, writeShards } from './tiny-checkpoint.ts';

const golden = new URL('../fixtures/golden/', import.meta.url).pathname;
const goldenCases = readdirSync(golden).filter((name) => !name.includes('.'));
const root = mkdtempSync(join(tmpdir(), 'farthing-checkpoint-'));
afterAll(() => rmSync(root, { recursive: true }));
let folders = 0;
const newFolder = () => join(root, String(folders++));

describe('openCheckpoint', () => {
  test.each(goldenCases)('%s opens, and every weight of it can be read', async (name) => {
    const checkpoint = await openCheckpoint(join(golden, name));
    for (const weight of checkpoint.names) {
      const { shape, ...stored } = checkpoint.tensor(weight);
      const values = toFloat32({ shape, ...stored });
      expect(values).toHaveLength(shape.reduce((product, size) => product * size));
      expect(values.every(Number.isFinite)).toBe(true);
    }
    expect(checkpoint.notes).toEqual([]);
  });

  test.each(goldenCases)('embedding rows of %s are the hidden states that the reference looked up', async (name) => {
    const checkpoint = await openCheckpoint(join(golden, name));
    const { prompts } = JSON.parse(readFileSync(join(golden, name, 'golden.json'), 'utf8'));
    const { tensors } = openSafetensors(join(golden, name, 'golden.safetensors'));
    const table = toFloat32(checkpoint.tensor('model.embed_tokens.weight'));
    const { hiddenSize } = checkpoint.config;
    const rows = (prompts[0].input_ids as number[]).map((id) => table.subarray(id * hiddenSize, (id + 1) * hiddenSize));
    const expected = new Float32Array(tensors.get('p0.hidden.embed')!.bytes.slice().buffer);
    expect(rows.flatMap((row) => [...row])).toEqual([...expected]);
  });

  test('an FP8 weight comes with its scales, from another shard too', async () => {
    const folder = newFolder();
    const tensors = tinyTensors();
    await writeShards(folder, tinyConfig, tensors, 3);
    const checkpoint = await openCheckpoint(folder);
    const { dtype, scales, bytes, shape } = checkpoint.tensor('model.layers.0.mlp.up_proj.weight');
    expect({ dtype, scales, shape }).toEqual({ dtype: 'F8_E4M3', scales: Float32Array.of(0.5), shape: [12, 8] });
    expect([...bytes]).toEqual([...tensors.find(({ name }) => name === 'model.layers.0.mlp.up_proj.weight')!.bytes]);
    expect(checkpoint.names.some((name) => name.endsWith('_scale_inv'))).toBe(false);
  });

  test('a quantised model may keep some projections unquantised', async () => {
    const folder = newFolder();
    const tensors = tinyTensors().filter(({ name }) => name !== 'model.layers.0.mlp.up_proj.weight_scale_inv');
    const weight = tensors.find(({ name }) => name === 'model.layers.0.mlp.up_proj.weight')!;
    Object.assign(weight, { dtype: 'F32', bytes: new Uint8Array(new Float32Array(96).fill(0.25).buffer) });
    await writeCheckpoint(folder, tinyConfig, tensors);
    const stored = (await openCheckpoint(folder)).tensor(weight.name);
    expect(stored.scales).toBe(undefined);
    expect([...toFloat32(stored)]).toEqual(new Array(96).fill(0.25));
  });

  test('a file whose tensors lie at odd bytes is read right', async () => {
    const folder = newFolder();
    await writeCheckpoint(folder, tinyConfig, tinyTensors());
    const good = await openCheckpoint(folder);
    const file = readFileSync(join(folder, 'model.safetensors'));
    const header = file.subarray(8, 8 + Number(file.readBigUInt64LE(0)));
    const odd = Buffer.concat([Buffer.alloc(8), header, Buffer.from(' '), file.subarray(8 + header.length)]);
    odd.writeBigUInt64LE(BigInt(header.length + 1));
    const oddFolder = newFolder();
    await writeCheckpoint(oddFolder, tinyConfig, []);
    writeFileSync(join(oddFolder, 'model.safetensors'), odd);
    const checkpoint = await openCheckpoint(oddFolder);
    for (const name of checkpoint.names) {
      expect(toFloat32(checkpoint.tensor(name))).toEqual(toFloat32(good.tensor(name)));
      const { bytes, dtype } = checkpoint.tensor(name);
      expect(bytes.byteOffset % (dtype === 'BF16' ? 2 : 1)).toBe(0);
    }
  });

  test('buffers that every reader computes itself are ignored', async () => {
    const folder = newFolder();
    const bytes = new Uint8Array(4);
    const extra = ['model.layers.0.self_attn.rotary_emb.inv_freq', 'model.rotary_emb.inv_freq'];
    const buffers = extra.map((name) => ({ name, dtype: 'F32' as const, shape: [1], bytes }));
    await writeCheckpoint(folder, tinyConfig, [...tinyTensors(), ...buffers]);
    expect((await openCheckpoint(folder)).names).not.toContain(extra[0]);
  });

  test('a tied head may be stored or not, and the embedding stands for it', async () => {
    const config = { ...tinyConfig, tie_word_embeddings: true };
    for (const stored of [true, false]) {
      const folder = newFolder();
      await writeCheckpoint(
        folder,
        config,
        tinyTensors(config).filter(({ name }) => stored || name !== 'lm_head.weight'),
      );
      expect((await openCheckpoint(folder)).has('lm_head.weight')).toBe(false);
    }
  });

  test('the copies inside an MTP module may be left out', async () => {
    const folder = newFolder();
    const tensors = tinyTensors().filter(({ name }) => !/layers\.2\.(embed_tokens|shared_head\.head)/.test(name));
    await writeCheckpoint(folder, tinyConfig, tensors);
    expect((await openCheckpoint(folder)).config).toMatchObject({ numNextnPredictLayers: 1 });
  });

  test('an MTP module that the config does not name is set aside, and that is said', async () => {
    const folder = newFolder();
    const config = { ...tinyConfig, num_nextn_predict_layers: 0 };
    await writeCheckpoint(folder, config, tinyTensors());
    const checkpoint = await openCheckpoint(folder);
    expect(checkpoint.names.some((name) => name.startsWith('model.layers.2.'))).toBe(false);
    expect(checkpoint.notes).toEqual([
      'model.layers.2.*: an MTP module, set aside because num_nextn_predict_layers = 0 in config.json',
    ]);
  });

  test('a model saved without its MTP module opens without it, and that is said', async () => {
    const folder = newFolder();
    await writeCheckpoint(folder, tinyConfig, tinyTensors({ ...tinyConfig, num_nextn_predict_layers: 0 }));
    const checkpoint = await openCheckpoint(folder);
    expect(checkpoint.config).toMatchObject({ numNextnPredictLayers: 0 });
    expect(checkpoint.notes).toEqual([
      'model.layers.2.*: no MTP module is stored, though num_nextn_predict_layers = 1',
    ]);
  });
});
