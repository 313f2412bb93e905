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
  const byCount = topK > 0 && topK < logits.length ? mostProbableOf(all, topK, Number.POSITIVE_INFINITY) : all;
  const kept = topP < 1 ? mostProbableOf(byCount, Number.POSITIVE_INFINITY, topP * byCount.mass) : byCount;
  // Candidates stand in order of token id on the line from 0 to their mass; the draw is a point on it.
  const target = uniform(seed, position) * kept.mass;
  let passed = 0;
  for (let i = 0; i < kept.count; i++) {
    passed += kept.weights[i]!;
    if (passed > target) return kept.tokens[i]!;
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

/** Tokens in order of id, and exp((logit − greatest) / temperature) of each. The next draw overwrites them. */
interface Candidates {
  readonly logits: Float32Array;
  readonly greatest: number;
  readonly temperature: number;
  readonly tokens: Int32Array;
  readonly weights: Float64Array;
  readonly count: number;
  readonly mass: number;
}

let memory = { tokens: new Int32Array(0), weights: new Float64Array(0) };

/** What is less than e to the power of minus that, a rounding error of the sum, is never drawn. */
const NEGLIGIBLE = 40;

function weigh(logits: Float32Array, greatest: number, temperature: number): Candidates {
  if (memory.tokens.length < logits.length) {
    memory = { tokens: new Int32Array(logits.length), weights: new Float64Array(logits.length) };
  }
  const { tokens, weights } = memory;
  const inverse = 1 / temperature;
  let count = 0;
  let mass = 0;
  for (let token = 0; token < logits.length; token++) {
    const exponent = (logits[token]! - greatest) * inverse;
    if (exponent < -NEGLIGIBLE) continue;
    const weight = Math.exp(exponent);
    tokens[count] = token;
    weights[count++] = weight;
    mass += weight;
  }
  return { logits, greatest, temperature, tokens, weights, count, mass };
}

const BUCKETS = 1024;
const counts = new Int32Array(BUCKETS);
const masses = new Float64Array(BUCKETS);

/**
 * The most probable of the candidates: as few as make up `most` tokens or the mass `enough`, and at least one. Tokens
 * are counted into buckets of similar weight, so that only the bucket where the cut falls has to be sorted.
 */
function mostProbableOf(candidates: Candidates, most: number, enough: number): Candidates {
  const { logits, greatest, temperature, tokens, weights } = candidates;
  const scale = BUCKETS / (NEGLIGIBLE * temperature);
  const bucketOf = (token: number) => Math.min(BUCKETS - 1, Math.floor((greatest - logits[token]!) * scale));
  // All that weigh less than that are together lighter than what may be left out.
  const least = (candidates.mass - enough) / (2 * candidates.count);
  const heavy = keep(candidates, (_, weight) => weight >= least);
  counts.fill(0);
  masses.fill(0);
  for (let i = 0; i < heavy.count; i++) {
    const bucket = bucketOf(tokens[i]!);
    counts[bucket]! += 1;
    masses[bucket]! += weights[i]!;
  }
  let before = 0;
  let mass = 0;
  let cut = 0;
  for (; cut < BUCKETS - 1 && before + counts[cut]! < most && mass + masses[cut]! < enough; cut++) {
    before += counts[cut]!;
    mass += masses[cut]!;
  }
  const inCut: { token: number; weight: number }[] = [];
  for (let i = 0; i < heavy.count; i++) {
    if (bucketOf(tokens[i]!) === cut) inCut.push({ token: tokens[i]!, weight: weights[i]! });
  }
  inCut.sort((a, b) => logits[b.token]! - logits[a.token]! || a.token - b.token);
  if (inCut.length === 0) return heavy; // there are no more
  let taken = 0;
  do mass += inCut[taken++]!.weight;
  while (taken < inCut.length && before + taken < most && mass < enough);
  const last = inCut[taken - 1]!.token;
  const lastLogit = logits[last]!;
  return keep(heavy, (token) => {
    const logit = logits[token]!;
    return logit > lastLogit || (logit === lastLogit && token <= last);
  });
}

/** Those candidates alone, in the memory of all. */
function keep(candidates: Candidates, wanted: (token: number, weight: number) => boolean): Candidates {
  const { tokens, weights } = candidates;
  let count = 0;
  let mass = 0;
  for (let i = 0; i < candidates.count; i++) {
    const token = tokens[i]!;
    const weight = weights[i]!;
    if (!wanted(token, weight)) continue;
    tokens[count] = token;
    weights[count++] = weight;
    mass += weight;
  }
  return { ...candidates, count, mass };
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
