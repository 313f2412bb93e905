/** Prefill: how fast prompts are read, what a cache hit saves, how long the first token takes. */
import type { Architecture } from './architecture.ts';
import { cacheBytes } from './counts.ts';
import { binding } from './decode.ts';
import { checkDeployment, type Deployment, DeploymentError, requireRoom } from './deployment.ts';
import { type Seconds, seconds, type TokensPerSecond, tokensPerSecond } from './quantity.ts';
import type { Resource } from './stage-time.ts';
import { type StepTime, type StepWork, stepTime } from './step-time.ts';

export interface PrefillShape {
  /** Tokens of a prompt, on average. */
  readonly promptTokens: number;
  /** Share of them whose cache is already there. */
  readonly hitShare: number;
  /** New tokens that a device takes into one step. */
  readonly tokensPerStep: number;
}

export interface PrefillPoint {
  readonly step: StepTime;
  /** New tokens, and all input tokens with the hits. */
  readonly missesPerDevice: TokensPerSecond;
  readonly inputPerDevice: TokensPerSecond;
  /** Device-seconds that one missed and one hit token take. */
  readonly secondsPerMiss: Seconds;
  readonly secondsPerHit: Seconds;
  readonly binds: Resource | 'storage';
}

/** Reading cached prefixes back, for one device: what 3FS gives a node, over the eight devices of such a node. */
const STORAGE_BYTES_PER_SECOND = (40 * 2 ** 30) / 8;

/** Cached prefixes are read back where that is faster than computing them again. */
export function prefillPoint(a: Architecture, d: Deployment, shape: PrefillShape): PrefillPoint {
  checkDeployment(a, { ...d, mtpAcceptance: null });
  requireRoom(a, d, shape.promptTokens);
  const point = pointWithHits(a, d, shape);
  // What the first hits would cost, where there are none.
  if (shape.hitShare === 0)
    return { ...point, secondsPerHit: pointWithHits(a, d, { ...shape, hitShare: 1e-3 }).secondsPerHit };
  if (point.binds !== 'storage') return point;
  const computed = pointWithHits(a, d, { ...shape, hitShare: 0 });
  return computed.inputPerDevice > point.inputPerDevice
    ? { ...computed, secondsPerHit: computed.secondsPerMiss }
    : point;
}

function pointWithHits(a: Architecture, d: Deployment, shape: PrefillShape): PrefillPoint {
  const { promptTokens, hitShare, tokensPerStep } = shape;
  const newTokens = promptTokens * (1 - hitShare);
  const prefix = promptTokens * hitShare;
  // On average a new token sees the whole prefix and half of the new tokens.
  const context = prefix + newTokens / 2;
  const rows = tokensPerStep * d.tensorParallel;
  const sequences = Math.max(2, rows / newTokens);
  const hitsPerMiss = hitShare / (1 - hitShare);
  const work = (prefixRows: number): StepWork => ({
    phase: 'prefill',
    rows,
    sequences,
    context,
    prefixRows,
    // Only the last token of a prompt is asked for its successor.
    headRows: rows / newTokens,
  });
  const step = stepTime(a, d, work(rows * hitsPerMiss));
  const withoutExpansion = hitShare > 0 ? stepTime(a, d, work(0)).seconds : step.seconds;
  const hits = tokensPerStep * hitsPerMiss;
  const fetching = (hits * cacheBytes(a, d.cache)) / STORAGE_BYTES_PER_SECOND;
  const total = Math.max(step.seconds, fetching);
  // A hit is charged what it adds: its share of the link to storage while it is read, and keys and values made anew.
  const hitSeconds =
    hits > 0 ? (step.seconds - withoutExpansion) / hits + cacheBytes(a, d.cache) / STORAGE_BYTES_PER_SECOND : 0;
  const secondsPerHit = hits > 0 ? Math.min(hitSeconds, total / (tokensPerStep + hits)) : 0;
  return {
    step,
    missesPerDevice: tokensPerSecond(tokensPerStep / total),
    inputPerDevice: tokensPerSecond((tokensPerStep + hits) / total),
    secondsPerMiss: seconds((total - hits * secondsPerHit) / tokensPerStep),
    secondsPerHit: seconds(secondsPerHit),
    binds: fetching > step.seconds ? 'storage' : binding(step.time),
  };
}

export interface PrefillWithinTarget extends PrefillPoint {
  readonly tokensPerStep: number;
  /** Share of the capacity in use: what is asked for, or the most that the target leaves. */
  readonly load: number;
  readonly highestLoad: number;
  readonly ttft: Seconds;
}

/**
 * The step size that reads the most prompts while the first token comes in time: large steps work better, small ones
 * wait less.
 * @param wanted the largest step, the longest mean time to the first token, and the load that is asked for
 * @throws DeploymentError when the first token of a prompt on an idle device comes too late
 */
export function prefillWithinTarget(
  a: Architecture,
  d: Deployment,
  wanted: PrefillShape & { readonly target: Seconds; readonly load: number },
): PrefillWithinTarget {
  let best: PrefillWithinTarget | null = null;
  let soonest = Number.POSITIVE_INFINITY;
  for (let tokensPerStep = wanted.tokensPerStep; tokensPerStep * d.tensorParallel >= LEAST_ROWS; tokensPerStep /= 2) {
    const shape = { ...wanted, tokensPerStep, rows: tokensPerStep * d.tensorParallel };
    const point = prefillPoint(a, d, shape);
    const highestLoad = loadWithinTarget(point, shape, wanted.target);
    const load = Math.min(wanted.load, highestLoad);
    soonest = Math.min(soonest, timeToFirstToken(point, shape, 0));
    if (load > 0 && point.inputPerDevice * load > (best ? best.inputPerDevice * best.load : 0)) {
      best = { ...point, tokensPerStep, load, highestLoad, ttft: timeToFirstToken(point, shape, load) };
    }
    if (load === wanted.load) break;
  }
  if (best) return best;
  throw new DeploymentError(
    `the time to the first token is ${soonest.toFixed(2)} s on an idle device, expected at most ${wanted.target} s; ` +
      'more devices, a later target or shorter prompts would do',
  );
}

/** Of a group of devices together: fewer rows than this gain no time. */
const LEAST_ROWS = 128;

/** With the new tokens that a group of devices takes into one step together. */
type GroupShape = PrefillShape & { readonly rows: number };

/**
 * Time to the first token of a mean prompt at a load: the step under way, the queue before the device (M/D/1), and the
 * steps of the prompt itself.
 * @param load share of the device's capacity that is asked for, below 1
 */
function timeToFirstToken(point: PrefillPoint, shape: GroupShape, load: number): Seconds {
  const service = point.step.seconds;
  const steps = Math.ceil((shape.promptTokens * (1 - shape.hitShare)) / shape.rows);
  return seconds(service / 2 + (load / (2 * (1 - load))) * service + steps * service);
}

/** The largest load whose mean time to the first token stays within the target; 0 where none does. */
function loadWithinTarget(point: PrefillPoint, shape: GroupShape, target: Seconds): number {
  const service = point.step.seconds;
  const waiting = target - timeToFirstToken(point, shape, 0);
  return waiting <= 0 ? 0 : (2 * waiting) / (2 * waiting + service);
}
