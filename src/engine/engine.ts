/**
 * Runs requests through the model together: plan a step, run it, sample, hand out tokens, repeat while there is
 * work. Each request's tokens are the same as if it ran alone.
 */
import type { Runner } from '../model/runner.ts';
import { logprobs, type Sampling, sample, type TokenLogprob } from './sampler.ts';
import { type Chunk, type Priority, Scheduler, type Sequence } from './scheduler.ts';

export interface EngineOptions {
  /** Most requests that may wait for a place in the batch. */
  readonly waiting: number;
  /** Most tokens of a prompt and its answer together: the model's context. */
  readonly contextTokens: number;
}

export interface Request {
  readonly prompt: ArrayLike<number>;
  readonly maxTokens: number;
  readonly sampling: Sampling;
  /** Tokens that end the answer. */
  readonly stopTokens: ReadonlySet<number>;
  /** How many alternatives to report with each token; null reports no log-probabilities. */
  readonly topLogprobs: number | null;
  readonly priority?: Priority;
  /** Requests with different tenants share no cached prefix. */
  readonly tenant?: string;
}

export interface SampledToken {
  readonly token: number;
  /** Natural logarithm, and the most probable alternatives; null unless asked for. */
  readonly logprobs: { readonly logprob: number; readonly top: readonly TokenLogprob[] } | null;
  /** Why this is the last token: it is a stop token, or as many were generated as asked for. */
  readonly finish: 'stop' | 'length' | null;
}

/** One request under way. Iterate it once; leaving the iteration early cancels the request. */
export interface Generation extends AsyncIterable<SampledToken> {
  /** Ends the generation and frees its memory now; the iteration ends. `stop`: the text so far is the whole answer. */
  cancel(finish?: 'stop' | 'cancelled'): void;
  readonly usage: Usage;
  readonly times: Times;
  /** Settles when nothing more will be generated. */
  readonly ended: Promise<void>;
}

export interface Usage {
  readonly promptTokens: number;
  /** Prompt tokens that were found in the prefix cache. */
  readonly cachedTokens: number;
  /** Sampled tokens, the stop token included. */
  readonly completionTokens: number;
}

/** Milliseconds of `performance.now()`; 0 until it happens. */
export interface Times {
  readonly arrived: number;
  readonly started: number;
  readonly firstToken: number;
  readonly finished: number;
}

export interface EngineStatus {
  readonly running: number;
  readonly waiting: number;
  readonly blocks: { readonly total: number; readonly free: number; readonly cached: number };
  /** Since the engine started. */
  readonly counts: {
    readonly steps: number;
    readonly promptTokens: number;
    readonly cachedPromptTokens: number;
    readonly generatedTokens: number;
    readonly preemptions: number;
    readonly finished: Readonly<Record<'stop' | 'length' | 'cancelled', number>>;
  };
}

/** Invariant: the loop runs exactly while the scheduler has work, and one step is in flight at a time. */
export class Engine {
  readonly #runner: Runner;
  readonly #scheduler: Scheduler;
  readonly #active = new Map<Sequence, ActiveGeneration>();
  readonly #counts = { steps: 0, generatedTokens: 0, finished: { stop: 0, length: 0, cancelled: 0 } };
  #looping: Promise<void> | null = null;
  #closed = false;

  constructor(runner: Runner, { waiting, contextTokens }: EngineOptions) {
    const { tokens, logits, sequences, blocks, blockTokens, blocksPerSequence } = runner.limits;
    this.#runner = runner;
    this.#scheduler = new Scheduler({
      stepTokens: tokens,
      sequences: Math.min(sequences, logits, tokens),
      waiting,
      contextTokens: Math.min(contextTokens, blocksPerSequence * blockTokens),
      blocks,
      blockTokens,
    });
  }

  /** The most tokens a prompt and its answer may have together: bounded by the context and by the cache. */
  get mostTokens(): number {
    const { contextTokens, blocks, blockTokens } = this.#scheduler.limits;
    return Math.min(contextTokens, blocks * blockTokens + 1);
  }

  /**
   * Starts a request.
   * @throws RequestTooLargeError, QueueFullError
   */
  submit(request: Request): Generation {
    if (this.#closed) throw new Error('the engine is closed');
    const { prompt, maxTokens, priority = 'normal', tenant = '' } = request;
    const sequence = this.#scheduler.add(prompt, maxTokens, { priority, tenant });
    const generation = new ActiveGeneration(request, sequence, (finish) => this.#end(sequence, finish));
    this.#active.set(sequence, generation);
    this.#looping ??= this.#loop();
    return generation;
  }

  status(): EngineStatus {
    const { pool, counts, running, waiting } = this.#scheduler;
    return {
      running,
      waiting,
      blocks: { total: pool.blocks, free: pool.free, cached: pool.cached },
      counts: { ...this.#counts, ...counts },
    };
  }

  /** Cancels what runs and waits, and returns when no step is in flight. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const sequence of [...this.#active.keys()]) this.#end(sequence, 'cancelled');
    await this.#looping;
  }

  async #loop(): Promise<void> {
    // Requests that arrive in the same turn of the event loop start together.
    await new Promise(setImmediate);
    while (this.#active.size > 0) {
      try {
        await this.#step(this.#scheduler.plan());
      } catch (error) {
        for (const [sequence, generation] of this.#active) {
          if (sequence.state !== 'running') continue;
          generation.fail(error);
          this.#end(sequence, 'cancelled');
        }
      }
    }
    this.#looping = null;
  }

  async #step(chunks: readonly Chunk[]): Promise<void> {
    const now = performance.now();
    for (const { sequence } of chunks) this.#active.get(sequence)?.start(now);
    const logits = await this.#runner.step(
      chunks.map(({ sequence, start, count, blocks, last }) => ({
        ids: sequence.tokens.slice(start, start + count),
        start,
        blocks,
        logits: last ? 1 : 0,
      })),
    );
    this.#scheduler.computed(chunks);
    this.#counts.steps++;
    const sampled = chunks.filter((chunk) => chunk.last);
    const vocab = logits.length / sampled.length;
    for (const [row, { sequence }] of sampled.entries()) {
      const generation = this.#active.get(sequence);
      if (generation) this.#next(sequence, generation, logits.subarray(row * vocab, (row + 1) * vocab));
    }
  }

  #next(sequence: Sequence, generation: ActiveGeneration, logits: Float32Array): void {
    const { sampling, stopTokens, topLogprobs } = generation.request;
    const token = sample(logits, sampling, sequence.tokens.length);
    this.#scheduler.append(sequence, token);
    this.#counts.generatedTokens++;
    const finish = stopTokens.has(token) ? 'stop' : this.#scheduler.full(sequence) ? 'length' : null;
    generation.push({ token, logprobs: topLogprobs === null ? null : logprobs(logits, token, topLogprobs), finish });
    if (finish) this.#end(sequence, finish);
  }

  #end(sequence: Sequence, finish: 'stop' | 'length' | 'cancelled'): void {
    const generation = this.#active.get(sequence);
    if (!generation) return;
    this.#scheduler.remove(sequence);
    this.#active.delete(sequence);
    this.#counts.finished[finish]++;
    generation.end();
  }
}

/** Tokens wait here until they are read. Invariant: after `end` or `fail` nothing is added. */
class ActiveGeneration implements Generation {
  readonly request: Request;
  readonly #end: (finish: 'stop' | 'cancelled') => void;
  readonly #sequence: Sequence;
  readonly #tokens: SampledToken[] = [];
  #times: Times = { arrived: performance.now(), started: 0, firstToken: 0, finished: 0 };
  #over = false;
  #error: unknown = null;
  #wake: (() => void) | null = null;
  #settle: () => void = () => {};
  readonly ended = new Promise<void>((resolve) => {
    this.#settle = resolve;
  });

  constructor(request: Request, sequence: Sequence, end: (finish: 'stop' | 'cancelled') => void) {
    this.request = request;
    this.#end = end;
    this.#sequence = sequence;
  }

  cancel(finish: 'stop' | 'cancelled' = 'cancelled'): void {
    this.#end(finish);
  }

  get times() {
    return this.#times;
  }

  get usage(): Usage {
    const { promptTokens, cachedTokens } = this.#sequence;
    return { promptTokens, cachedTokens, completionTokens: this.#tokens.length };
  }

  start(now: number): void {
    if (this.#times.started === 0) this.#times = { ...this.#times, started: now };
  }

  push(token: SampledToken): void {
    if (this.#tokens.length === 0) this.#times = { ...this.#times, firstToken: performance.now() };
    this.#tokens.push(token);
    this.#signal();
  }

  end(): void {
    this.#over = true;
    this.#times = { ...this.#times, finished: performance.now() };
    this.#settle();
    this.#signal();
  }

  fail(error: unknown): void {
    this.#error = error;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<SampledToken> {
    try {
      for (let next = 0; ; ) {
        while (next < this.#tokens.length) yield this.#tokens[next++]!;
        if (this.#error) throw this.#error;
        if (this.#over) return;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    } finally {
      this.cancel();
    }
  }

  #signal(): void {
    this.#wake?.();
    this.#wake = null;
  }
}
