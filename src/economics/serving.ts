/**
 * The model of serving: prefill and decode on devices of their own, what each reaches under its latency target, and what
 * a million tokens cost there.
 */
import type { Architecture } from './architecture.ts';
import { type LargestBatch, largestBatch } from './decode.ts';
import type { Deployment } from './deployment.ts';
import { type PrefillWithinTarget, prefillWithinTarget } from './prefill.ts';
import {
  costPerMillion,
  type Seconds,
  type TokensPerSecond,
  times,
  tokensPerSecond,
  type UsdPerMillion,
  usdPerMillion,
} from './quantity.ts';

export interface Workload {
  readonly promptTokens: number;
  readonly outputTokens: number;
  /** Share of prompt tokens found in the prefix cache. */
  readonly hitShare: number;
  /** Tokens an output token looks back on; prompt and half the output unless measured. */
  readonly context?: number;
  /** Longest mean times between tokens and to the first. */
  readonly tpotTarget: Seconds;
  readonly ttftTarget: Seconds;
  /** Mean share of capacity that is asked for: demand has hours, machines are paid by the day. */
  readonly load: number;
}

export interface ServingPlan {
  readonly prefill: Deployment;
  readonly decode: Deployment;
  /** New tokens that a device takes into one prefill step at most; fewer where the first token would come too late. */
  readonly prefillTokensPerStep: number;
}

export interface Serving {
  readonly prefill: PrefillWithinTarget & { readonly inputPerNode: TokensPerSecond };
  readonly decode: LargestBatch & { readonly perNode: TokensPerSecond; readonly context: number };
  /** With as much of the capacity in use as the workload's load and, for prompts, its target leave; `input` is the mean over hits and misses, `request` over input and output. */
  readonly usd: {
    readonly miss: UsdPerMillion;
    readonly hit: UsdPerMillion;
    readonly input: UsdPerMillion;
    readonly output: UsdPerMillion;
    readonly request: UsdPerMillion;
  };
  /** Decode devices for each prefill device, for this workload. */
  readonly decodeDevicesPerPrefill: number;
}

export class WorkloadError extends Error {
  override name = 'WorkloadError';
}

/** @throws WorkloadError or DeploymentError naming the field, what was found and what is allowed */
export function serve(a: Architecture, plan: ServingPlan, workload: Workload): Serving {
  checkWorkload(workload);
  const { promptTokens, outputTokens, load } = workload;
  const context = contextOf(workload);
  const prefill = readPrompts(a, plan.prefill, plan.prefillTokensPerStep, workload);
  const decode = writeAnswers(a, plan.decode, workload);
  const input = costPerMillion(plan.prefill.machine.price, times(prefill.inputPerDevice, prefill.load));
  const output = costPerMillion(plan.decode.machine.price, times(decode.perDevice, load));
  const busy = (time: Seconds) =>
    costPerMillion(plan.prefill.machine.price, times(tokensPerSecond(1 / time), prefill.load));
  return {
    prefill: { ...prefill, inputPerNode: times(prefill.inputPerDevice, plan.prefill.machine.devicesPerNode) },
    decode: { ...decode, context, perNode: times(decode.perDevice, plan.decode.machine.devicesPerNode) },
    usd: {
      miss: busy(prefill.secondsPerMiss),
      hit: busy(prefill.secondsPerHit),
      input,
      output,
      request: usdPerMillion((input * promptTokens + output * outputTokens) / (promptTokens + outputTokens)),
    },
    decodeDevicesPerPrefill:
      outputTokens / (decode.perDevice * load) / (promptTokens / (prefill.inputPerDevice * prefill.load)),
  };
}

/** @throws DeploymentError when the unit does not hold the model, or is too slow for the workload's target */
export function readPrompts(
  a: Architecture,
  unit: Deployment,
  tokensPerStep: number,
  { promptTokens, hitShare, ttftTarget: target, load }: Workload,
): PrefillWithinTarget {
  return prefillWithinTarget(a, unit, { promptTokens, hitShare, tokensPerStep, target, load });
}

/** @throws DeploymentError as `readPrompts` */
export function writeAnswers(a: Architecture, unit: Deployment, workload: Workload): LargestBatch {
  return largestBatch(a, unit, contextOf(workload), workload.tpotTarget);
}

/** What an output token looks back on: the prompt and, on average, half of the answer. */
function contextOf({ context, promptTokens, outputTokens }: Workload): number {
  return context ?? promptTokens + outputTokens / 2;
}

/** Profit over revenue and over cost, when a workload is sold at list prices. */
export function margin(
  serving: Serving,
  { promptTokens, outputTokens, hitShare }: Workload,
  list: { readonly hit: UsdPerMillion; readonly miss: UsdPerMillion; readonly output: UsdPerMillion },
): { revenue: UsdPerMillion; cost: UsdPerMillion; ofRevenue: number; ofCost: number } {
  const all = promptTokens + outputTokens;
  const input = list.hit * hitShare + list.miss * (1 - hitShare);
  const revenue = usdPerMillion((input * promptTokens + list.output * outputTokens) / all);
  const cost = serving.usd.request;
  return { revenue, cost, ofRevenue: (revenue - cost) / revenue, ofCost: (revenue - cost) / cost };
}

/** @throws WorkloadError */
export function checkWorkload(workload: Workload): void {
  const limits: readonly [keyof Workload, number, number][] = [
    ['promptTokens', 1, 1e8],
    ['outputTokens', 1, 1e8],
    ['hitShare', 0, 0.999],
    ['load', 0.001, 1],
    ['tpotTarget', 1e-5, 1e4],
    ['ttftTarget', 1e-5, 1e5],
    ['context', 1, 1e8],
  ];
  for (const [field, least, most] of limits) {
    const value = workload[field];
    if (value === undefined) continue;
    if (!(value >= least && value <= most)) {
      throw new WorkloadError(`${field} is ${value}, expected a number from ${least} to ${most}`);
    }
  }
}
