/**
 * The techniques of a scenario, and the prices with some of them that its waterfall needs. One price takes some ten
 * servings, so they are worked out one by one, and given up as soon as the scenario is another one.
 */
import { DeploymentError } from '../../src/economics/deployment.ts';
import { type Costs, costWith, TECHNIQUES, type Technique } from '../../src/economics/explanation.ts';
import { seconds } from '../../src/economics/quantity.ts';
import type { Evaluation } from './evaluation.ts';
import { readOrder } from './scenario.ts';

/** Prices by the techniques that are on, joined by dots; null where no number of devices serves that. */
export type CostsBySet = ReadonlyMap<string, Costs | null>;

export const keyOf = (on: readonly Technique[]) => TECHNIQUES.filter((technique) => on.includes(technique)).join('.');

/** Those that the scenario makes use of. */
export function techniquesOf({ architecture, plan, scenario }: Evaluation): Technique[] {
  const { attention, experts } = architecture;
  const used: Record<Technique, boolean> = {
    experts: experts !== null,
    mla: attention.kind === 'mla' || (attention.kind === 'grouped' && attention.kvHeads < attention.heads),
    fp8: scenario.precision === 'fp8',
    wide: plan.decode.expertParallel,
    mtp: plan.decode.mtpAcceptance !== null,
    caching: scenario.hits > 0,
  };
  return TECHNIQUES.filter((technique) => used[technique]);
}

/** The sets whose prices are needed: one a step, or all of them where no order is given. */
function setsOf(evaluation: Evaluation): Technique[][] {
  const used = techniquesOf(evaluation);
  const order = readOrder(evaluation.scenario.order)?.filter((technique) => used.includes(technique));
  if (order) return [...order.map((_, i) => order.slice(0, i)), order];
  return Array.from({ length: 1 << used.length }, (_, set) => used.filter((_, i) => set & (1 << i)));
}

export function* costsOneByOne(evaluation: Evaluation): Generator<void, CostsBySet> {
  const costs = new Map<string, Costs | null>();
  for (const set of setsOf(evaluation)) {
    costs.set(keyOf(set), costs.get(keyOf(set)) ?? costOfSet(evaluation, set));
    yield;
  }
  return costs;
}

const NO_TARGET = seconds(10_000);

/** Where the targets cannot be met, the price is that at the speed that is reached. */
function costOfSet({ architecture, machine, workload, scenario }: Evaluation, set: readonly Technique[]): Costs | null {
  for (const targets of [{}, { tpotTarget: NO_TARGET, ttftTarget: NO_TARGET }]) {
    const settings = {
      machine,
      workload: { ...workload, ...targets },
      acceptance: scenario.mtp / 100,
      cache: scenario.cache,
    };
    try {
      return costWith(architecture, settings, (technique) => set.includes(technique));
    } catch (error) {
      if (!(error instanceof DeploymentError)) throw error;
    }
  }
  return null;
}
