/**
 * Why a token of DeepSeek-V3 costs what it costs: from a dense multi-head model in BF16 of as many parameters to V3 as it
 * is served, one technique after the other, in any order, and the share of each whatever the order (Shapley).
 */
import type { Architecture } from './architecture.ts';
import { countParameters, withAttention } from './counts.ts';
import { REAL_TRAFFIC_IMBALANCE } from './expert-balance.ts';
import type { Machine } from './machine.ts';
import type { UsdPerMillion } from './quantity.ts';
import { serve, type Workload } from './serving.ts';
import { shapley } from './shapley.ts';
import { type PlanChoice, suggestPlan } from './suggested-plan.ts';

export const TECHNIQUES = ['experts', 'mla', 'fp8', 'wide', 'mtp', 'caching'] as const;
export type Technique = (typeof TECHNIQUES)[number];

export const TECHNIQUE_NAMES: Readonly<Record<Technique, string>> = {
  experts: 'sparse experts',
  mla: 'latent attention (MLA)',
  fp8: 'FP8 weights and products',
  wide: 'experts spread widely, overlap',
  mtp: 'multi-token prediction',
  caching: 'prefix caching',
};

export interface Costs {
  readonly input: UsdPerMillion;
  readonly output: UsdPerMillion;
}

interface ExplanationStep extends Costs {
  readonly technique: Technique;
  /** Cost before over cost after: above 1 is cheaper. */
  readonly inputFactor: number;
  readonly outputFactor: number;
}

interface TechniqueShare {
  readonly technique: Technique;
  /** Mean factor over all orders (geometric), and its part of the whole saving. */
  readonly inputFactor: number;
  readonly outputFactor: number;
  readonly inputShare: number;
  readonly outputShare: number;
}

export interface Explanation {
  readonly start: Costs;
  readonly steps: readonly ExplanationStep[];
  readonly shares: readonly TechniqueShare[];
}

export interface ExplanationSettings {
  readonly machine: Machine;
  /** Its `hitShare` is that of prefix caching, its context that of all. */
  readonly workload: Workload;
  /** Share of drafted tokens that multi-token prediction keeps. */
  readonly acceptance: number;
  /** BF16 unless given. */
  readonly cache?: PlanChoice['cache'];
}

class OrderError extends Error {
  override name = 'OrderError';
}

/**
 * @param a a model with experts and latent attention
 * @param order every technique once
 * @throws OrderError when a technique is missing, unknown or named twice
 * @throws DeploymentError when the machine cannot serve some combination within the workload's targets
 */
export function explain(
  a: Architecture,
  settings: ExplanationSettings,
  order: readonly string[] = TECHNIQUES,
): Explanation {
  checkOrder(order);
  if (a.attention.kind !== 'mla' || !a.experts) {
    throw new OrderError(
      `the model is ${a.modelType}, expected one with experts and latent attention, deepseek-v3 say`,
    );
  }
  // One cost for every set of techniques, by the bits of its number.
  const costs = Array.from({ length: 1 << TECHNIQUES.length }, (_, mask) =>
    costWith(a, settings, (technique) => has(mask, technique)),
  );
  let mask = 0;
  const steps = order.map((technique): ExplanationStep => {
    const before = costs[mask]!;
    mask |= bit(technique);
    const after = costs[mask]!;
    return {
      technique,
      ...after,
      inputFactor: before.input / after.input,
      outputFactor: before.output / after.output,
    };
  });
  const first = costs[0]!;
  const last = costs.at(-1)!;
  const input = shapley(TECHNIQUES.length, (set) => -Math.log(costs[set]!.input));
  const output = shapley(TECHNIQUES.length, (set) => -Math.log(costs[set]!.output));
  const shares = TECHNIQUES.map(
    (technique, i): TechniqueShare => ({
      technique,
      inputFactor: Math.exp(input[i]!),
      outputFactor: Math.exp(output[i]!),
      inputShare: input[i]! / Math.log(first.input / last.input),
      outputShare: output[i]! / Math.log(first.output / last.output),
    }),
  );
  return { start: first, steps, shares };
}

function checkOrder(order: readonly string[]): asserts order is readonly Technique[] {
  const expected = `each of ${TECHNIQUES.join(', ')} once`;
  if (order.length !== TECHNIQUES.length || !TECHNIQUES.every((technique) => order.includes(technique))) {
    throw new OrderError(`the order is "${order.join(',')}", expected ${expected}`);
  }
}

const bit = (technique: Technique) => 1 << TECHNIQUES.indexOf(technique);
const has = (mask: number, technique: Technique) => (mask & bit(technique)) !== 0;

/**
 * What tokens cost with some of the techniques. Those that the model has no use for change nothing.
 * @throws DeploymentError when the machine cannot serve it within the workload's targets
 */
export function costWith(
  a: Architecture,
  { machine, workload, acceptance, cache = 'bf16' }: ExplanationSettings,
  on: (technique: Technique) => boolean,
): Costs {
  const attention = on('mla') ? a : { ...a, attention: withAttention(a, 'mha').attention };
  const architecture = on('experts') ? attention : dense(attention, countParameters(a).total);
  const choice = {
    precision: on('fp8') ? 'fp8' : 'bf16',
    cache,
    wide: on('wide'),
    mtpAcceptance: on('mtp') ? acceptance : null,
    imbalance: REAL_TRAFFIC_IMBALANCE,
  } as const;
  const asked = { ...workload, hitShare: on('caching') ? workload.hitShare : 0 };
  const { input, output } = serve(architecture, suggestPlan(architecture, machine, asked, choice), asked).usd;
  return { input, output };
}

/** The same layers with a feed-forward block of all tokens, as wide as the total allows. */
function dense(a: Architecture, total: number): Architecture {
  const without = { ...a, experts: null, denseLayers: a.layers, denseWidth: 0 };
  const room = total - countParameters(without).total;
  return { ...without, denseWidth: Math.round(room / (3 * a.hidden * a.layers)) };
}
