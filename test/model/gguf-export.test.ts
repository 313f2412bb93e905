import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { gguf } from '@huggingface/gguf';
import { afterAll, expect, test } from 'vitest';
import { openCheckpoint, toFloat32 } from '../../src/model/checkpoint.ts';
import { exportGguf } from '../../src/model/gguf-export.ts';
import { writeRandomCheckpoint } from '../../src/model/random-checkpoint.ts';
import { f16ToFloat32, float32ToF16 } from '../../src/numerics/f16.ts';
import { quantiseQ4, quantiseQ8 } from '../../src/numerics/gguf-blocks.ts';
import { noise, relativeError } from '../backend/run-op.ts';

const folder = mkdtempSync(path.join(os.tmpdir(), 'gguf-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Reads the file with Hugging Face's own parser. */
async function exported(model: string, precision: 'f32' | 'bf16') {
  const file = path.join(folder, `${path.basename(model)}-${precision}.gguf`);
  await exportGguf(model, file, precision);
  const parsed = await gguf(file, { allowLocalFile: true });
  const bytes = readFileSync(file);
  const values = (name: string): Float32Array => {
    const info = parsed.tensorInfos.find((tensor) => tensor.name === name)!;
    const count = Number(info.shape.reduce((a, b) => a * b, 1n));
    const from = Number(parsed.tensorDataOffset) + Number(info.offset);
    if (info.dtype === 0)
      return new Float32Array(bytes.buffer.slice(bytes.byteOffset + from, bytes.byteOffset + from + count * 4));
    if (info.dtype === 30)
      return Float32Array.from({ length: count }, (_, i) => bf16(bytes.readUInt16LE(from + 2 * i)));
    return Float32Array.from({ length: count }, (_, i) => {
      const block = from + Math.floor(i / 32) * 34;
      return f16ToFloat32(Uint16Array.of(bytes.readUInt16LE(block)))[0]! * bytes.readInt8(block + 2 + (i % 32));
    });
  };
  return { ...parsed, values };
}

function bf16(bits: number): number {
  return new Float32Array(Uint32Array.of(bits << 16).buffer)[0]!;
}

test('a DeepSeek checkpoint has its tensors under llama.cpp’s names, values kept', async () => {
  const source = 'test/fixtures/golden/v3-tiny';
  const { metadata, tensorInfos, values } = await exported(source, 'bf16');
  expect(metadata).toMatchObject({
    'general.architecture': 'deepseek2',
    'deepseek2.block_count': 4,
    'deepseek2.attention.kv_lora_rank': 64,
    'deepseek2.attention.key_length_mla': 48,
    'deepseek2.expert_gating_func': 2,
    'deepseek2.rope.scaling.type': 'yarn',
  });
  const checkpoint = await openCheckpoint(source);
  const stored = (name: string) => toFloat32(checkpoint.tensor(name));
  expect(values('token_embd.weight')).toEqual(stored('model.embed_tokens.weight'));
  expect(values('blk.1.exp_probs_b.bias')).toEqual(stored('model.layers.1.mlp.gate.e_score_correction_bias'));
  const shape = tensorInfos.find(({ name }) => name === 'blk.2.ffn_down_exps.weight')!.shape;
  expect(shape.map(Number)).toEqual([24, 128, 16]);
  expect(values('blk.2.ffn_down_exps.weight').subarray(3 * 24 * 128, 4 * 24 * 128)).toEqual(
    stored('model.layers.2.mlp.experts.3.down_proj.weight'),
  );
  // head 1, latent 5, key dimension 7 of the transposed key part; head 1 of the value part
  const kvB = stored('model.layers.0.self_attn.kv_b_proj.weight');
  expect(values('blk.0.attn_k_b.weight')[(64 + 5) * 32 + 7]).toBe(kvB[(64 + 7) * 64 + 5]);
  expect(values('blk.0.attn_v_b.weight').subarray(32 * 64, 64 * 64)).toEqual(kvB.subarray((64 + 32) * 64, 128 * 64));
});

test('the bands of Llama 3 are a tensor that the frequencies are divided by', async () => {
  const source = 'test/fixtures/golden/llama-tiny';
  const { values } = await exported(source, 'bf16');
  const config = JSON.parse(readFileSync(`${source}/config.json`, 'utf8'));
  const { rope_theta: theta, rope_scaling: scaling } = config;
  const dim = config.hidden_size / config.num_attention_heads;
  const divisors = [...values('rope_freqs.weight')];
  expect(divisors).toHaveLength(dim / 2);
  divisors.forEach((divisor, i) => {
    const wavelength = 2 * Math.PI * theta ** ((2 * i) / dim);
    const trained = scaling.original_max_position_embeddings;
    if (wavelength < trained / scaling.high_freq_factor) expect(divisor).toBeCloseTo(1, 6);
    else if (wavelength > trained / scaling.low_freq_factor) expect(divisor).toBeCloseTo(scaling.factor, 5);
    else expect(divisor).toBeGreaterThan(1);
  });
});

test('F32 leaves no matrix rounded', async () => {
  const { metadata, tensorInfos } = await exported('test/fixtures/golden/v2lite-tiny', 'f32');
  expect(metadata).toMatchObject({ 'general.file_type': 0 });
  expect(new Set(tensorInfos.map(({ dtype }) => dtype))).toEqual(new Set([0]));
});

test.each([
  [{ beta_fast: 8, beta_slow: 2 }, /beta_fast 8 and beta_slow 2: llama\.cpp knows 32 and 1/],
  [{ mscale: 1 }, /by 1\.0857, llama\.cpp by 1\.0000: mscale has to equal mscale_all_dim/],
])('YaRN with %j, which llama.cpp would run otherwise, is refused', async (changes, message) => {
  const source = 'test/fixtures/golden/v2lite-tiny';
  const copy = mkdtempSync(path.join(folder, 'yarn-'));
  cpSync(source, copy, { recursive: true });
  const config = JSON.parse(readFileSync(`${source}/config.json`, 'utf8'));
  Object.assign(config.rope_scaling, changes);
  writeFileSync(path.join(copy, 'config.json'), JSON.stringify(config));
  await expect(exported(copy, 'f32')).rejects.toThrow(message);
});

test('Q8_0 keeps every value within half a step of its block', async () => {
  const values = Float32Array.from(noise(32 * 40, 3), (v, i) => v * 10 ** ((i % 7) - 3));
  const packed = quantiseQ8(values);
  const view = new DataView(packed.buffer);
  for (let i = 0; i < values.length; i++) {
    const block = Math.floor(i / 32) * 34;
    const scale = f16ToFloat32(Uint16Array.of(view.getUint16(block, true)))[0]!;
    expect(Math.abs(view.getInt8(block + 2 + (i % 32)) * scale - values[i]!)).toBeLessThanOrEqual(scale * 0.57 + 1e-9);
  }
});

test('Q4_0 keeps every value within a step of its block, and the largest exactly', () => {
  const values = Float32Array.from(noise(32 * 40, 5), (v, i) => v * 10 ** ((i % 5) - 2));
  const packed = quantiseQ4(values);
  const view = new DataView(packed.buffer);
  for (let block = 0; block < 40; block++) {
    const scale = f16ToFloat32(Uint16Array.of(view.getUint16(block * 18, true)))[0]!;
    const back = Array.from({ length: 32 }, (_, i) => {
      const byte = packed[block * 18 + 2 + (i % 16)]!;
      return ((i < 16 ? byte & 15 : byte >> 4) - 8) * scale;
    });
    const own = values.subarray(block * 32, block * 32 + 32);
    const errors = own.map((value, i) => Math.abs(back[i]! - value));
    expect(Math.max(...errors)).toBeLessThanOrEqual(Math.abs(scale) * 1.01);
    const largest = own.reduce((at, value, i) => (Math.abs(value) > Math.abs(own[at]!) ? i : at), 0);
    expect(errors[largest]! / Math.abs(own[largest]!)).toBeLessThan(2 ** -10);
  }
});

test('every f16 comes back from its value', () => {
  const bothSigns = Array.from({ length: 0x7c00 }, (_, bits) => [bits, bits | 0x8000]).flat();
  for (const bits of bothSigns.filter((half) => half !== 0x8000))
    expect(float32ToF16(f16ToFloat32(Uint16Array.of(bits))[0]!)).toBe(bits);
});

test('random checkpoints of a seed are the same, of another seed not, and open as published ones do', async () => {
  const shape = JSON.parse(readFileSync('test/fixtures/golden/v3-tiny-fp8/config.json', 'utf8'));
  const make = async (name: string, seed: number) => {
    await writeRandomCheckpoint(path.join(folder, name), shape, { dtype: 'fp8', seed });
    return readFileSync(path.join(folder, name, 'model.safetensors'));
  };
  const [a, again, b] = [await make('a', 1), await make('again', 1), await make('b', 2)];
  expect(a.equals(again)).toBe(true);
  expect(a.equals(b)).toBe(false);
  const checkpoint = await openCheckpoint(path.join(folder, 'a'));
  const weight = toFloat32(checkpoint.tensor('model.layers.1.mlp.experts.0.gate_proj.weight'));
  const deviation = Math.sqrt(weight.reduce((sum, w) => sum + w * w, 0) / weight.length);
  expect(relativeError([deviation], [0.02])).toBeLessThan(0.05);
});
