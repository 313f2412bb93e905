/** One step of a loaded model over a paged cache: token ids in, logits out. */

export interface RunnerLimits {
  /** Most tokens, rows of logits and sequences in one step. */
  readonly tokens: number;
  readonly logits: number;
  readonly sequences: number;
  /** Blocks of the cache and tokens in a block; most blocks of one sequence. */
  readonly blocks: number;
  readonly blockTokens: number;
  readonly blocksPerSequence: number;
}

/** A piece of one sequence that takes part in a step: a chunk of its prompt, or one decoded token. */
export interface SequenceChunk {
  /** Token ids that enter at positions start, start + 1, … */
  readonly ids: ArrayLike<number>;
  readonly start: number;
  /** Cache blocks of the sequence in order; they cover positions 0 .. start + ids.length − 1. */
  readonly blocks: ArrayLike<number>;
  /** Of this chunk's tokens, how many at its end need logits (0 in the middle of a prefill, 1 to sample). */
  readonly logits: number;
}

export interface Runner {
  readonly limits: RunnerLimits;
  /**
   * Runs the chunks together. @returns logits f32 [Σ chunk.logits, vocab] in order of the chunks; the memory is
   * overwritten by the next step.
   */
  step(chunks: readonly SequenceChunk[]): Promise<Float32Array>;
}
