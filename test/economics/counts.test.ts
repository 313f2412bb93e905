import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parseArchitecture } from '../../src/economics/architecture.ts';
import { cacheBytes, countParameters, trainingFlop, withAttention } from '../../src/economics/counts.ts';
import { distinctExperts, exchangeBytes, touchedWeightBytes } from '../../src/economics/expert-traffic.ts';
import { MODELS, modelById } from '../../src/economics/model-catalogue.ts';
import { parseConfig } from '../../src/model/config.ts';
import { modelReport } from '../../src/model/model-report.ts';

const { models: facts } = JSON.parse(readFileSync('test/fixtures/economics/model_configs.json', 'utf8'));
const counted: { id: string; derived: Record<string, number>; config: Record<string, unknown> }[] = facts.filter(
  ({ derived }: { derived?: object }) => derived,
);

test('every published config is shipped', () => {
  expect(MODELS.map(({ id }) => id).sort()).toEqual(facts.map(({ id }: { id: string }) => id).sort());
});

test.each(counted)('parameters and cache of $id are those of an independent count', ({ id, derived, config }) => {
  const { architecture } = modelById(id);
  const parameters = countParameters(architecture);
  expect(parameters.total).toBe(derived.total_params);
  expect(parameters.activeWithEmbedding).toBe(derived.active_params_incl_embedding_and_head);
  // That count keeps biases among the products.
  expect(parameters.inProducts / derived.matmul_params_per_token!).toBeCloseTo(1, 3);
  // That count leaves the input table out even where it is the output head.
  if (!config.tie_word_embeddings) expect(parameters.active).toBe(derived.active_params_excl_input_embedding);
  expect(cacheBytes({ ...architecture, attention: withoutIndexer(architecture.attention) }, 'bf16')).toBe(
    derived.kv_bytes_per_token_bf16,
  );
});

const withoutIndexer = <A extends { kind: string }>(attention: A) =>
  attention.kind === 'mla' ? { ...attention, indexer: null } : attention;

// Makers print active parameters with the input table or without it.
test.each(MODELS.filter(({ published }) => published))(
  'parameters of $id are what its makers print, within one per cent beyond their rounding',
  ({ published, architecture }) => {
    const { total, active, activeWithEmbedding } = countParameters(architecture);
    const beyond = (value: number, printed: number, unit: number) =>
      Math.max(0, Math.abs(value - printed) - unit / 2) / printed;
    expect(beyond(total, published!.total, published!.totalRounding)).toBeLessThan(0.01);
    const counted = published!.activeWithEmbedding ? activeWithEmbedding : active;
    expect(beyond(counted, published!.active, published!.activeRounding)).toBeLessThan(0.01);
  },
);

test.each([
  ['deepseek-v3', 70.272],
  ['qwen2.5-72b', 327.68],
  ['llama-3.1-405b', 516.096],
])('the cache of %s is %d KB a token, as printed', (id, kilobytes) => {
  expect(cacheBytes(modelById(id).architecture, 'bf16')).toBe(kilobytes * 1000);
});

test.each([
  ['deepseek-v3', 250],
  ['deepseek-v2', 155],
  ['llama-3.1-405b', 2448],
])('training %s takes the printed %d GFLOP a token within two per cent', (id, gigaflop) => {
  expect(Math.abs(trainingFlop(modelById(id).architecture, 4096) / 1e9 / gigaflop - 1)).toBeLessThan(0.02);
});

test('the printed 394 GFLOP a token of Qwen 72B are below six operations a parameter: no convention gives them', () => {
  expect((6 * countParameters(modelById('qwen2.5-72b').architecture).inProducts) / 1e9).toBeGreaterThan(394 * 1.05);
});

test.each([
  'deepseek-configs/hf-deepseek-v3-config',
  'golden/v2lite-tiny/config',
  'golden/v3-tiny-mtp/config',
  'golden/qwen2-tiny/config',
  'golden/qwen3-tiny/config',
  'golden/llama-tiny/config',
])('parameters of %s are those of the weights that the engine expects in its checkpoint', (name) => {
  const json = JSON.parse(readFileSync(`test/fixtures/${name}.json`, 'utf8'));
  const report = modelReport(parseConfig(json, 'config.json'));
  const { total, active, mtp } = countParameters(parseArchitecture(json, 'config.json'));
  expect({ total, active, mtp }).toEqual({
    total: report.parameters,
    active: report.activeParameters,
    mtp: report.mtpParameters,
  });
});

test('the FP8 cache of a latent layer has the published 656 bytes a token', () => {
  expect(cacheBytes(modelById('deepseek-v3').architecture, 'fp8') / 61).toBe(656);
});

test('the cache of the same heads as multi-head attention is 56.9 times that of V3', () => {
  const { architecture } = modelById('deepseek-v3');
  const ratio = cacheBytes(withAttention(architecture, 'mha'), 'bf16') / cacheBytes(architecture, 'bf16');
  expect(ratio).toBeCloseTo(56.89, 2);
});

test('distinct experts of a batch are what drawing them shows', () => {
  const experts = modelById('deepseek-moe-16b').architecture.experts!;
  const { routed, topK } = experts;
  let state = 1;
  const random = () => {
    state = (state * 48271) % 2147483647;
    return state / 2147483647;
  };
  const batch = 12;
  const rounds = 2000;
  let seen = 0;
  for (let round = 0; round < rounds; round++) {
    const touched = new Set<number>();
    for (let token = 0; token < batch; token++) {
      const order = Array.from({ length: routed }, (_, i) => i);
      for (let k = 0; k < topK; k++) {
        const pick = k + Math.floor(random() * (routed - k));
        [order[k], order[pick]] = [order[pick]!, order[k]!];
        touched.add(order[k]!);
      }
    }
    seen += touched.size;
  }
  expect(distinctExperts(experts, batch)).toBeCloseTo(seen / rounds, 0);
});

test('a measured skew touches fewer experts than even routing, and even shares touch as many', () => {
  const experts = modelById('deepseek-v3').architecture.experts!;
  const { routed, topK } = experts;
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 512 }), fc.double({ min: 0, max: 0.9, noNaN: true }), (batch, tilt) => {
      const share = topK / routed;
      const skewed = Array.from({ length: routed }, (_, i) => share * (i % 2 ? 1 + tilt : 1 - tilt));
      const even = distinctExperts(experts, batch);
      expect(distinctExperts(experts, batch, new Array(routed).fill(share))).toBeCloseTo(even, 6);
      expect(distinctExperts(experts, batch, skewed)).toBeLessThanOrEqual(even + 1e-9);
    }),
  );
});

test('weights read in a step grow with the batch up to all of them, and are the active ones for one sequence', () => {
  const { architecture } = modelById('deepseek-v3');
  const { active, total, parts } = countParameters(architecture);
  expect(touchedWeightBytes(architecture, 1, 'bf16')).toBe(active * 2);
  expect(touchedWeightBytes(architecture, 1e6, 'bf16')).toBeCloseTo((total - parts.embedding) * 2, -3);
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 4096 }), (batch) => {
      expect(touchedWeightBytes(architecture, batch + 1, 'fp8')).toBeGreaterThanOrEqual(
        touchedWeightBytes(architecture, batch, 'fp8'),
      );
    }),
  );
});

test('a token goes to four nodes at most, as group-limited routing has it', () => {
  const { architecture } = modelById('deepseek-v3');
  const spread = { ...architecture, experts: architecture.experts! };
  const { remote } = exchangeBytes(spread, { devices: 64, devicesPerNode: 8 }, 'throughput', 'bf16');
  const copies = remote.dispatch / (2 * architecture.hidden);
  expect(copies).toBeGreaterThan(3);
  // Eight nodes hold eight groups; one of eight tokens' nodes is its own.
  expect(copies).toBeLessThanOrEqual(4 * (7 / 8));
});

test.each([
  [{ hidden_size: undefined }, '"hidden_size" is missing, expected a whole number from 1 to'],
  [{ num_hidden_layers: -1 }, '"num_hidden_layers" is -1, expected a whole number from 1 to 512'],
  [{ model_type: 'gpt2' }, '"model_type" is "gpt2", expected one of "deepseek"'],
  [{ num_experts_per_tok: 999 }, '"num_experts_per_tok" is 999, expected at most the 256 routed experts'],
  [{ kv_lora_rank: null }, '"kv_lora_rank" is missing, expected a whole number'],
])('a config with %j is refused with the field and its range', (change, message) => {
  const config = facts.find(({ id }: { id: string }) => id === 'deepseek-v3').config;
  const json = { model_type: 'deepseek_v3', ...config, ...change };
  expect(() => parseArchitecture(json, 'config.json')).toThrow(message);
});
