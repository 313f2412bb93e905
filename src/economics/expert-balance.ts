/**
 * The load of the busiest device over the mean, in real traffic: the one figure that no kernel measurement gives. Taken
 * from a pair of published runs that differ in nothing else, and used for every system that serves real traffic.
 */
import published from './data/published.json' with { type: 'json' };
import { widelySpread } from './deployment.ts';
import { machineById } from './machine.ts';
import { modelById } from './model-catalogue.ts';
import { prefillPoint } from './prefill.ts';

/** As `fitImbalance` finds it, to two digits. */
export const REAL_TRAFFIC_IMBALANCE = 1.3;

/** The imbalance at which the model's own ratio of balanced to measured throughput is the published one. */
export function fitImbalance(): number {
  const { balancedPerNode, measuredPerNode } = published.expertBalance;
  const { architecture } = modelById('deepseek-v3');
  const speed = (imbalance: number) => {
    const deployment = { ...widelySpread(machineById('h100-sxm'), 32), imbalance };
    return prefillPoint(architecture, deployment, { promptTokens: 4096, hitShare: 0, tokensPerStep: 16_384 })
      .missesPerDevice;
  };
  const balanced = speed(1);
  let low = 1;
  let high = 4;
  while (high - low > 1e-4) {
    const middle = (low + high) / 2;
    if (balanced / speed(middle) < balancedPerNode / measuredPerNode) low = middle;
    else high = middle;
  }
  return low;
}
