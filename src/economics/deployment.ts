/**
 * How a model is laid out over devices: what is split, what is copied, in which precision. One unit is the smallest
 * group of devices that serves by itself.
 */
import type { Architecture } from './architecture.ts';
import {
  type CacheLayout,
  cacheBytes,
  countParameters,
  expertParameters,
  type Precision,
  weightBytes,
} from './counts.ts';
import type { Machine } from './machine.ts';
import { type Bytes, type BytesPerToken, bytes, bytesPerToken } from './quantity.ts';

export interface Deployment {
  readonly machine: Machine;
  /** Devices of a unit. */
  readonly devices: number;
  /** Devices that share one batch, attention and dense layers split over them; `devices` is a multiple of it. */
  readonly tensorParallel: number;
  /** Whole experts spread over all devices of the unit; otherwise every expert is split like the rest. */
  readonly expertParallel: boolean;
  /** Copies of busy experts held beside the originals, in all. */
  readonly redundantExperts: number;
  /** Two microbatches: one computes while the other's activations travel. */
  readonly overlap: boolean;
  /** Precision of weights, products and of what travels to the experts. */
  readonly precision: Precision;
  readonly cache: CacheLayout;
  /** Load of the busiest device over the mean load, of experts and of their all-to-all; 1 is perfect balance. */
  readonly imbalance: number;
  /** Draft tokens by the multi-token-prediction module, and the share of them that is kept; null: no drafting. */
  readonly mtpAcceptance: number | null;
}

/** As the published systems serve: whole experts on all devices, 32 of them twice, two microbatches, FP8. */
export function widelySpread(machine: Machine, devices: number): Deployment {
  return {
    machine,
    devices,
    tensorParallel: 1,
    expertParallel: true,
    redundantExperts: 32,
    overlap: true,
    precision: 'fp8',
    cache: 'bf16',
    imbalance: 1,
    mtpAcceptance: null,
  };
}

/** Share of a device's memory that weights and cache may fill; the rest is activations and the runtime's own. */
export const USABLE_MEMORY = 0.9;

export class DeploymentError extends Error {
  override name = 'DeploymentError';
}

/** @throws DeploymentError naming what does not fit together, and what would */
export function checkDeployment(a: Architecture, d: Deployment): void {
  const refuse = (field: string, found: unknown, expected: string): never => {
    throw new DeploymentError(`${field} is ${found}, expected ${expected}`);
  };
  if (a.attention.kind === 'compressed') refuse('model_type', a.modelType, 'one whose attention is modelled');
  if (!(Number.isInteger(d.devices) && d.devices >= 1)) refuse('devices', d.devices, 'a whole number from 1');
  if (!(Number.isInteger(d.tensorParallel) && d.tensorParallel >= 1 && d.devices % d.tensorParallel === 0)) {
    refuse('tensorParallel', d.tensorParallel, `a divisor of devices = ${d.devices}`);
  }
  if (!d.expertParallel && d.tensorParallel !== d.devices && a.experts) {
    refuse('tensorParallel', d.tensorParallel, `devices = ${d.devices}, since experts are not spread`);
  }
  if (!(d.imbalance >= 1)) refuse('imbalance', d.imbalance, 'a number from 1');
  if (!(d.redundantExperts >= 0)) refuse('redundantExperts', d.redundantExperts, 'a whole number from 0');
  if (d.mtpAcceptance !== null) {
    if (a.mtpLayers === 0) refuse('mtpAcceptance', d.mtpAcceptance, 'none, since the model has no drafting module');
    if (!(d.mtpAcceptance >= 0 && d.mtpAcceptance <= 1))
      refuse('mtpAcceptance', d.mtpAcceptance, 'a share from 0 to 1');
  }
  const { machine } = d;
  if (d.devices > 1 && machine.localLink === null && machine.remoteLink === null) {
    refuse('devices', d.devices, `1, since ${machine.name} has no link`);
  }
  if (d.devices > machine.devicesPerNode && machine.remoteLink === null) {
    refuse('devices', d.devices, `at most ${machine.devicesPerNode}: ${machine.name} has no link between nodes`);
  }
}

/** Routed experts of one layer on one device, copies among them. */
export function expertsPerDevice(a: Architecture, { devices, redundantExperts, expertParallel }: Deployment): number {
  if (!a.experts) return 0;
  return expertParallel ? (a.experts.routed + redundantExperts) / devices : a.experts.routed;
}

/** Weights that one device holds. Tables and routers stay in BF16. */
export function weightsPerDevice(a: Architecture, d: Deployment): Bytes {
  const { parts, mtp } = countParameters(a);
  const each = weightBytes(d.precision);
  const moeLayers = a.layers - a.denseLayers;
  const routed = d.expertParallel
    ? expertsPerDevice(a, d) * expertParameters(a) * moeLayers
    : parts.routedExperts / d.tensorParallel;
  const split = (parts.attention + parts.dense + parts.sharedExperts) / d.tensorParallel;
  const tables = ((parts.embedding + parts.head) * weightBytes('bf16')) / d.tensorParallel;
  // The drafting module is one more layer with experts: laid out as the others are.
  const drafting =
    d.mtpAcceptance === null || moeLayers === 0 ? 0 : (routed + split) / a.layers + (mtp > 0 ? 2 * a.hidden ** 2 : 0);
  return bytes((routed + split + drafting) * each + tables + parts.routers * weightBytes('bf16'));
}

/** Cache bytes that a device holds for one token of a sequence of its group. A latent is needed whole by every head. */
function cachePerDevice(a: Architecture, d: Deployment): BytesPerToken {
  const whole = cacheBytes(a, d.cache) * (d.mtpAcceptance === null ? 1 : (a.layers + a.mtpLayers) / a.layers);
  const split = a.attention.kind === 'grouped' ? Math.min(d.tensorParallel, a.attention.kvHeads) : 1;
  return bytesPerToken(whole / split);
}

/** Sequences of `context` tokens that a device's memory has room for, as its share of its group; 0 where none fit. */
export function sequencesInMemory(a: Architecture, d: Deployment, context: number): number {
  const room = d.machine.memory * USABLE_MEMORY - weightsPerDevice(a, d);
  return Math.max(0, room / (cachePerDevice(a, d) * context) / d.tensorParallel);
}

/** @throws DeploymentError when weights and the cache of one sequence do not fit */
export function requireRoom(a: Architecture, d: Deployment, context: number): void {
  if (sequencesInMemory(a, d, context) * d.tensorParallel >= 1) return;
  throw new DeploymentError(
    `memory of ${d.machine.name} is ${(d.machine.memory / 1e9).toFixed(0)} GB a device, expected room for ` +
      `${(weightsPerDevice(a, d) / 1e9).toFixed(1)} GB of weights and a sequence of ${Math.round(context)} tokens; ` +
      'more devices hold more',
  );
}
