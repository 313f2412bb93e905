/**
 * A sensible layout where the user names none: experts spread widely where the machine has links for it, otherwise the
 * fewest devices whose memory holds weights and leaves room for a cache.
 */
import type { Architecture } from './architecture.ts';
import { countParameters, weightBytes } from './counts.ts';
import { type Deployment, DeploymentError, USABLE_MEMORY } from './deployment.ts';
import { REAL_TRAFFIC_IMBALANCE } from './expert-balance.ts';
import type { Machine } from './machine.ts';
import type { ServingPlan } from './serving.ts';

/** What a plan is chosen with; the steps of the explanation turn these on one by one. */
export interface PlanChoice {
  readonly precision: 'fp8' | 'bf16';
  readonly cache: 'bf16' | 'fp8';
  /** Experts spread over many devices, and two microbatches that hide communication. */
  readonly wide: boolean;
  readonly mtpAcceptance: number | null;
  readonly imbalance: number;
}

export const USUAL_CHOICE: PlanChoice = {
  precision: 'fp8',
  cache: 'bf16',
  wide: true,
  mtpAcceptance: null,
  imbalance: REAL_TRAFFIC_IMBALANCE,
};

/** Units of the production service of February 2025 (open-infra-index, day 6). */
const PREFILL_DEVICES = 32;
const DECODE_DEVICES = 144;
const REDUNDANT_EXPERTS = 32;
const PREFILL_TOKENS_PER_STEP = 16_384;
/** At least this share of the memory is left to the cache. */
const CACHE_SHARE = 0.3;

/** @throws DeploymentError when no number of devices up to a whole node, or eight nodes, holds the model */
export function suggestPlan(a: Architecture, machine: Machine, choice: PlanChoice = USUAL_CHOICE): ServingPlan {
  const wide = choice.wide && a.experts !== null && a.experts.routed >= 64 && machine.remoteLink !== null;
  const common = {
    machine,
    overlap: choice.wide && machine.kind === 'gpu',
    precision: choice.precision,
    cache: choice.cache,
    imbalance: a.experts && choice.wide ? choice.imbalance : 1,
  };
  const unit = (devices: number, mtpAcceptance: number | null): Deployment => ({
    ...common,
    devices,
    tensorParallel: wide ? 1 : devices,
    expertParallel: wide,
    redundantExperts: wide && a.experts && a.experts.routed >= 128 ? REDUNDANT_EXPERTS : 0,
    mtpAcceptance,
  });
  const drafting = a.mtpLayers > 0 ? choice.mtpAcceptance : null;
  const fewest = fewestDevices(a, machine, choice.precision);
  const alone = wide && fewest === 1;
  const prefill = wide && !alone ? PREFILL_DEVICES : fewest;
  const decode = wide && !alone ? Math.min(DECODE_DEVICES, (a.experts?.routed ?? 0) / 2) : fewest;
  const plan = {
    prefill: unit(prefill, null),
    decode: unit(decode, drafting),
    prefillTokensPerStep: PREFILL_TOKENS_PER_STEP,
  };
  if (!alone) return plan;
  const whole = (d: Deployment): Deployment => ({ ...d, expertParallel: true, imbalance: 1, redundantExperts: 0 });
  return { ...plan, prefill: whole(plan.prefill), decode: whole(plan.decode) };
}

/** The same layout on another number of devices for both units, attention split over `tensorParallel` where experts are spread. */
export function onDevices(plan: ServingPlan, devices: number, tensorParallel: number): ServingPlan {
  const resized = (unit: Deployment): Deployment => ({
    ...unit,
    devices,
    tensorParallel: unit.expertParallel ? tensorParallel : devices,
  });
  return { ...plan, prefill: resized(plan.prefill), decode: resized(plan.decode) };
}

function fewestDevices(a: Architecture, machine: Machine, precision: 'fp8' | 'bf16'): number {
  const { total, parts } = countParameters(a);
  const tables = parts.embedding + parts.head;
  const weights = (total - tables) * weightBytes(precision) + tables * 2;
  const most =
    machine.remoteLink !== null ? 8 * machine.devicesPerNode : machine.localLink !== null ? machine.devicesPerNode : 1;
  for (let devices = 1; devices <= most; devices *= 2) {
    if (weights <= devices * machine.memory * USABLE_MEMORY * (1 - CACHE_SHARE)) return devices;
  }
  if (weights <= most * machine.memory * USABLE_MEMORY) return most;
  throw new DeploymentError(
    `memory of ${most} × ${machine.name} is ${((most * machine.memory) / 1e9).toFixed(0)} GB, expected room for ` +
      `${(weights / 1e9).toFixed(0)} GB of weights`,
  );
}
