/**
 * How many tokens to draft for each sequence: the depth at which, by what has been measured so far, a step writes most
 * tokens for its time. Tokens per step follow from how often drafts were right, over all requests; the time of a step
 * is measured for each depth and each size of the batch. Where drafting does not pay, that depth is 0.
 */

/** Until a depth has so many measurements in a batch of this size it is tried, but not for ever. */
const MEASUREMENTS = 6;
const TRIALS = 24;
/** Every so many steps another depth is tried for a few, since contexts grow and machines change. */
const TRY_EVERY = 128;
const TRY_FOR = 4;
/** Weight of a new measurement; one may be at most so many times what is expected, as pauses are nobody's cost. */
const COST_WEIGHT = 1 / 8;
const MOST_SURPRISE = 2;
const ACCEPTANCE_WEIGHT = 1 / 128;

interface Cost {
  /** Milliseconds of a step for one sequence of the batch. */
  ms: number;
  measured: number;
  /** How often it was asked for only to be measured. */
  tried: number;
}

export interface DraftCounts {
  /** Times that a sequence's drafts were checked. */
  readonly drafts: number;
  /** Tokens that were drafted and checked, and those that the sampler then drew. */
  readonly drafted: number;
  readonly accepted: number;
  /** Of the accepted, how many stood in the first, second, … place of a draft. */
  readonly acceptedByPlace: readonly number[];
}

export class Speculation {
  readonly deepest: number;
  readonly counts: { drafts: number; drafted: number; accepted: number; acceptedByPlace: number[] };
  /** By place: how often it and all before it are right. Hopeful until measured, so that it is measured. */
  readonly #reached: number[];
  /** By batch (its logarithm) and depth. */
  readonly #costs: Cost[][] = [];
  #steps = 0;
  #tried = 0;

  constructor(deepest: number) {
    this.deepest = deepest;
    this.#reached = Array.from({ length: deepest }, (_, place) => 0.7 ** (place + 1));
    this.counts = { drafts: 0, drafted: 0, accepted: 0, acceptedByPlace: new Array<number>(deepest).fill(0) };
  }

  /** Depth for the next step of `sequences` that write. */
  depth(sequences: number): number {
    if (this.deepest === 0) return 0;
    const costs = this.#costsOf(sequences);
    const unknown = costs.findLastIndex(({ measured, tried }) => measured < MEASUREMENTS && tried < TRIALS);
    if (unknown !== -1) {
      costs[unknown]!.tried++;
      return unknown;
    }
    const sinceTry = this.#steps++ % TRY_EVERY;
    if (sinceTry === 0) this.#tried = (this.#tried + 1) % (this.deepest + 1);
    return sinceTry < TRY_FOR ? this.#tried : this.#best(costs);
  }

  /** A step of `sequences` that checked drafts of `depth` and drafted as many anew took so long. */
  took(sequences: number, depth: number, ms: number): void {
    const cost = this.#costsOf(sequences)[depth]!;
    const sample = ms / sequences;
    cost.measured++;
    if (cost.measured === 1) cost.ms = sample;
    const weight = Math.max(COST_WEIGHT, 1 / cost.measured);
    cost.ms += (Math.min(sample, MOST_SURPRISE * cost.ms) - cost.ms) * weight;
  }

  /** Of `drafted` tokens of a sequence the first `accepted` were drawn. */
  checked(drafted: number, accepted: number): void {
    if (drafted > 0) this.counts.drafts++;
    this.counts.drafted += drafted;
    this.counts.accepted += accepted;
    for (let place = 0; place < drafted; place++) {
      const right = place < accepted;
      if (right) this.counts.acceptedByPlace[place]! += 1;
      this.#reached[place]! += ((right ? 1 : 0) - this.#reached[place]!) * ACCEPTANCE_WEIGHT;
    }
  }

  #best(costs: readonly Cost[]): number {
    let best = 0;
    let tokens = 1;
    let rate = 1 / costs[0]!.ms;
    for (const [place, reached] of this.#reached.entries()) {
      tokens += reached;
      const deeper = tokens / costs[place + 1]!.ms;
      if (deeper <= rate) continue;
      best = place + 1;
      rate = deeper;
    }
    return best;
  }

  #costsOf(sequences: number): Cost[] {
    const batch = Math.round(2 * Math.log2(sequences));
    this.#costs[batch] ??= Array.from({ length: this.deepest + 1 }, () => ({
      ms: Number.POSITIVE_INFINITY,
      measured: 0,
      tried: 0,
    }));
    return this.#costs[batch];
  }
}
