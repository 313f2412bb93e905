/** Decoding: how fast a batch writes, the largest batch that memory and the latency target allow. */
import type { Architecture } from './architecture.ts';
import { checkDeployment, type Deployment, DeploymentError, requireRoom, sequencesInMemory } from './deployment.ts';
import { type Seconds, seconds, type TokensPerSecond, tokensPerSecond } from './quantity.ts';
import { noTime, RESOURCES, type Resource, type StageTime } from './stage-time.ts';
import { type StepTime, type StepWork, stepTime } from './step-time.ts';

export interface DecodePoint {
  /** Sequences of one device. */
  readonly batch: number;
  readonly context: number;
  readonly step: StepTime;
  readonly draft: StepTime | null;
  /** Between two tokens of one sequence, on average. */
  readonly tpot: Seconds;
  readonly perDevice: TokensPerSecond;
  readonly perUser: TokensPerSecond;
  /** Tokens that a sequence gains in a step. */
  readonly tokensPerStep: number;
  readonly time: StageTime;
  readonly binds: Resource;
}

/**
 * One step of `batch` sequences a device that look back on `context` tokens each.
 * With drafting a step checks one drafted token beside the next one, and the module then drafts anew.
 */
export function decodePoint(a: Architecture, d: Deployment, batch: number, context: number): DecodePoint {
  const sequences = batch * d.tensorParallel;
  const queries = d.mtpAcceptance === null ? 1 : 2;
  const work: StepWork = {
    phase: 'decode',
    rows: sequences * queries,
    sequences,
    context,
    prefixRows: 0,
    headRows: sequences * queries,
  };
  const step = stepTime(a, d, work);
  const draft =
    d.mtpAcceptance === null
      ? null
      : stepTime({ ...a, layers: 1, denseLayers: 0 }, d, { ...work, rows: sequences, headRows: sequences });
  const time = noTime();
  for (const resource of RESOURCES) time[resource] = step.time[resource] + (draft?.time[resource] ?? 0);
  const total = step.seconds + (draft?.seconds ?? 0);
  const tokensPerStep = 1 + (d.mtpAcceptance ?? 0);
  return {
    batch,
    context,
    step,
    draft,
    tpot: seconds(total / tokensPerStep),
    perDevice: tokensPerSecond((batch * tokensPerStep) / total),
    perUser: tokensPerSecond(tokensPerStep / total),
    tokensPerStep,
    time,
    binds: binding(time),
  };
}

export function binding(time: StageTime): Resource {
  return RESOURCES.reduce((most, resource) => (time[resource] > time[most] ? resource : most));
}

type BatchLimit = 'memory' | 'latency' | 'demand';

export interface LargestBatch extends DecodePoint {
  readonly limit: BatchLimit;
  /** What memory alone would allow. */
  readonly memoryBatch: number;
}

/**
 * The largest batch whose time per token stays within the target and whose cache fits.
 * @param mostBatch an upper bound from elsewhere, say how many requests there are
 * @throws DeploymentError when the weights do not fit, or one sequence alone is too slow
 */
export function largestBatch(
  a: Architecture,
  d: Deployment,
  context: number,
  tpotTarget: Seconds,
  mostBatch = Number.POSITIVE_INFINITY,
): LargestBatch {
  checkDeployment(a, d);
  requireRoom(a, d, context);
  const memoryBatch = sequencesInMemory(a, d, context);
  // A group of devices shares its sequences, so a device's share may be a fraction.
  const least = 1 / d.tensorParallel;
  const most = Math.min(memoryBatch, mostBatch);
  const fits = (batch: number) => decodePoint(a, d, batch, context).tpot <= tpotTarget;
  if (!fits(least)) {
    const { tpot } = decodePoint(a, d, least, context);
    throw new DeploymentError(
      `the time per token of one sequence alone is ${(tpot * 1000).toFixed(1)} ms, expected at most ` +
        `${(tpotTarget * 1000).toFixed(1)} ms`,
    );
  }
  const limited = (batch: number, limit: BatchLimit): LargestBatch => ({
    ...decodePoint(a, d, batch, context),
    limit,
    memoryBatch,
  });
  if (fits(most)) return limited(most, most === mostBatch ? 'demand' : 'memory');
  // The time per token is close to linear in the batch: false position with bisection every third time.
  let low = least;
  let high = most;
  let lowExcess = decodePoint(a, d, low, context).tpot / tpotTarget - 1;
  let highExcess = decodePoint(a, d, high, context).tpot / tpotTarget - 1;
  for (let round = 0; high - low > low * 1e-4 && lowExcess < -1e-4; round++) {
    const straight = low - (lowExcess * (high - low)) / (highExcess - lowExcess);
    const middle = round % 3 === 2 ? (low + high) / 2 : straight;
    const excess = decodePoint(a, d, middle, context).tpot / tpotTarget - 1;
    if (excess <= 0) {
      low = middle;
      lowExcess = excess;
    } else {
      high = middle;
      highExcess = excess;
    }
  }
  return limited(low, 'latency');
}
