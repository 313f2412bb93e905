/** From prompt tokens to an answer as text, piece by piece: the engine's tokens, decoded, up to a stop string. */
import { randomInt } from 'node:crypto';
import type { Engine, Generation, SampledToken, Times, Usage } from './engine.ts';
import type { Priority } from './scheduler.ts';
import { createStopMatcher } from './stop-strings.ts';

export interface TextOptions {
  /** Default: as many as context and cache leave room for. */
  readonly maxTokens?: number | undefined;
  /** Sampling defaults come from the model's generation_config.json, else temperature 1 without limits. */
  readonly temperature?: number | undefined;
  readonly topP?: number | undefined;
  readonly topK?: number | undefined;
  /** The same seed gives the same answer. Default: a random one. */
  readonly seed?: number | undefined;
  /** Strings that end the answer and are not part of it. */
  readonly stop?: readonly string[] | undefined;
  /** Report each token's log-probability and this many alternatives. */
  readonly logprobs?: number | undefined;
  /** Aborting cancels the request and ends the iteration. */
  readonly signal?: AbortSignal | undefined;
  readonly priority?: Priority | undefined;
  /** Requests with different tenants share no cached prefix. */
  readonly tenant?: string | undefined;
}

export interface TextPiece extends SampledToken {
  /** Text that became certain with this token; often, but not always, the token's own. */
  readonly text: string;
}

/** An answer under way. Iterate it once. */
export interface TextGeneration extends AsyncIterable<TextPiece> {
  cancel(): void;
  /** Counts what has been iterated. */
  readonly usage: Usage;
  readonly times: Times;
  /** Settles when the answer has been iterated to its end, or given up; usage and times are final then. */
  readonly ended: Promise<void>;
}

/** What of a loaded model the answer depends on. */
export interface TextSource {
  readonly engine: Engine;
  readonly stopTokens: ReadonlySet<number>;
  readonly samplingDefaults: { readonly temperature: number; readonly topP: number; readonly topK: number };
  /** Turns token ids, one at a time, into text; null for a model without tokenizer. */
  textStream(): { push(token: number): string; flush(): string } | null;
}

/**
 * Starts an answer to `prompt`.
 * @throws RequestTooLargeError, QueueFullError before anything is generated
 */
export function startText(source: TextSource, prompt: ArrayLike<number>, options: TextOptions = {}): TextGeneration {
  const { engine, stopTokens, samplingDefaults } = source;
  const generation = engine.submit({
    prompt,
    maxTokens: options.maxTokens ?? Math.max(1, engine.mostTokens - prompt.length),
    sampling: {
      temperature: options.temperature ?? samplingDefaults.temperature,
      topP: options.topP ?? samplingDefaults.topP,
      topK: options.topK ?? samplingDefaults.topK,
      seed: options.seed ?? randomInt(2 ** 48 - 1),
    },
    stopTokens,
    topLogprobs: options.logprobs ?? null,
    ...(options.priority !== undefined && { priority: options.priority }),
    ...(options.tenant !== undefined && { tenant: options.tenant }),
  });
  let settle = () => {};
  const ended = new Promise<void>((resolve) => {
    settle = resolve;
  });
  const cancel = () => {
    generation.cancel();
    settle();
  };
  if (options.signal?.aborted) cancel();
  options.signal?.addEventListener('abort', cancel, { once: true });
  const counter = { tokens: 0 };
  return {
    cancel,
    ended,
    get usage() {
      return { ...generation.usage, completionTokens: counter.tokens };
    },
    get times() {
      return generation.times;
    },
    async *[Symbol.asyncIterator]() {
      try {
        yield* pieces(source, generation, options.stop ?? [], counter);
      } finally {
        options.signal?.removeEventListener('abort', cancel);
        settle();
      }
    },
  };
}

async function* pieces(
  source: TextSource,
  generation: Generation,
  stops: readonly string[],
  counter: { tokens: number },
): AsyncGenerator<TextPiece> {
  const stream = source.textStream();
  const matcher = createStopMatcher(stops);
  for await (const sampled of generation) {
    counter.tokens++;
    const ended = sampled.finish === 'stop';
    const decoded = ended || !stream ? '' : stream.push(sampled.token);
    const last = sampled.finish && stream ? stream.flush() : '';
    const { text, stopped } = matcher.push(decoded + last);
    if (stopped) {
      generation.cancel('stop');
      yield { ...sampled, text, finish: 'stop' };
      return;
    }
    yield { ...sampled, text: sampled.finish ? text + matcher.flush() : text };
  }
}
