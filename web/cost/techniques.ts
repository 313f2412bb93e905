/**
 * The steps from a dense model of the same size, served plainly, to the scenario: each technique can be on or off, and
 * any set of them has a price. Served plainly a model may miss the scenario's targets; it is then priced at the speed
 * that it reaches.
 */
import type { Architecture } from '../../src/economics/architecture.ts';
import { countParameters, withAttention } from '../../src/economics/counts.ts';
import { DeploymentError } from '../../src/economics/deployment.ts';
import { seconds } from '../../src/economics/quantity.ts';
import { type Serving, serve, type Workload } from '../../src/economics/serving.ts';
import { suggestPlan } from '../../src/economics/suggested-plan.ts';
import type { Evaluation } from './evaluation.ts';
import { TECHNIQUES, type Technique } from './scenario.ts';

/** Those that the scenario makes use of. */
export function techniquesOf({ architecture, plan, scenario }: Evaluation): Technique[] {
  const { attention, experts } = architecture;
  const used: Record<Technique, boolean> = {
    experts: experts !== null,
    attention: attention.kind === 'mla' || (attention.kind === 'grouped' && attention.kvHeads < attention.heads),
    fp8: scenario.precision === 'fp8',
    spread: plan.decode.expertParallel,
    drafts: plan.decode.mtpAcceptance !== null,
    prefixes: scenario.hits > 0,
  };
  return TECHNIQUES.filter((technique) => used[technique]);
}

export interface Prices {
  readonly output: number;
  readonly input: number;
}

/**
 * Dollars a million tokens with some of the techniques.
 * @throws DeploymentError where no number of devices holds the model with them alone
 */
export function priceWith(evaluation: Evaluation, on: ReadonlySet<Technique>): Prices {
  const { architecture, machine, choice, workload, serving } = evaluation;
  if (techniquesOf(evaluation).every((technique) => on.has(technique))) return pricesOf(serving);
  const attended = on.has('attention') ? architecture : withAttention(architecture, 'mha');
  const served = on.has('experts') ? attended : withoutExperts(attended);
  const priced = (wide: boolean, targets: Partial<Workload>): Prices => {
    const plan = suggestPlan(served, machine, {
      ...choice,
      wide,
      precision: on.has('fp8') ? choice.precision : 'bf16',
      mtpAcceptance: on.has('drafts') ? choice.mtpAcceptance : null,
    });
    const hitShare = on.has('prefixes') ? workload.hitShare : 0;
    return pricesOf(serve(served, plan, { ...workload, hitShare, ...targets }));
  };
  // What does not fit spread out may fit the fewest devices that hold it.
  const attempts = [
    () => priced(on.has('spread'), {}),
    () => priced(on.has('spread'), { tpotTarget: NO_TARGET, ttftTarget: NO_TARGET }),
    () => priced(false, { tpotTarget: NO_TARGET, ttftTarget: NO_TARGET }),
  ];
  for (const attempt of attempts.slice(0, -1)) {
    try {
      return attempt();
    } catch (error) {
      if (!(error instanceof DeploymentError)) throw error;
    }
  }
  return attempts.at(-1)!();
}

const NO_TARGET = seconds(10_000);

function pricesOf({ usd: { output, input } }: Serving): Prices {
  return { output, input };
}

/** The same number of parameters, all of them used by every token. */
function withoutExperts(a: Architecture): Architecture {
  const dense = { ...a, experts: null, denseLayers: a.layers, denseWidth: 0 };
  const width = (countParameters(a).total - countParameters(dense).total) / (3 * a.hidden * a.layers);
  return { ...dense, denseWidth: Math.round(width) };
}

/**
 * Each technique's share of the whole factor, the mean over all orders (Shapley), as a factor: together they multiply
 * to the whole. Prices of all sets are worked out once.
 */
export function shapley(
  evaluation: Evaluation,
  used: readonly Technique[],
  measure: keyof Prices,
): Map<Technique, number> {
  const sets = 2 ** used.length;
  const logs = Array.from({ length: sets }, (_, set) =>
    Math.log(priceWith(evaluation, new Set(used.filter((_, i) => set & (1 << i))))[measure]),
  );
  const factorial = (n: number): number => (n <= 1 ? 1 : n * factorial(n - 1));
  return new Map(
    used.map((technique, i) => {
      let share = 0;
      for (let set = 0; set < sets; set++) {
        if (set & (1 << i)) continue;
        const size = used.filter((_, j) => set & (1 << j)).length;
        const weight = (factorial(size) * factorial(used.length - size - 1)) / factorial(used.length);
        share += weight * (logs[set]! - logs[set | (1 << i)]!);
      }
      return [technique, Math.exp(share)];
    }),
  );
}
