import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { openCheckpoint, toFloat32 } from '../../src/model/checkpoint.ts';
import { parseConfig } from '../../src/model/config.ts';
import { openSafetensors } from '../../src/model/mapped-safetensors.ts';
import { ropeFrequencies } from '../../src/model/rope.ts';

const path = (name: string) => new URL(`../fixtures/${name}`, import.meta.url).pathname;
const read = (name: string) => JSON.parse(readFileSync(path(name), 'utf8'));
const goldenCases = readdirSync(path('golden')).filter((name) => !name.includes('.'));
const v3 = read('deepseek-configs/hf-deepseek-v3-config.json');
const llama = read('golden/llama-tiny/config.json');
const qwen3 = read('golden/qwen3-tiny/config.json');
const rope = (json: object) => ropeFrequencies(parseConfig(json, 'config.json'));

describe('ropeFrequencies', () => {
  test('without scaling they are powers of theta and nothing is magnified', () => {
    const { inverseFrequencies, magnitude, softmaxScale } = rope({ ...qwen3, head_dim: 128 });
    expect(inverseFrequencies).toHaveLength(64);
    expect(inverseFrequencies[0]).toBe(1);
    expect(inverseFrequencies[32]).toBeCloseTo(1e-3, 15);
    expect(inverseFrequencies[63]).toBeCloseTo(1e6 ** (-126 / 128), 18);
    expect([magnitude, softmaxScale]).toEqual([1, 1 / Math.sqrt(128)]);
  });

  test('linear scaling divides all of them', () => {
    const plain = rope(qwen3).inverseFrequencies;
    const { inverseFrequencies, magnitude } = rope({ ...qwen3, rope_scaling: { type: 'linear', factor: 4 } });
    expect([...inverseFrequencies]).toEqual([...plain].map((frequency) => frequency / 4));
    expect(magnitude).toBe(1);
  });

  test('YaRN of DeepSeek-V3 keeps pairs up to 10, divides those from 23 by 40, and ramps between', () => {
    const { inverseFrequencies, magnitude, softmaxScale } = rope(v3);
    const plain = (i: number) => 10000 ** (-i / 32);
    // Correction range of 64 channels over 4096 positions: turns 32 and 1 fall at 10.47 and 22.51.
    expect(inverseFrequencies[10]).toBeCloseTo(plain(10), 15);
    expect(inverseFrequencies[11]).toBeCloseTo(plain(11) * (12 / 13 + 1 / 13 / 40), 15);
    expect(inverseFrequencies[23]).toBeCloseTo(plain(23) / 40, 15);
    expect(inverseFrequencies[31]).toBeCloseTo(plain(31) / 40, 15);
    expect(magnitude).toBe(1);
    // 192^-1/2 × (0.1 ln 40 + 1)^2
    expect(softmaxScale).toBeCloseTo(0.0721687836 * 1.8738542, 7);
  });

  test('YaRN of a dense model magnifies cosines and sines, and leaves the softmax alone', () => {
    const scaling = { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 32768 };
    const { magnitude, softmaxScale } = rope({ ...qwen3, rope_scaling: scaling });
    expect(magnitude).toBeCloseTo(1.1386294361, 9);
    expect(softmaxScale).toBe(1 / Math.sqrt(48));
    expect(rope({ ...qwen3, rope_scaling: { ...scaling, attention_factor: 1.5 } }).magnitude).toBe(1.5);
  });

  test('unequal mscales of DeepSeek share the magnitude between the rotation and the softmax', () => {
    const { magnitude, softmaxScale } = rope({
      ...v3,
      rope_scaling: { ...v3.rope_scaling, mscale: 2, mscale_all_dim: 0.5 },
    });
    expect(magnitude).toBeCloseTo((1 + 0.2 * Math.log(40)) / (1 + 0.05 * Math.log(40)), 12);
    expect(softmaxScale).toBeCloseTo((1 + 0.05 * Math.log(40)) ** 2 / Math.sqrt(192), 12);
  });

  test('the bands of Llama 3.1 meet where its paper puts them', () => {
    const scaling = { ...llama.rope_scaling, original_max_position_embeddings: 8192 };
    const { inverseFrequencies } = rope({ ...llama, head_dim: 128, rope_scaling: scaling });
    const plain = (i: number) => 500000 ** (-i / 64);
    // Wavelengths under 8192/4 stay, over 8192/1 are stretched eightfold: between pairs 28 and 29, 34 and 35.
    expect(inverseFrequencies[28]).toBe(plain(28));
    expect(inverseFrequencies[29]).toBeLessThan(plain(29));
    expect(inverseFrequencies[34]).toBeGreaterThan(plain(34) / 8);
    expect(inverseFrequencies[35]).toBe(plain(35) / 8);
  });

  test.each(goldenCases)('the keys that the reference rotated in %s come out the same', async (name) => {
    const { tensors } = openSafetensors(path(`golden/${name}/golden.safetensors`));
    const checkpoint = await openCheckpoint(path(`golden/${name}`));
    const { config } = checkpoint;
    const weight = (tensor: string) => toFloat32(checkpoint.tensor(`model.layers.0.${tensor}.weight`));
    const golden = (tensor: string) => new Float32Array(tensors.get(tensor)!.bytes.slice().buffer);

    const isLatent = config.family === 'deepseek';
    const dim = isLatent ? config.qkRopeHeadDim : config.headDim;
    const projection = isLatent
      ? weight('self_attn.kv_a_proj_with_mqa').subarray(config.kvLoraRank * config.hiddenSize)
      : weight('self_attn.k_proj').subarray(0, dim * config.hiddenSize);
    const bias =
      !isLatent && config.qkvBias ? toFloat32(checkpoint.tensor('model.layers.0.self_attn.k_proj.bias')) : null;
    const prompts = [...tensors.keys()].filter((key) => key.endsWith('.hidden.embed')).map((key) => key.split('.')[0]);
    expect(prompts.length).toBeGreaterThan(1);
    for (const p of prompts) {
      const embedded = golden(`${p}.hidden.embed`);
      const rotated = golden(`${p}.kv.layer0.${isLatent ? 'k_pe' : 'k'}`);
      const width = rotated.length / (embedded.length / config.hiddenSize);
      for (let position = 0; position * config.hiddenSize < embedded.length; position++) {
        const row = embedded.subarray(position * config.hiddenSize, (position + 1) * config.hiddenSize);
        const normed = rmsNorm(row, weight('input_layernorm'), config.rmsNormEps);
        let key = Array.from({ length: dim }, (_, i) => (bias?.[i] ?? 0) + dot(projection, i, normed));
        if (!isLatent && config.qkNorm) key = rmsNorm(key, weight('self_attn.k_norm'), config.rmsNormEps);
        const expected = [...rotated.subarray(position * width, position * width + dim)];
        const found = rotate(key, position, ropeFrequencies(config), isLatent);
        const distance = Math.hypot(...found.map((value, i) => value - expected[i]!));
        expect(distance / Math.hypot(...expected)).toBeLessThan(2e-5);
      }
    }
  });
});

function rmsNorm(row: ArrayLike<number>, weight: Float32Array, eps: number): number[] {
  const values = Array.from(row);
  const mean = values.reduce((sum, value) => sum + value * value, 0) / values.length;
  return values.map((value, i) => (value / Math.sqrt(mean + eps)) * weight[i]!);
}

function dot(matrix: Float32Array, row: number, x: readonly number[]): number {
  return x.reduce((sum, value, i) => sum + value * matrix[row * x.length + i]!, 0);
}

/** Pairs side by side in latent attention, half a head apart otherwise. */
function rotate(
  key: readonly number[],
  position: number,
  { inverseFrequencies, magnitude }: ReturnType<typeof ropeFrequencies>,
  sideBySide: boolean,
): number[] {
  const rotated = [...key];
  const half = key.length / 2;
  for (let i = 0; i < half; i++) {
    const [a, b] = sideBySide ? [2 * i, 2 * i + 1] : [i, i + half];
    const cos = magnitude * Math.cos(position * inverseFrequencies[i]!);
    const sin = magnitude * Math.sin(position * inverseFrequencies[i]!);
    rotated[a] = key[a]! * cos - key[b]! * sin;
    rotated[b] = key[b]! * cos + key[a]! * sin;
  }
  return rotated;
}
