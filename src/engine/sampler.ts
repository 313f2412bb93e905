/**
 * From a row of logits to a token: greedy at temperature 0, otherwise temperature, then top-k, then top-p over
 * what top-k left, then one draw. Equal logits are ordered by token id, so the result is a function of its
 * arguments alone.
 */
import { uniform } from './random.ts';

export interface Sampling {
  /** 0 takes the most probable token. */
  readonly temperature: number;
  /** Keep the fewest most probable tokens whose mass reaches topP; 1 keeps all. At least one is kept. */
  readonly topP: number;
  /** Keep the topK most probable tokens; 0 keeps all. */
  readonly topK: number;
  readonly seed: number;
}

/**
 * The token drawn for position `position` of a sequence.
 * @param logits f32 [vocab]
 */
export function sample(logits: Float32Array, { temperature, topP, topK, seed }: Sampling, position: number): number {
  const best = argmax(logits);
  if (temperature === 0) return best;
  const all = weigh(logits, logits[best]!, temperature);
  const byCount = topK > 0 && topK < logits.length ? cutAfter(all, topK, Number.POSITIVE_INFINITY) : all;
  const kept = topP < 1 ? cutAfter(byCount, Number.POSITIVE_INFINITY, topP * massOf(byCount)) : byCount;
  // Candidates stand in order of token id on the line from 0 to their mass; the draw is a point on it.
  const target = uniform(seed, position) * massOf(kept);
  let passed = 0;
  for (let token = 0; token < logits.length; token++) {
    if (!isKept(kept, token)) continue;
    passed += kept.weights[token]!;
    if (passed > target) return token;
  }
  return best;
}

export interface TokenLogprob {
  readonly token: number;
  readonly logprob: number;
}

/** Natural log-probabilities of the untouched distribution: of `chosen`, and of the `count` most probable tokens. */
export function logprobs(
  logits: Float32Array,
  chosen: number,
  count: number,
): { logprob: number; top: readonly TokenLogprob[] } {
  const greatest = logits[argmax(logits)]!;
  let mass = 0;
  for (let i = 0; i < logits.length; i++) mass += Math.exp(logits[i]! - greatest);
  const normalizer = greatest + Math.log(mass);
  const top = mostProbable(logits, count).map((token) => ({ token, logprob: logits[token]! - normalizer }));
  return { logprob: logits[chosen]! - normalizer, top };
}

/** Index of the greatest value; the lowest index among equals. */
export function argmax(values: Float32Array): number {
  let best = 0;
  let greatest = values[0]!;
  for (let i = 1; i < values.length; i++) {
    const value = values[i]!;
    if (value > greatest) {
      greatest = value;
      best = i;
    }
  }
  return best;
}

/** Tokens from the most probable one down to `lastToken`; among those of equal logit, up to its id. */
interface Candidates {
  readonly logits: Float32Array;
  readonly greatest: number;
  readonly temperature: number;
  /** By token id: exp((logit − greatest) / temperature). */
  readonly weights: Float64Array;
  readonly lastLogit: number;
  readonly lastToken: number;
}

let scratch = new Float64Array(0);

/** All tokens. The weights are overwritten by the next call. */
function weigh(logits: Float32Array, greatest: number, temperature: number): Candidates {
  if (scratch.length !== logits.length) scratch = new Float64Array(logits.length);
  for (let token = 0; token < logits.length; token++) {
    const exponent = (logits[token]! - greatest) / temperature;
    // What is less than a rounding error of the sum is never drawn.
    scratch[token] = exponent < -NEGLIGIBLE ? 0 : Math.exp(exponent);
  }
  const lastLogit = Number.NEGATIVE_INFINITY;
  return { logits, greatest, temperature, weights: scratch, lastLogit, lastToken: logits.length };
}

const NEGLIGIBLE = 40;

function isKept({ logits, lastLogit, lastToken }: Candidates, token: number): boolean {
  const logit = logits[token]!;
  return logit > lastLogit || (logit === lastLogit && token <= lastToken);
}

function massOf(candidates: Candidates): number {
  let mass = 0;
  for (let token = 0; token < candidates.weights.length; token++) {
    if (isKept(candidates, token)) mass += candidates.weights[token]!;
  }
  return mass;
}

const BUCKETS = 1024;

/**
 * The most probable of the candidates: as few as make up `most` tokens or the mass `enough`, and at least one. Tokens
 * are counted into buckets of similar weight, so that only the bucket where the cut falls has to be sorted.
 */
function cutAfter(candidates: Candidates, most: number, enough: number): Candidates {
  const { logits, greatest, temperature, weights } = candidates;
  const scale = BUCKETS / (NEGLIGIBLE * temperature);
  const bucketOf = (token: number) => Math.min(BUCKETS - 1, Math.floor((greatest - logits[token]!) * scale));
  const counts = new Int32Array(BUCKETS);
  const masses = new Float64Array(BUCKETS);
  for (let token = 0; token < logits.length; token++) {
    if (!isKept(candidates, token)) continue;
    const bucket = bucketOf(token);
    counts[bucket]! += 1;
    masses[bucket]! += weights[token]!;
  }
  let count = 0;
  let mass = 0;
  let cut = 0;
  for (; cut < BUCKETS - 1 && count + counts[cut]! < most && mass + masses[cut]! < enough; cut++) {
    count += counts[cut]!;
    mass += masses[cut]!;
  }
  const inCut: number[] = [];
  for (let token = 0; token < logits.length; token++) {
    if (isKept(candidates, token) && bucketOf(token) === cut) inCut.push(token);
  }
  inCut.sort((a, b) => logits[b]! - logits[a]! || a - b);
  for (const token of inCut) {
    count++;
    mass += weights[token]!;
    if (count >= most || mass >= enough) return { ...candidates, lastLogit: logits[token]!, lastToken: token };
  }
  return candidates;
}

/** The `count` tokens of greatest logit, by falling logit, then rising id. */
function mostProbable(logits: Float32Array, count: number): number[] {
  const wanted = Math.min(count, logits.length);
  if (wanted === 0) return [];
  const before = (a: number, b: number) => logits[a]! > logits[b]! || (logits[a]! === logits[b]! && a < b);
  // A heap with the worst kept token on top.
  const heap: number[] = [];
  const sink = (at: number) => {
    const token = heap[at]!;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child]!, heap[child + 1]!)) child++;
      if (!before(token, heap[child]!)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = token;
  };
  for (let token = 0; token < wanted; token++) heap.push(token);
  for (let at = (wanted >> 1) - 1; at >= 0; at--) sink(at);
  for (let token = wanted; token < logits.length; token++) {
    if (!before(token, heap[0]!)) continue;
    heap[0] = token;
    sink(0);
  }
  return heap.sort((a, b) => (before(a, b) ? -1 : 1));
}
