/**
 * A layout where the user names none: experts spread widely where the machine has links for it, on as many devices as
 * make the tokens of a workload cheapest; or the fewest devices whose memory holds the model.
 */
import type { Architecture } from './architecture.ts';
import { countParameters, weightBytes } from './counts.ts';
import { type Deployment, DeploymentError, USABLE_MEMORY } from './deployment.ts';
import { REAL_TRAFFIC_IMBALANCE } from './expert-balance.ts';
import type { Machine } from './machine.ts';
import { checkWorkload, readPrompts, type ServingPlan, type Workload, writeAnswers } from './serving.ts';

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

const REDUNDANT_EXPERTS = 32;
const PREFILL_TOKENS_PER_STEP = 16_384;
/** Of the smallest unit, at least this share of the memory is left to the cache. */
const CACHE_SHARE = 0.3;
/** Sizes of a unit that are tried: up to a node, and the published ones beyond. */
const UNITS = [1, 2, 4, 8, 16, 32, 64, 144];
/** Devices that attention is split over where experts are spread. */
const SPLITS = [1, 8];

/**
 * Prompts and answers, each on the units whose devices do the most of them within the workload's targets: the cheapest
 * tokens that the machine serves.
 * @throws WorkloadError, or DeploymentError when no unit holds the model or meets the targets
 */
export function suggestPlan(
  a: Architecture,
  machine: Machine,
  workload: Workload,
  choice: PlanChoice = USUAL_CHOICE,
): ServingPlan {
  checkWorkload(workload);
  fewestDevices(a, machine, choice.precision);
  const spread = spreads(a, machine, choice);
  const sizes = UNITS.filter(
    (devices) => devices <= mostDevices(machine) && !(a.experts && devices > a.experts.routed),
  );
  const layouts = sizes.flatMap((devices) =>
    (spread ? SPLITS.filter((split) => devices % split === 0) : [devices]).map((split) =>
      unit(a, machine, choice, devices, split),
    ),
  );
  const drafting = a.mtpLayers > 0 ? choice.mtpAcceptance : null;
  const prefill = busiest(layouts, (each) => {
    const { inputPerDevice, load } = readPrompts(a, each, PREFILL_TOKENS_PER_STEP, workload);
    return inputPerDevice * load;
  });
  const answering = layouts.map((each) => ({ ...each, mtpAcceptance: drafting }));
  const decode = busiest(answering, (each) => writeAnswers(a, each, workload).perDevice);
  return { prefill, decode, prefillTokensPerStep: PREFILL_TOKENS_PER_STEP };
}

/**
 * The fewest devices that hold the model and some cache, for prompts and answers alike.
 * @throws DeploymentError when no number of devices up to a whole node, or eight nodes, holds the model
 */
export function smallestPlan(a: Architecture, machine: Machine, choice: PlanChoice): ServingPlan {
  const devices = fewestDevices(a, machine, choice.precision);
  const alone = unit(a, machine, { ...choice, wide: false }, devices, devices);
  const drafting = a.mtpLayers > 0 ? choice.mtpAcceptance : null;
  return {
    prefill: alone,
    decode: { ...alone, mtpAcceptance: drafting },
    prefillTokensPerStep: PREFILL_TOKENS_PER_STEP,
  };
}

function spreads({ experts }: Architecture, { remoteLink }: Machine, { wide }: PlanChoice): boolean {
  return wide && experts !== null && experts.routed >= 64 && remoteLink !== null;
}

function unit(a: Architecture, machine: Machine, choice: PlanChoice, devices: number, split: number): Deployment {
  const spread = spreads(a, machine, choice);
  return {
    machine,
    devices,
    tensorParallel: split,
    expertParallel: spread,
    redundantExperts: spread && devices > 1 && a.experts && a.experts.routed >= 128 ? REDUNDANT_EXPERTS : 0,
    overlap: choice.wide && machine.kind === 'gpu',
    precision: choice.precision,
    cache: choice.cache,
    imbalance: a.experts && choice.wide && !(spread && devices === 1) ? choice.imbalance : 1,
    mtpAcceptance: null,
  };
}

/** The unit of which each device does most. @throws DeploymentError of the largest, when none can do it */
function busiest(units: readonly Deployment[], perDevice: (unit: Deployment) => number): Deployment {
  let best: { readonly unit: Deployment; readonly most: number } | null = null;
  let refusal: unknown;
  for (const unit of units) {
    try {
      const most = perDevice(unit);
      if (!best || most > best.most) best = { unit, most };
    } catch (error) {
      // Too few devices for the model, or too slow; others may do.
      if (!(error instanceof DeploymentError)) throw error;
      refusal = error;
    }
  }
  if (best) return best.unit;
  throw refusal;
}

function mostDevices({ remoteLink, localLink, devicesPerNode }: Machine): number {
  return remoteLink !== null ? Number.POSITIVE_INFINITY : localLink !== null ? devicesPerNode : 1;
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
