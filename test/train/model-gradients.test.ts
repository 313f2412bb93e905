import { describe, expect, test } from 'vitest';
import { type ModelConfig, parseConfig } from '../../src/model/config.ts';
import { packDocuments } from '../../src/train/packed-documents.ts';
import { createParameters } from '../../src/train/parameters.ts';
import { createOptimizer, lossProgram } from '../../src/train/training-step.ts';
import { dot, noise, relativeError } from '../backend/run-op.ts';
import { tinyConfig, tinyDocuments } from './tiny-run.ts';

// weights large enough that every part of the model bends the loss
const deepSeek = { ...tinyConfig, tieWordEmbeddings: false, initializerRange: 0.15, numNextnPredictLayers: 2 };
const qwen2 = parseConfig(
  {
    model_type: 'qwen2',
    vocab_size: 64,
    hidden_size: 32,
    intermediate_size: 40,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    max_position_embeddings: 128,
    hidden_act: 'silu',
    tie_word_embeddings: true,
    bos_token_id: 0,
    eos_token_id: 1,
    initializer_range: 0.15,
    torch_dtype: 'bfloat16',
  },
  'config.json',
);
const packed = packDocuments(tinyDocuments, { sequence: 32, rows: 64, seed: 5, modules: 2 });
const batch = packed.batch(0);
const MTP_WEIGHT = 0.3;
const ADAMW = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0 };

/** A model in FP32, its gradient, and the loss that this is the gradient of, wherever the masters stand. */
async function differentiated(config: ModelConfig) {
  const parameters = createParameters(config, 3, 'fp32');
  const program = lossProgram(config, parameters, { rows: 64, mtpWeight: MTP_WEIGHT, gradients: true });
  const evaluate = async () => {
    await parameters.repack();
    const { nats, targets, mtp } = await program.run(batch);
    const loss = nats / targets + MTP_WEIGHT * (mtp ?? 0);
    return { loss, loads: program.expertLoads().map(({ counts }) => counts.join(' ')) };
  };
  await createOptimizer(parameters, ADAMW).zero();
  const { loads } = await evaluate();
  return { parameters, evaluate, loads, gradient: parameters.gradient.slice() };
}

describe.each<[string, ModelConfig]>([
  ['DeepSeek with experts and two MTP modules', deepSeek],
  ['Qwen2, dense, with tied embeddings', qwen2],
])('a whole model: %s', (_, config) => {
  test('the gradient of every tensor is the slope of the loss along it', async () => {
    const { parameters, evaluate, loads, gradient } = await differentiated(config);
    const wrong: string[] = [];
    for (const { name, at, count } of parameters.list) {
      const part = gradient.subarray(at, at + count);
      const size = Math.hypot(...part);
      expect(size, `${name} has a gradient`).toBeGreaterThan(0);
      // half along the gradient, half anywhere, so that the slope is large and no component of it goes unseen
      const anywhere = noise(count, at + 1);
      const length = Math.hypot(...anywhere);
      const direction = anywhere.map((value, i) => value / length + part[i]! / size);
      const original = parameters.master.slice(at, at + count);
      let rerouted = false;
      const moved = async (by: number) => {
        parameters.master.set(
          original.map((value, i) => value + by * direction[i]!),
          at,
        );
        const there = await evaluate();
        rerouted ||= there.loads.some((load, layer) => load !== loads[layer]);
        return there.loss;
      };
      const slope = async (by: number) => ((await moved(by)) - (await moved(-by))) / (2 * by);
      // Richardson's extrapolation of two central differences, from so near that no token changes its experts
      let step = 0.06;
      let measured = 0;
      do {
        rerouted = false;
        step /= 2;
        measured = (4 * (await slope(step / 2)) - (await slope(step))) / 3;
      } while (rerouted);
      parameters.master.set(original, at);
      const expected = dot(direction, part);
      const rounding = 3e-7 / step;
      if (Math.abs(measured - expected) > 1e-3 * Math.abs(expected) + rounding)
        wrong.push(`${name}: slope ${measured}, gradient ${expected}, step ${step}`);
    }
    expect(wrong).toEqual([]);
  });

  test.each([
    ['bf16', 0.99],
    ['fp8', 0.97],
    ['fp8-power-of-two', 0.97],
  ] as const)('%s gradients point where the fp32 ones do', async (precision, least) => {
    const { gradient } = await differentiated(config);
    const parameters = createParameters(config, 3, precision);
    const program = lossProgram(config, parameters, { rows: 64, mtpWeight: MTP_WEIGHT, gradients: true });
    await parameters.repack();
    await program.run(batch);
    const rounded = parameters.gradient;
    const cosine = dot(gradient, rounded) / Math.sqrt(dot(gradient, gradient) * dot(rounded, rounded));
    expect(cosine).toBeGreaterThan(least);
  });
});

test('two batches of a step add their halves of the gradient', async () => {
  const parameters = createParameters(deepSeek, 3, 'fp32');
  const program = lossProgram(deepSeek, parameters, { rows: 64, mtpWeight: MTP_WEIGHT, gradients: true });
  const optimizer = createOptimizer(parameters, ADAMW);
  await parameters.repack();
  const gradientOf = async (batches: number[], scale: number) => {
    await optimizer.zero();
    for (const i of batches) await program.run(packed.batch(i), scale);
    return parameters.gradient.slice();
  };
  const [first, second] = [await gradientOf([0], 1), await gradientOf([1], 1)];
  const both = await gradientOf([0, 1], 0.5);
  expect(
    relativeError(
      both,
      first.map((value, i) => (value + second[i]!) / 2),
    ),
  ).toBeLessThan(1e-6);
});
