import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadModel } from '../../src/engine/language-model.ts';
import { openCheckpoint, toFloat32 } from '../../src/model/checkpoint.ts';
import { convertCheckpoint } from '../../src/model/convert.ts';
import { openSafetensors } from '../../src/model/mapped-safetensors.ts';
import { E4M3_VALUES } from '../../src/numerics/e4m3.ts';
import { dequantiseFours, quantiseFours } from '../../src/numerics/nvfp4.ts';

const GOLDEN = 'test/fixtures/golden';
let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(path.join(os.tmpdir(), 'farthing-convert-'));
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

const content = (folder: string) => readFile(path.join(folder, 'model.safetensors'));

/** Mean loss of a model on a text, in nats a token. */
async function lossOf(folder: string): Promise<number> {
  const model = await loadModel(folder, { compute: 'f32', sequences: 1 });
  const ids = model.encode({ prompt: TALE });
  const logits = await model.logits(ids);
  await model.close();
  const { vocabSize } = model.config;
  const losses = ids.slice(1).map((id, i) => {
    const row = logits.subarray(i * vocabSize, (i + 1) * vocabSize);
    return Math.log(row.reduce((sum, logit) => sum + Math.exp(logit), 0)) - row[id]!;
  });
  return losses.reduce((a, b) => a + b) / losses.length;
}

const TALE =
  'Once upon a time there was a little fox who lived in the forest. One day he saw a crow high up in a tree with a ' +
  'piece of cheese. "What a beautiful bird you are," said the fox. "Will you sing for me?" The crow opened her mouth, ' +
  'and the cheese fell down. The fox ate it all up and was very happy.';

const numbers = E4M3_VALUES.filter((value) => !Number.isNaN(value));

describe('to FP8', () => {
  test('every block has the scale that makes its largest value 448, every code is the nearest, all else is kept', async () => {
    const out = path.join(scratch, 'v3-fp8');
    await convertCheckpoint(`${GOLDEN}/v3-tiny-mtp`, out, { to: 'fp8' });
    const [before, after] = [await openCheckpoint(`${GOLDEN}/v3-tiny-mtp`), await openCheckpoint(out)];
    expect(after.names).toEqual(before.names);
    let projections = 0;
    for (const name of before.names) {
      const [from, to] = [before.tensor(name), after.tensor(name)];
      const kept = /embed_tokens|lm_head|shared_head|norm|mlp\.gate\.|bias|eh_proj/.test(name);
      expect({ name, dtype: to.dtype }).toEqual({ name, dtype: kept ? from.dtype : 'F8_E4M3' });
      if (to.dtype !== 'F8_E4M3') {
        expect(Buffer.compare(to.bytes, from.bytes)).toBe(0);
        continue;
      }
      projections++;
      const [rows, cols] = from.shape as [number, number];
      const values = toFloat32(from);
      const gridCols = Math.ceil(cols / 128);
      const most = new Float64Array(to.scales!.length);
      const block = (i: number) => Math.floor(i / cols / 128) * gridCols + Math.floor((i % cols) / 128);
      for (let i = 0; i < rows * cols; i++) most[block(i)] = Math.max(most[block(i)]!, Math.abs(values[i]!));
      expect(to.scales).toEqual(Float32Array.from(most, (m) => m / 448));
      for (let i = 0; i < rows * cols; i += 29) {
        const scale = to.scales![block(i)]!;
        const distance = (value: number) => Math.abs(value * scale - values[i]!);
        const least = numbers.reduce((best, value) => Math.min(best, distance(value)), Number.POSITIVE_INFINITY);
        expect(distance(E4M3_VALUES[to.bytes[i]!]!)).toBeLessThanOrEqual(least + 2 ** -22 * Math.abs(values[i]!));
      }
    }
    expect(projections).toBeGreaterThan(100);
    expect(JSON.parse(await readFile(path.join(out, 'config.json'), 'utf8'))).toEqual({
      ...JSON.parse(await readFile(`${GOLDEN}/v3-tiny-mtp/config.json`, 'utf8')),
      quantization_config: {
        activation_scheme: 'dynamic',
        fmt: 'e4m3',
        quant_method: 'fp8',
        weight_block_size: [128, 128],
      },
    });
  });

  test('there and back again gives the same file to the byte', async () => {
    const [fp8, bf16, again] = ['there', 'back', 'again'].map((name) => path.join(scratch, name)) as [
      string,
      string,
      string,
    ];
    await convertCheckpoint(`${GOLDEN}/v2lite-tiny`, fp8, { to: 'fp8' });
    await convertCheckpoint(fp8, bf16, { to: 'bf16' });
    await convertCheckpoint(bf16, again, { to: 'fp8' });
    expect((await content(again)).equals(await content(fp8))).toBe(true);
  });

  test('the built-in model predicts as well as before, and again as BF16', async () => {
    const [fp8, bf16] = [path.join(scratch, 'built-in-fp8'), path.join(scratch, 'built-in-bf16')];
    await convertCheckpoint('models/farthing-tiny', fp8, { to: 'fp8' });
    await convertCheckpoint(fp8, bf16, { to: 'bf16' });
    const before = await lossOf('models/farthing-tiny');
    expect(Math.abs((await lossOf(fp8)) / before - 1)).toBeLessThan(0.01);
    expect(Math.abs((await lossOf(bf16)) / before - 1)).toBeLessThan(0.01);
  });
});

describe('to NVFP4', () => {
  test('projections are codes with two levels of scales under their published names, read back as they were quantised', async () => {
    const out = path.join(scratch, 'v3-nvfp4');
    await convertCheckpoint(`${GOLDEN}/v3-tiny-mtp`, out, { to: 'nvfp4' });
    const name = 'model.layers.1.mlp.experts.3.up_proj.weight';
    const { tensors } = openSafetensors(path.join(out, 'model.safetensors'));
    const [before, after] = [await openCheckpoint(`${GOLDEN}/v3-tiny-mtp`), await openCheckpoint(out)];
    const [rows, cols] = before.header(name).shape as [number, number];
    expect(tensors.get(name)).toMatchObject({ dtype: 'U8', shape: [rows, cols / 2] });
    expect(tensors.get(`${name}_scale`)).toMatchObject({ dtype: 'F8_E4M3', shape: [rows, cols / 16] });
    expect(tensors.get(`${name}_scale_2`)).toMatchObject({ dtype: 'F32', shape: [] });
    expect(after.header(name)).toMatchObject({ dtype: 'NVFP4', shape: [rows, cols] });
    const values = toFloat32(before.tensor(name));
    expect(toFloat32(after.tensor(name))).toEqual(dequantiseFours(quantiseFours(values)));
    for (const kept of before.names.filter((each) => /kv_b_proj|embed_tokens|norm|mlp\.gate\.|eh_proj/.test(each))) {
      expect(Buffer.compare(after.tensor(kept).bytes, before.tensor(kept).bytes)).toBe(0);
    }
  });

  test('the built-in model predicts nearly as well', async () => {
    const out = path.join(scratch, 'built-in-nvfp4');
    await convertCheckpoint('models/farthing-tiny', out, { to: 'nvfp4' });
    const before = await lossOf('models/farthing-tiny');
    expect(Math.abs((await lossOf(out)) / before - 1)).toBeLessThan(0.05);
    // the same from a packed file, to the bit
    const packedFile = path.join(scratch, 'built-in-nvfp4.packed');
    const logits = async (options: object) => {
      const model = await loadModel(out, { sequences: 1, ...options });
      const result = await model.logits([5, 6, 7, 8]);
      await model.close();
      return result;
    };
    expect(await logits({ packedFile })).toEqual(await logits({}));
  });

  test('a scale that cannot be is refused by name', async () => {
    const out = path.join(scratch, 'bad-scale');
    await convertCheckpoint(`${GOLDEN}/v3-tiny`, out, { to: 'nvfp4' });
    const file = path.join(out, 'model.safetensors');
    const bytes = await readFile(file);
    const header = JSON.parse(bytes.subarray(8, 8 + Number(bytes.readBigUInt64LE())).toString());
    const name = 'model.layers.0.mlp.up_proj.weight_scale';
    bytes[8 + Number(bytes.readBigUInt64LE()) + header[name].data_offsets[0] + 1] = 0xb8;
    await writeFile(file, bytes);
    await expect(loadModel(out)).rejects.toThrow(
      `tensor "${name}" is negative or NaN at [0, 1], expected a positive number`,
    );
  });
});

test('published FP8 becomes BF16: each weight its code times its scale, rounded once', async () => {
  const out = path.join(scratch, 'v3-bf16');
  await convertCheckpoint(`${GOLDEN}/v3-tiny-fp8`, out, { to: 'bf16' });
  const [before, after] = [await openCheckpoint(`${GOLDEN}/v3-tiny-fp8`), await openCheckpoint(out)];
  expect(after.config.quantization).toBe(null);
  for (const name of before.names.filter((each) => before.header(each).dtype === 'F8_E4M3')) {
    const [from, to] = [before.tensor(name), toFloat32(after.tensor(name))];
    const cols = from.shape[1]!;
    const gridCols = Math.ceil(cols / 128);
    for (let i = 0; i < to.length; i += 211) {
      const scale = from.scales![Math.floor(i / cols / 128) * gridCols + Math.floor((i % cols) / 128)]!;
      const exact = E4M3_VALUES[from.bytes[i]!]! * scale;
      expect(Math.abs(to[i]! - exact)).toBeLessThanOrEqual(2 ** -8 * Math.abs(exact));
    }
  }
});

describe('the folder', () => {
  test('is cut into shards that open as one', async () => {
    const [whole, sharded] = [path.join(scratch, 'whole'), path.join(scratch, 'sharded')];
    const written: number[] = [];
    await convertCheckpoint(`${GOLDEN}/v3-tiny`, whole, { to: 'fp8' });
    await convertCheckpoint(`${GOLDEN}/v3-tiny`, sharded, {
      to: 'fp8',
      shardBytes: 100_000,
      onProgress: (done, total) => written.push(done / total),
    });
    const shards = (await readdir(sharded)).filter((name) => name.endsWith('.safetensors'));
    expect(shards.length).toBeGreaterThan(4);
    expect(shards[0]).toBe(`model-00001-of-${String(shards.length).padStart(5, '0')}.safetensors`);
    for (const shard of shards) {
      const { tensors } = openSafetensors(path.join(sharded, shard));
      const bytes = [...tensors.values()].reduce((sum, tensor) => sum + tensor.bytes.byteLength, 0);
      if (tensors.size > 1) expect(bytes).toBeLessThanOrEqual(100_000);
    }
    const [a, b] = [await openCheckpoint(whole), await openCheckpoint(sharded)];
    for (const name of a.names) expect(Buffer.compare(a.tensor(name).bytes, b.tensor(name).bytes)).toBe(0);
    expect(written.at(-1)).toBe(1);
  });

  test('is never half there, and none that is there is written over', async () => {
    const out = path.join(scratch, 'failing');
    const fails = () => {
      throw new Error('disk full');
    };
    await expect(convertCheckpoint(`${GOLDEN}/v3-tiny`, out, { to: 'fp8', onProgress: fails })).rejects.toThrow(
      'disk full',
    );
    expect((await readdir(scratch)).filter((name) => name.startsWith('failing'))).toEqual([]);
    await expect(convertCheckpoint(`${GOLDEN}/v3-tiny`, scratch, { to: 'fp8' })).rejects.toThrow(
      /is there and not empty/,
    );
    await expect(convertCheckpoint(`${GOLDEN}/v3-tiny`, out, { to: 'bf16' })).rejects.toThrow(/nothing to convert/);
  });
});
