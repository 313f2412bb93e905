/** Figures that papers and model cards print, beside the same figures counted here. */
import type { Comparison } from './comparison.ts';
import { cacheBytes, cacheElements, countParameters, trainingFlop, withAttention } from './counts.ts';
import published from './data/published.json' with { type: 'json' };
import { machineById } from './machine.ts';
import { MODELS, modelById } from './model-catalogue.ts';
import { meanNodes, productionArithmetic } from './production-day.ts';
import { flopPerSecond, hours, tokens, usdPerHour } from './quantity.ts';
import { type TrainingPlan, trainingCost } from './training-cost.ts';

const SECONDS_PER_DAY = 86_400;

/** Parameters, total and active, of every model whose makers print them. */
export function parameterComparisons(): Comparison[] {
  const { weightsFile } = published;
  const v3 = countParameters(modelById('deepseek-v3').architecture);
  const ofFile: Comparison = {
    id: 'params.deepseek-v3.active.file',
    what: 'DeepSeek-V3, active without the input table, by its weights file',
    unit: 'parameters',
    printed: weightsFile.active,
    computed: v3.active,
    within: 0.005,
    source: weightsFile.source,
  };
  return [
    ofFile,
    ...MODELS.flatMap(({ id, name, architecture, published: printed }) => {
      if (!printed) return [];
      const { total, active, activeWithEmbedding } = countParameters(architecture);
      const row = { unit: 'parameters', source: printed.source };
      const rounding = (value: number, unit: number) => 0.01 + unit / 2 / value;
      const all: Comparison = {
        ...row,
        id: `params.${id}.total`,
        what: `${name}, total`,
        printed: printed.total,
        computed: total,
        within: rounding(printed.total, printed.totalRounding),
      };
      if (!architecture.experts) return [all];
      return [
        all,
        {
          ...row,
          id: `params.${id}.active`,
          what: `${name}, active ${printed.activeWithEmbedding ? 'with' : 'without'} the input table`,
          printed: printed.active,
          computed: printed.activeWithEmbedding ? activeWithEmbedding : active,
          within: rounding(printed.active, printed.activeRounding),
        },
      ];
    }),
  ];
}

/** Cache of a token, and what "93.3 % less" means. */
export function cacheComparisons(): Comparison[] {
  const { cache } = published;
  const perToken = cache.perTokenKb.map(({ model, kb }): Comparison => {
    const { name, architecture } = modelById(model);
    const computed = cacheBytes(architecture, 'bf16') / 1000;
    return {
      id: `kv.${model}`,
      what: `${name}, cache of a token, BF16`,
      unit: 'KB',
      printed: kb,
      computed,
      within: 0,
      source: cache.source,
    };
  });
  const elements = cache.v2Elements.map(({ id, what, model, attention, elements: printed }): Comparison => {
    const { architecture } = modelById(model);
    const computed = cacheElements(attention === 'mha' ? withAttention(architecture, 'mha') : architecture);
    return {
      id,
      what: `${what}, cache of a token`,
      unit: 'values',
      printed,
      computed,
      within: 0.005,
      source: cache.v2ElementsSource,
    };
  });
  const v2 = modelById('deepseek-v2').architecture;
  const dense = modelById('deepseek-llm-67b').architecture;
  const saved = (layout: 'int6' | 'bf16') => (1 - cacheBytes(v2, layout) / cacheBytes(dense, 'bf16')) * 100;
  return [
    ...perToken,
    ...elements,
    {
      id: 'kv.93.3',
      what: 'DeepSeek-V2 against DeepSeek 67B, cache saved',
      unit: '%',
      printed: cache.v2Reduction,
      computed: saved('int6'),
      within: 0.001,
      source: cache.v2Source,
      note: `This compares V2 at 6 bits a value with the 67B model (GQA of 8) at 16 bits. At 16 bits both it is ${saved('bf16').toFixed(1)} %.`,
    },
  ];
}

/** The published run of V3: tokens by phase at the stated utilisation; the hours after training as printed. */
function v3TrainingPlan(): TrainingPlan {
  const { v3 } = published.training;
  return {
    phases: [
      { name: 'pre-training', tokens: tokens(v3.tokens), sequenceLength: v3.sequence },
      ...v3.contextPhases.map(({ sequence, batch, steps }) => ({
        name: `context of ${sequence / 1024}K`,
        tokens: tokens(sequence * batch * steps),
        sequenceLength: sequence,
      })),
    ],
    furtherHours: [{ name: 'post-training, as printed', deviceHours: hours(v3.postHours) }],
    utilisation: v3.utilisationCausal,
    convention: 'causal',
    // The utilisation is stated against the BF16 peak, though most products run in FP8.
    peak: machineById('h100-sxm').bf16,
    devices: v3.devices,
    price: usdPerHour(v3.usdPerHour),
  };
}

export function trainingComparisons(): Comparison[] {
  const { v3, gflopPerToken, gflopSource, hoursPerTrillion, v2Saving, r1 } = published.training;
  const flop = gflopPerToken.map(({ model, published: printed, tolerance, note }): Comparison => {
    const { name, architecture } = modelById(model);
    const computed = trainingFlop(architecture, v3.sequence) / 1e9;
    return {
      id: `train.flops.${model}`,
      what: `${name}, training on a token`,
      unit: 'GFLOP',
      printed,
      computed,
      within: tolerance,
      source: gflopSource,
      ...(note ? { note } : {}),
    };
  });
  const run = trainingCost(modelById('deepseek-v3').architecture, v3TrainingPlan());
  const [v2Hours, denseHours] = hoursPerTrillion.map(({ hours: each }) => each) as [number, number];
  const { source } = v3;
  const peak = flopPerSecond(machineById('h100-sxm').bf16);
  const fromSpeed = (v3.tflopsCausal * 1e12 * v3.devices * SECONDS_PER_DAY) / v3.tokensPerDay / 1e9;
  return [
    ...flop,
    {
      id: 'train.flops.from_tflops.causal',
      what: 'V3, training on a token, from the printed speed of the cluster',
      unit: 'GFLOP',
      printed: 250,
      computed: fromSpeed,
      within: 0.005,
      source: gflopSource,
    },
    {
      id: 'train.tflops',
      what: 'V3, speed of a device, from our count and the printed tokens a day',
      unit: 'TFLOPS',
      printed: v3.tflopsCausal,
      computed:
        (trainingFlop(modelById('deepseek-v3').architecture, v3.sequence) * v3.tokensPerDay) /
        SECONDS_PER_DAY /
        v3.devices /
        1e12,
      within: 0.01,
      source,
    },
    {
      id: 'train.mfu',
      what: 'V3, utilisation, whole score matrix counted',
      unit: '% of BF16 peak',
      printed: v3.utilisationNoncausal * 100,
      computed: ((v3.tflopsNoncausal * 1e12) / peak) * 100,
      within: 0.003,
      source,
    },
    {
      id: 'train.tokens_per_step',
      what: 'V3, tokens a day from the time of a step',
      unit: 'billion',
      printed: v3.tokensPerDay / 1e9,
      computed: (((v3.batchSequences * v3.sequence) / v3.stepSeconds) * SECONDS_PER_DAY) / 1e9,
      within: 1e-4,
      source,
    },
    {
      id: 'train.hours.total',
      what: 'V3, whole run, from tokens and the stated utilisation',
      unit: 'thousand device-hours',
      printed: v3.totalHours / 1000,
      computed: run.deviceHours / 1000,
      within: 0.02,
      source,
      note: 'Pre-training and both extensions of the context from tokens at 38.94 % of the BF16 peak; the 5K hours after that as printed, since their tokens are not.',
    },
    {
      id: 'train.usd.total',
      what: 'V3, whole run, from tokens and the stated utilisation',
      unit: '$',
      printed: v3.usd,
      computed: run.usd,
      within: 0.02,
      source,
    },
    {
      id: 'train.hours',
      what: 'V3, pre-training, from hours a trillion tokens',
      unit: 'thousand device-hours',
      printed: v3.pretrainHours / 1000,
      computed: (v3.tokens / 1e12) * (v3.hoursPerTrillion / 1000),
      within: 0,
      source,
    },
    {
      id: 'train.usd',
      what: 'V3, whole run, from the printed hours',
      unit: '$',
      printed: v3.usd,
      computed: (v3.pretrainHours + v3.contextHours + v3.postHours) * v3.usdPerHour,
      within: 0,
      source,
    },
    {
      id: 'train.days_per_T',
      what: 'V3, a trillion tokens',
      unit: 'days',
      printed: v3.daysPerTrillion,
      computed: v3.hoursPerTrillion / v3.devices / 24,
      within: 0.015,
      source,
    },
    {
      id: 'train.v2.saving',
      what: 'V2 against 67B, hours of training saved',
      unit: '%',
      printed: v2Saving,
      computed: (1 - v2Hours / denseHours) * 100,
      within: 0.001,
      source: hoursPerTrillion[0]!.source,
    },
    {
      id: 'train.r1',
      what: 'R1, reinforcement and data',
      unit: 'thousand device-hours',
      printed: r1.publishedThousandHours,
      computed: (r1.devices * (r1.zeroHours + r1.r1Hours) + r1.dataHours) / 1000,
      within: 0.005,
      source: r1.source,
    },
  ];
}

/** The arithmetic of the production day, of benchmarks' prices, and of the bound that the links set. */
export function arithmeticComparisons(): Comparison[] {
  const { productionDay: day, allToAll } = published;
  const { cost, revenue, marginPercent, prefillNodes, decodeNodes } = productionArithmetic();
  const missesPerNode = day.prefillPerNode * (1 - day.hitTokens / day.inputTokens);
  const run = published.serving.find(({ id }) => id === 'sglang.decode.2k')!;
  const perLayer = ((1 + 2) * allToAll.tokens * allToAll.copies * allToAll.hidden) / allToAll.bandwidth;
  const { source } = day;
  return [
    { id: 'd6.cost', what: 'Production day, cost', unit: '$', printed: day.costUsd, computed: cost, within: 0, source },
    {
      id: 'd6.revenue',
      what: 'Production day, revenue at list prices',
      unit: '$',
      printed: day.revenueUsd,
      computed: revenue,
      within: 0.001,
      source,
    },
    {
      id: 'd6.margin',
      what: 'Production day, profit over cost',
      unit: '%',
      printed: day.marginPercent,
      computed: marginPercent,
      within: 0.002,
      source,
    },
    {
      id: 'd6.nodes',
      what: 'Production day, nodes from tokens and node throughputs',
      unit: 'nodes',
      printed: day.nodes,
      computed: prefillNodes + decodeNodes,
      within: 0.001,
      source,
    },
    {
      id: 'd6.nodes.mean',
      what: 'Production day, mean of the drawn node counts',
      unit: 'nodes',
      printed: day.nodes,
      computed: meanNodes(),
      within: 0,
      source,
    },
    {
      id: 'd6.prefill.nohit',
      what: 'Production day, prefill of a node without hits',
      unit: 'tokens/s',
      printed: 32206,
      computed: missesPerNode,
      within: 0.002,
      source: run.source,
    },
    {
      id: 'sglang.cost',
      what: 'SGLang, output',
      unit: '$/M',
      printed: 0.2,
      computed: ((2 * 8) / 3600 / run.perNode) * 1e6,
      within: 0.005,
      source: run.source,
    },
    {
      id: 'decode.comm',
      what: 'All-to-all of a layer, 32 tokens a device, 50 GB/s',
      unit: 'µs',
      printed: allToAll.microseconds,
      computed: perLayer * 1e6,
      within: 0,
      source: allToAll.source,
    },
    {
      id: 'decode.tpot',
      what: 'Time between tokens that this allows',
      unit: 'ms',
      printed: allToAll.tpotMs,
      computed: perLayer * 2 * allToAll.layers * 1000,
      within: 0.001,
      source: allToAll.source,
    },
  ];
}
