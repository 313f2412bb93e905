import { readdirSync, readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { isMoeLayer, parseConfig, toConfigJson } from '../../src/model/config.ts';
import { ConfigError } from '../../src/model/config-fields.ts';
import { weightCatalogue } from '../../src/model/weight-catalogue.ts';

const fixture = (path: string) => JSON.parse(readFileSync(new URL(`../fixtures/${path}`, import.meta.url), 'utf8'));
const goldenCases = readdirSync(new URL('../fixtures/golden', import.meta.url)).filter((name) => !name.includes('.'));
const v3 = fixture('deepseek-configs/hf-deepseek-v3-config.json');
const llama = fixture('golden/llama-tiny/config.json');
const qwen3 = fixture('golden/qwen3-tiny/config.json');
const v2 = fixture('golden/v2lite-tiny/config.json');

const without = (json: object, ...keys: string[]) =>
  Object.fromEntries(Object.entries(json).filter(([key]) => !keys.includes(key)));
const parametersOf = (json: object) =>
  weightCatalogue(parseConfig(json, 'config.json'))
    .filter(({ role }) => role !== 'scale')
    .reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size), 0);

describe('parseConfig', () => {
  test('the config of DeepSeek-V3 becomes the record of its report', () => {
    expect(parseConfig(v3, 'config.json')).toEqual({
      family: 'deepseek',
      modelType: 'deepseek_v3',
      vocabSize: 129280,
      hiddenSize: 7168,
      intermediateSize: 18432,
      numHiddenLayers: 61,
      numAttentionHeads: 128,
      maxPositionEmbeddings: 163840,
      rmsNormEps: 1e-6,
      ropeTheta: 10000,
      ropeScaling: {
        type: 'yarn',
        factor: 40,
        originalMaxPositionEmbeddings: 4096,
        betaFast: 32,
        betaSlow: 1,
        mscale: 1,
        mscaleAllDim: 1,
        attentionFactor: null,
      },
      tieWordEmbeddings: false,
      bosTokenId: 0,
      eosTokenIds: [1],
      initializerRange: 0.02,
      quantization: 'fp8',
      torchDtype: 'bfloat16',
      qLoraRank: 1536,
      kvLoraRank: 512,
      qkNopeHeadDim: 128,
      qkRopeHeadDim: 64,
      vHeadDim: 128,
      nRoutedExperts: 256,
      nSharedExperts: 1,
      numExpertsPerTok: 8,
      moeIntermediateSize: 2048,
      firstKDenseReplace: 3,
      moeLayerFreq: 1,
      nGroup: 8,
      topkGroup: 4,
      topkMethod: 'noaux_tc',
      scoringFunc: 'sigmoid',
      normTopkProb: true,
      routedScalingFactor: 2.5,
      numNextnPredictLayers: 1,
    });
  });

  test.each(goldenCases)('the config of %s is written back to an equal one', (name) => {
    const config = parseConfig(fixture(`golden/${name}/config.json`), 'config.json');
    expect(parseConfig(JSON.parse(JSON.stringify(toConfigJson(config))), 'config.json')).toEqual(config);
  });

  test('a written config keeps every official key that carries a value of the model', () => {
    for (const json of [v3, v2, llama, qwen3]) {
      const written = toConfigJson(parseConfig(json, 'config.json'));
      const shared = Object.fromEntries(Object.entries(json).filter(([key]) => key in written));
      expect(written).toMatchObject(shared);
      expect(Object.keys(shared).length).toBeGreaterThan(16);
    }
  });

  test('the families differ where their papers do', () => {
    expect(parseConfig(fixture('golden/qwen2-tiny/config.json'), 'c')).toMatchObject({
      ...{ family: 'dense', qkvBias: true, qkNorm: false, headDim: 32, tieWordEmbeddings: true },
    });
    expect(parseConfig(qwen3, 'c')).toMatchObject({ qkvBias: false, qkNorm: true, headDim: 48 });
    expect(parseConfig(llama, 'c')).toMatchObject({ qkvBias: false, qkNorm: false, numKeyValueHeads: 2 });
    expect(parseConfig(v2, 'c')).toMatchObject({ qLoraRank: null, topkMethod: 'greedy', scoringFunc: 'softmax' });
  });

  test('keys that newer files leave out have the defaults of their architecture', () => {
    const bare = without(v3, 'scoring_func', 'topk_method', 'norm_topk_prob', 'moe_layer_freq', 'rms_norm_eps');
    expect(parseConfig(bare, 'c')).toEqual(parseConfig(v3, 'c'));
    const v2Bare = without(v2, 'scoring_func', 'topk_method', 'norm_topk_prob', 'routed_scaling_factor', 'n_group');
    expect(parseConfig(v2Bare, 'c')).toEqual(parseConfig(v2, 'c'));
    expect(parseConfig(without(llama, 'num_key_value_heads'), 'c')).toMatchObject({ numKeyValueHeads: 8 });
  });

  test('rope_parameters, rope_type and both beside the older keys say the same', () => {
    const { type, ...scaling } = v3.rope_scaling;
    const older = parseConfig(v3, 'c');
    const parameters = { rope_theta: 10000, rope_type: type, ...scaling };
    expect(parseConfig({ ...without(v3, 'rope_scaling', 'rope_theta'), rope_parameters: parameters }, 'c')).toEqual(
      older,
    );
    expect(parseConfig({ ...v3, rope_parameters: parameters }, 'c')).toEqual(older);
    expect(parseConfig({ ...v3, rope_scaling: { ...v3.rope_scaling, rope_type: 'yarn' } }, 'c')).toEqual(older);
    const plain = { rope_theta: 1000000, rope_type: 'default' };
    expect(parseConfig({ ...without(qwen3, 'rope_scaling', 'rope_theta'), rope_parameters: plain }, 'c')).toEqual(
      parseConfig(qwen3, 'c'),
    );
  });

  test('end-of-sequence may be one token, several, or none', () => {
    const ids = (eos: unknown) => parseConfig({ ...llama, eos_token_id: eos }, 'c').eosTokenIds;
    expect([ids(5), ids([5, 7]), ids(null), ids(undefined)]).toEqual([[5], [5, 7], [], []]);
  });

  test('a DeepSeek model may have no experts at all', () => {
    const config = parseConfig({ ...v2, n_routed_experts: null }, 'c');
    expect(config).toMatchObject({ nRoutedExperts: 0, nSharedExperts: 0, firstKDenseReplace: 4 });
    expect(weightCatalogue(config).some(({ name }) => name.includes('expert'))).toBe(false);
    expect(parseConfig(toConfigJson(config), 'c')).toEqual(config);
  });
});

describe('isMoeLayer', () => {
  test('the first layers are dense, then every moe_layer_freq-th routes, and MTP layers always do', () => {
    const moeLayers = (changes: object) => {
      const config = parseConfig({ ...v3, num_hidden_layers: 6, ...changes }, 'c');
      if (config.family !== 'deepseek') throw new Error('not a DeepSeek config');
      return [0, 1, 2, 3, 4, 5, 6].filter((layer) => isMoeLayer(config, layer));
    };
    expect(moeLayers({})).toEqual([3, 4, 5, 6]);
    expect(moeLayers({ moe_layer_freq: 2, first_k_dense_replace: 1 })).toEqual([2, 4, 6]);
    expect(moeLayers({ moe_layer_freq: 4, first_k_dense_replace: 0 })).toEqual([0, 4, 6]);
    expect(moeLayers({ n_routed_experts: 0 })).toEqual([]);
  });
});

describe('weightCatalogue', () => {
  const distill = (hidden: number, inter: number, layers: number, heads: number, kv: number, vocab: number) => ({
    ...fixture('golden/qwen2-tiny/config.json'),
    ...{ hidden_size: hidden, intermediate_size: inter, num_hidden_layers: layers, num_attention_heads: heads },
    ...{ num_key_value_heads: kv, vocab_size: vocab, tie_word_embeddings: false },
  });
  const llama8b = {
    ...llama,
    ...{ hidden_size: 4096, intermediate_size: 14336, num_hidden_layers: 32, num_attention_heads: 32 },
    ...{ num_key_value_heads: 8, vocab_size: 128256 },
  };
  const v2Lite = {
    ...v2,
    ...{ hidden_size: 2048, intermediate_size: 10944, moe_intermediate_size: 1408, num_hidden_layers: 27 },
    ...{ num_attention_heads: 16, num_key_value_heads: 16, n_routed_experts: 64, num_experts_per_tok: 6 },
    ...{ kv_lora_rank: 512, qk_nope_head_dim: 128, qk_rope_head_dim: 64, v_head_dim: 128, vocab_size: 102400 },
  };

  test('its shapes add up to the parameter counts of the released models', () => {
    expect(parametersOf({ ...v3, num_nextn_predict_layers: 0 })).toBe(671_026_419_200);
    expect(parametersOf(v2Lite)).toBe(15_706_484_224);
    expect(parametersOf(llama8b)).toBe(8_030_261_248);
    expect(parametersOf(distill(1536, 8960, 28, 12, 2, 151936))).toBe(1_777_088_000);
    expect(parametersOf(distill(3584, 18944, 28, 28, 4, 152064))).toBe(7_615_616_512);
  });

  test('with the MTP module and the block scales it is the release of 685 billion', () => {
    const all = weightCatalogue(parseConfig(v3, 'c'));
    const elements = all.reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size), 0);
    expect(Math.round(elements / 1e9)).toBe(685);
    // The 11.5 billion of README_WEIGHTS.md leave out the copies and eh_proj.
    const mtp = parametersOf(v3) - parametersOf({ ...v3, num_nextn_predict_layers: 0 });
    expect((mtp - 2 * 129280 * 7168 - 2 * 7168 * 7168) / 1e9).toBeCloseTo(11.5, 1);
  });

  test('only the projections of the published FP8 checkpoint may be FP8, with their scales', () => {
    const catalogue = weightCatalogue(parseConfig(v3, 'c'));
    const fp8 = catalogue.filter(({ dtypes }) => dtypes.includes('F8_E4M3')).map(({ name }) => name);
    const kinds = new Set(fp8.map((name) => name.replace(/\d+/g, 'N')));
    expect([...kinds].every((name) => /_proj(_with_mqa)?\.weight$/.test(name))).toBe(true);
    expect(kinds.has('model.layers.N.eh_proj.weight')).toBe(false);
    expect(catalogue.filter(({ role }) => role === 'scale').map(({ name }) => name)).toEqual(
      fp8.map((name) => `${name}_scale_inv`),
    );
    const find = (name: string) => catalogue.find((weight) => weight.name === name);
    expect(find('model.layers.0.self_attn.kv_a_proj_with_mqa.weight_scale_inv')?.shape).toEqual([5, 56]);
    expect(catalogue.filter(({ required }) => required === 'never').map(({ name }) => name)).toEqual([
      'model.layers.61.embed_tokens.weight',
      'model.layers.61.shared_head.head.weight',
    ]);
  });
});

const v3Yarn = (changes: object) => ({ ...v3, rope_scaling: { ...v3.rope_scaling, ...changes } });
const fp8 = (changes: object) => ({ ...v3, quantization_config: { ...v3.quantization_config, ...changes } });
const llamaRope = (changes: object) => ({ ...llama, rope_scaling: { ...llama.rope_scaling, ...changes } });

describe('a config that cannot be right is refused by field', () => {
  test.each<[what: string, json: unknown, message: string]>([
    ['no object', [1], 'the whole is [1], expected a JSON object'],
    ['nothing', null, 'the whole is null, expected a JSON object'],
    [
      'another architecture',
      { ...v3, model_type: 'gpt2' },
      '"model_type" is "gpt2", expected one of "deepseek_v2", "deepseek_v3", "llama", "qwen2", "qwen3"',
    ],
    [
      "DeepSeek's own form",
      { vocab_size: 1, dim: 2048, n_layers: 27 },
      "this is a configuration of DeepSeek's own inference code. Use the config.json of the Hugging Face folder",
    ],
    [
      'a missing size',
      without(v3, 'kv_lora_rank'),
      '"kv_lora_rank" is missing, expected a whole number from 1 to 1048576',
    ],
    [
      'a size as text',
      { ...v3, hidden_size: '7168' },
      '"hidden_size" is "7168", expected a whole number from 1 to 1048576',
    ],
    ['a fraction', { ...v3, vocab_size: 1.5 }, '"vocab_size" is 1.5, expected a whole number from 1 to 4194304'],
    ['a negative size', { ...v3, hidden_size: -1 }, '"hidden_size" is -1, expected a whole number from 1 to 1048576'],
    [
      'absurd layers',
      { ...v3, num_hidden_layers: 1e9 },
      '"num_hidden_layers" is 1000000000, expected a whole number from 1 to 512',
    ],
    [
      'too many experts',
      { ...v3, n_routed_experts: 4096 },
      '"n_routed_experts" is 4096, expected at most 131072 experts in all layers together',
    ],
    [
      'an odd rotary part',
      { ...v3, qk_rope_head_dim: 63 },
      '"qk_rope_head_dim" is 63, expected an even number (channels are rotated in pairs)',
    ],
    [
      'grouped latent heads',
      { ...v3, num_key_value_heads: 8 },
      '"num_key_value_heads" is 8, expected num_attention_heads = 128 (latent attention)',
    ],
    [
      'more chosen than there are',
      { ...v3, num_experts_per_tok: 300 },
      '"num_experts_per_tok" is 300, expected at most n_routed_experts = 256',
    ],
    [
      'no chosen experts',
      without(v3, 'num_experts_per_tok'),
      '"num_experts_per_tok" is missing, expected a whole number from 1, since n_routed_experts = 256',
    ],
    ['uneven groups', { ...v3, n_group: 7 }, '"n_group" is 7, expected a divisor of n_routed_experts = 256'],
    ['too many groups kept', { ...v3, topk_group: 9 }, '"topk_group" is 9, expected at most n_group = 8'],
    [
      'groups too small',
      { ...v3, n_group: 128, topk_group: 2 },
      '"num_experts_per_tok" is 8, expected at most topk_group × n_routed_experts / n_group = 4, the experts of the kept groups',
    ],
    [
      'groups of one',
      { ...v3, n_group: 256, topk_group: 8 },
      '"n_group" is 256, expected at most half of n_routed_experts = 256 (noaux_tc scores a group by its two best)',
    ],
    [
      'more dense layers than layers',
      { ...v3, first_k_dense_replace: 62 },
      '"first_k_dense_replace" is 62, expected at most num_hidden_layers = 61',
    ],
    [
      'V2 that scales normed weights',
      { ...v2, norm_topk_prob: true, routed_scaling_factor: 16 },
      '"routed_scaling_factor" is 16, expected 1, since deepseek_v2 with norm_topk_prob does not scale',
    ],
    [
      'another routing',
      { ...v3, topk_method: 'aux' },
      '"topk_method" is "aux", expected one of "greedy", "group_limited_greedy", "noaux_tc"',
    ],
    [
      'another score',
      { ...v3, scoring_func: 'relu' },
      '"scoring_func" is "relu", expected one of "sigmoid", "softmax"',
    ],
    [
      'half-split rotation',
      { ...v3, rope_interleave: false },
      '"rope_interleave" is false, expected true (rotary channels of DeepSeek checkpoints are paired side by side)',
    ],
    [
      'another activation',
      { ...v3, hidden_act: 'gelu' },
      '"hidden_act" is "gelu", expected "silu" (other activations are not implemented)',
    ],
    [
      'attention biases',
      { ...llama, attention_bias: true },
      '"attention_bias" is true, expected false (attention biases are those of qwen2 alone)',
    ],
    [
      'a sliding window',
      { ...qwen3, use_sliding_window: true },
      '"use_sliding_window" is true, expected false (attention over a sliding window is not implemented)',
    ],
    [
      'mixed layers',
      { ...qwen3, layer_types: ['full_attention', 'sliding_attention'] },
      '"layer_types.1" is "sliding_attention", expected "full_attention" (other kinds are not implemented)',
    ],
    [
      'partial rotation',
      { ...llama, partial_rotary_factor: 0.5 },
      '"partial_rotary_factor" is 0.5, expected 1 (partly rotated heads are not implemented)',
    ],
    [
      'uneven grouped heads',
      { ...llama, num_key_value_heads: 3 },
      '"num_key_value_heads" is 3, expected a divisor of num_attention_heads = 8',
    ],
    [
      'heads that do not divide',
      { ...llama, num_attention_heads: 6, num_key_value_heads: 2 },
      '"num_attention_heads" is 6, expected a divisor of hidden_size = 128, since head_dim is not given',
    ],
    [
      'qwen3 without head_dim',
      without(qwen3, 'head_dim'),
      '"head_dim" is missing, expected a whole number from 2 to 4096',
    ],
    [
      'an odd head',
      { ...qwen3, head_dim: 47 },
      '"head_dim" is 47, expected an even number (channels are rotated in pairs)',
    ],
    [
      'a token outside the vocabulary',
      { ...llama, eos_token_id: [1, 384] },
      '"eos_token_id" is [1,384], expected less than vocab_size = 384',
    ],
    [
      'a token id as text',
      { ...llama, eos_token_id: '</s>' },
      '"eos_token_id" is "</s>", expected a token id, an array of ids, or null',
    ],
    [
      'dynamic scaling',
      llamaRope({ rope_type: 'dynamic' }),
      '"rope_scaling.rope_type" is "dynamic", expected one of "default", "linear", "yarn", "llama3"',
    ],
    [
      'scaling without a kind',
      { ...llama, rope_scaling: { factor: 2 } },
      '"rope_scaling.type" is missing, expected one of "default", "linear", "yarn", "llama3"',
    ],
    ['two kinds', llamaRope({ type: 'yarn' }), '"rope_scaling.type" is "yarn", expected "llama3" as in rope_type'],
    [
      'a factor below one',
      v3Yarn({ factor: 0.5 }),
      '"rope_scaling.factor" is 0.5, expected a number from 1 to 1000000',
    ],
    [
      'a foreign rope key',
      v3Yarn({ long_factor: [1] }),
      '"rope_scaling.long_factor" is not known, and what it would change is not implemented',
    ],
    [
      'half of the mscales',
      v3Yarn({ mscale_all_dim: undefined }),
      '"rope_scaling.mscale_all_dim" is missing, expected a number, since mscale and mscale_all_dim work only together',
    ],
    [
      'crossed betas',
      v3Yarn({ beta_fast: 1, beta_slow: 32 }),
      '"rope_scaling.beta_fast" is 1, expected at least beta_slow = 32',
    ],
    [
      'crossed bands',
      llamaRope({ high_freq_factor: 1 }),
      '"rope_scaling.high_freq_factor" is 1, expected more than low_freq_factor = 1',
    ],
    [
      'two thetas',
      { ...llama, rope_parameters: { ...llama.rope_scaling, rope_theta: 10000 } },
      '"rope_theta" is 500000, expected the same value wherever it is given',
    ],
    [
      'two scalings',
      { ...v3, rope_parameters: { rope_type: 'linear', factor: 2 } },
      '"rope_parameters" is {"rope_type":"linear","factor":2}, expected the same as rope_scaling, or one of the two alone',
    ],
    [
      'another quantisation',
      fp8({ quant_method: 'gptq' }),
      '"quantization_config.quant_method" is "gptq", expected "fp8" or "modelopt"',
    ],
    [
      'other blocks',
      fp8({ weight_block_size: [64, 128] }),
      '"quantization_config.weight_block_size.0" is 64, expected 128',
    ],
    [
      'no blocks',
      fp8({ weight_block_size: null }),
      '"quantization_config.weight_block_size" is null, expected [128, 128]',
    ],
    [
      'static activations',
      fp8({ activation_scheme: 'static' }),
      '"quantization_config.activation_scheme" is "static", expected "dynamic"',
    ],
    ['a flag as text', { ...v3, tie_word_embeddings: 'no' }, '"tie_word_embeddings" is "no", expected true or false'],
  ])('%s', (_, json, message) => {
    expect(() => parseConfig(json, 'config.json')).toThrow(new ConfigError(`config.json: ${message}`));
  });

  test('several wrong fields are all named', () => {
    expect(() => parseConfig({ ...v3, hidden_size: 0, v_head_dim: null }, 'config.json')).toThrow(
      new ConfigError(
        'config.json: "hidden_size" is 0, expected a whole number from 1 to 1048576\n' +
          'config.json: "v_head_dim" is null, expected a whole number from 1 to 4096',
      ),
    );
  });

  test('whatever a field is replaced by, the config is read or refused by name', () => {
    const originals = [v3, v2, llama, qwen3];
    const change = fc.constantFrom(...originals).chain((json) =>
      fc.record({
        json: fc.constant(json),
        key: fc.constantFrom(...Object.keys(json), 'rope_parameters', 'head_dim', 'layer_types'),
        value: fc.oneof(fc.jsonValue(), fc.integer({ min: -2, max: 600 }), fc.constantFrom(2 ** 31, 1e300, '', null)),
      }),
    );
    fc.assert(
      fc.property(change, fc.string(), ({ json, key, value }, inner) => {
        const nested = typeof json[key] === 'object' && json[key] !== null ? { ...json[key], [inner]: value } : value;
        for (const changed of [
          { ...json, [key]: value },
          { ...json, [key]: nested },
        ]) {
          const config = outcome(changed);
          if (config) expect(parseConfig(toConfigJson(config), 'c')).toEqual(config);
        }
      }),
      { numRuns: 2000 },
    );
  });

  test('any JSON at all is read or refused by name', () => {
    fc.assert(fc.property(fc.jsonValue(), (json) => outcome(json) === null));
    const deep = JSON.parse(`${'['.repeat(50_000)}${']'.repeat(50_000)}`);
    for (const key of Object.keys(v3)) outcome({ ...v3, [key]: deep });
    expect(outcome({ ...v3, rope_scaling: { type: deep } })).toBe(null);
    expect(outcome(JSON.parse('{"model_type":"llama","__proto__":{"vocab_size":1}}'))).toBe(null);
  });
});

/** The config, or null when it was refused as it should be. */
function outcome(json: unknown) {
  try {
    return parseConfig(json, 'x.json');
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    expect((error as Error).message).toMatch(/^x\.json: ./);
    return null;
  }
}
