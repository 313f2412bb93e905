/** Drives an OpenAI-compatible endpoint with many requests and measures what its clients see. */
import { setTimeout as pause } from 'node:timers/promises';

export interface Load {
  /** With /v1, as clients are given it. */
  readonly baseUrl: string;
  readonly apiKey: string | null;
  readonly model: string;
  readonly requests: number;
  /** What request number `index` asks. */
  readonly ask: (index: number) => Ask;
  /**
   * So many clients, each asking again when it is answered; or so many requests a second, at random moments; or each
   * request at its own moment, in seconds from the start, in rising order.
   */
  readonly pace:
    | { readonly clients: number }
    | { readonly perSecond: number }
    | { readonly moments: readonly number[] };
  /** What counts as good: the first token, and each further one on average, within so many milliseconds. */
  readonly target: { readonly ttftMs: number; readonly tpotMs: number };
}

interface Ask {
  /** Text or token ids. */
  readonly prompt: string | readonly number[];
  readonly maxTokens: number;
}

export interface Percentiles {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
}

export interface LoadReport {
  readonly requests: { readonly answered: number; readonly refused: number; readonly failed: number };
  readonly seconds: number;
  readonly tokensPerSecond: { readonly prompt: number; readonly output: number };
  /** Answers a second that met the target. */
  readonly goodput: number;
  readonly ttftMs: Percentiles;
  readonly tpotMs: Percentiles;
  readonly promptTokens: number;
  /** Of them, those that the server found in its cache, and their share. */
  readonly cachedTokens: number;
  readonly cacheHits: number;
}

/** What one client saw. */
interface Answer {
  readonly ttftMs: number;
  readonly tpotMs: number;
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly outputTokens: number;
}

export async function driveLoad(load: Load): Promise<LoadReport> {
  const answers: Answer[] = [];
  let refused = 0;
  let failed = 0;
  const one = async (index: number) => {
    try {
      const answer = await ask(load, index);
      if (answer) answers.push(answer);
      else refused++;
    } catch {
      failed++;
    }
  };
  const start = performance.now();
  if ('clients' in load.pace) await closedLoop(load, load.pace.clients, one);
  else await openLoop('moments' in load.pace ? load.pace.moments : randomMoments(load, load.pace.perSecond), one);
  const seconds = (performance.now() - start) / 1000;
  const sum = (value: (answer: Answer) => number) => answers.reduce((total, answer) => total + value(answer), 0);
  const promptTokens = sum((answer) => answer.promptTokens);
  const cachedTokens = sum((answer) => answer.cachedTokens);
  const { ttftMs, tpotMs } = load.target;
  return {
    requests: { answered: answers.length, refused, failed },
    seconds,
    tokensPerSecond: { prompt: promptTokens / seconds, output: sum((answer) => answer.outputTokens) / seconds },
    goodput: answers.filter((answer) => answer.ttftMs <= ttftMs && answer.tpotMs <= tpotMs).length / seconds,
    ttftMs: percentiles(answers.map((answer) => answer.ttftMs)),
    tpotMs: percentiles(answers.filter((answer) => answer.outputTokens > 1).map((answer) => answer.tpotMs)),
    promptTokens,
    cachedTokens,
    cacheHits: promptTokens === 0 ? 0 : cachedTokens / promptTokens,
  };
}

async function closedLoop({ requests }: Load, clients: number, one: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  const client = async () => {
    while (next < requests) await one(next++);
  };
  await Promise.all(Array.from({ length: clients }, client));
}

/** Sends each request at its moment, whatever became of those before it. */
async function openLoop(moments: readonly number[], one: (index: number) => Promise<void>): Promise<void> {
  const start = performance.now();
  const pending: Promise<void>[] = [];
  for (const [index, seconds] of moments.entries()) {
    const wait = start + seconds * 1000 - performance.now();
    if (wait > 0) await pause(wait);
    pending.push(one(index));
  }
  await Promise.all(pending);
}

/** Poisson arrivals: the pauses between requests are exponentially distributed. */
function randomMoments({ requests }: Load, perSecond: number): number[] {
  let seconds = 0;
  return Array.from({ length: requests }, () => {
    const moment = seconds;
    seconds -= Math.log(1 - Math.random()) / perSecond;
    return moment;
  });
}

/** @returns null when the server asks to come back later */
async function ask(load: Load, index: number): Promise<Answer | null> {
  const { prompt, maxTokens } = load.ask(index);
  const start = performance.now();
  const response = await fetch(`${load.baseUrl}/completions`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...(load.apiKey && { Authorization: `Bearer ${load.apiKey}` }) },
    body: JSON.stringify({
      model: load.model,
      prompt,
      max_tokens: maxTokens,
      temperature: 1,
      seed: index,
      stream: true,
      stream_options: { include_usage: true },
    }),
  });
  if (response.status === 429) {
    await pause(Number(response.headers.get('Retry-After') ?? 1) * 1000);
    return null;
  }
  if (!response.ok || !response.body) throw new Error(`the server answered ${response.status}`);
  let firstMs = 0;
  let rest = '';
  let usage: Usage | null = null;
  for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
    if (firstMs === 0) firstMs = performance.now();
    rest += piece;
    const events = rest.split('\n\n');
    rest = events.pop() ?? '';
    for (const event of events) usage = usageIn(event) ?? usage;
  }
  if (!usage) throw new Error('the stream ended without usage');
  const outputTokens = usage.completion_tokens;
  return {
    ttftMs: firstMs - start,
    tpotMs: outputTokens > 1 ? (performance.now() - firstMs) / (outputTokens - 1) : 0,
    promptTokens: usage.prompt_tokens,
    cachedTokens: usage.prompt_cache_hit_tokens ?? usage.prompt_tokens_details?.cached_tokens ?? 0,
    outputTokens,
  };
}

interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly prompt_cache_hit_tokens?: number;
  readonly prompt_tokens_details?: { readonly cached_tokens?: number };
}

function usageIn(event: string): Usage | null {
  const data = /^data: (\{.*)/s.exec(event)?.[1];
  if (data === undefined) return null;
  return (JSON.parse(data) as { usage?: Usage | null }).usage ?? null;
}

const WORDS = ['the', 'fox', 'and', 'crow', 'went', 'home', 'to', 'a', 'big', 'tree', 'with', 'red', 'cake', 'said'];

/** Words, the same for the same index; the first `shared` of them are those of every other. */
export function wordPrompt({ words, shared }: { words: number; shared: number }, index: number): string {
  return Array.from({ length: words }, (_, i) => {
    const key = i < shared ? i : i * 31 + index * 7919 + 1;
    return WORDS[(Math.imul(key, 2654435761) >>> 16) % WORDS.length];
  }).join(' ');
}

function percentiles(values: readonly number[]): Percentiles {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
  return { p50: at(0.5), p90: at(0.9), p99: at(0.99) };
}
