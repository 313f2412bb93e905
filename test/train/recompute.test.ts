import { describe, expect, test } from 'vitest';
import { parseConfig } from '../../src/model/config.ts';
import { packDocuments } from '../../src/train/packed-documents.ts';
import { createParameters, type Precision } from '../../src/train/parameters.ts';
import { createOptimizer, lossProgram } from '../../src/train/training-step.ts';
import { tinyConfig, tinyDocuments } from './tiny-run.ts';

const LAYERS = 6;
const deepSeek = { ...tinyConfig, numHiddenLayers: LAYERS, numNextnPredictLayers: 2 };
const llama = parseConfig(
  {
    model_type: 'llama',
    vocab_size: 64,
    hidden_size: 48,
    intermediate_size: 96,
    num_hidden_layers: LAYERS,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    max_position_embeddings: 128,
    tie_word_embeddings: true,
    bos_token_id: 0,
    eos_token_id: 1,
  },
  'config.json',
);
const batch = packDocuments(tinyDocuments, { sequence: 64, rows: 256, seed: 5, modules: 2 }).batch(0);

async function trained(config: typeof deepSeek | typeof llama, precision: Precision, recompute: boolean) {
  const parameters = createParameters(config, 3, precision);
  const settings = { rows: 256, mtpWeight: 0.3, balanceWeight: 0.01, gradients: true, recompute };
  const program = lossProgram(config, parameters, settings);
  await createOptimizer(parameters, { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0 }).zero();
  await parameters.repack();
  const losses = await program.run(batch);
  return { gradient: new Uint32Array(parameters.gradient.buffer), losses, bytes: program.bytes };
}

describe.each([
  ['DeepSeek with experts and MTP', deepSeek],
  ['Llama', llama],
])('%s', (_, config) => {
  test.each(['fp32', 'bf16', 'fp8'] as const)(
    'recomputing layers in %s changes no bit of the gradient and saves memory',
    async (precision) => {
      const [kept, again] = [await trained(config, precision, false), await trained(config, precision, true)];
      expect(again.losses).toEqual(kept.losses);
      expect(kept.gradient.some((bits) => bits !== 0)).toBe(true);
      expect(Buffer.compare(Buffer.from(again.gradient.buffer), Buffer.from(kept.gradient.buffer))).toBe(0);
      // a layer's input is kept, and one layer's inner values
      expect(again.bytes).toBeLessThan(0.5 * kept.bytes);
    },
  );
});
