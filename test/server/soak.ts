/**
 * Many clients at once against one server, well-behaved and not: whole answers and streams, slow readers, clients that
 * leave, bodies that are no request. Every answer is held to what the model says to the same request alone.
 */
import { connect } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { serverEvents } from '../../web/chat/server-events.ts';
import { type Answer, dice, type Question } from './soak-questions.ts';

export interface Soak {
  readonly url: string;
  readonly questions: readonly Question[];
  readonly requests: number;
  readonly connections: number;
  /** A request that takes longer, once it was not told to come back later, has hung. */
  readonly hungMs: number;
  readonly seed: number;
  readonly onEnd?: (ended: number) => void;
}

interface Counts {
  answered: number;
  /** Left by their clients; what they had read by then was the beginning of the right answer. */
  left: number;
  /** No requests, and refused as such. */
  malformed: number;
  /** Times that a client was told to come back later; it did, and its request is counted elsewhere. */
  cameBack: number;
  tokens: number;
  cachedTokens: number;
}

export interface SoakReport extends Readonly<Counts> {
  /** What was wrong, in words: lost, hung, mixed up or different. */
  readonly faults: readonly string[];
}

export async function soak(options: Soak): Promise<SoakReport> {
  const { requests, connections, onEnd } = options;
  const counts: Counts = { answered: 0, left: 0, malformed: 0, cameBack: 0, tokens: 0, cachedTokens: 0 };
  const faults: string[] = [];
  const ids = new Set<string>();
  let next = 0;
  let ended = 0;
  const client = async () => {
    while (next < requests) {
      const index = next++;
      const request = new Request(options, dice(options.seed * 1_000_003 + index), counts, ids);
      try {
        counts[await within(options.hungMs, request, request.run())]++;
      } catch (error) {
        const { described, refusals } = request;
        faults.push(`request ${index}, ${described}, sent ${refusals + 1} times: ${causeOf(error)}`);
      }
      onEnd?.(++ended);
    }
  };
  await Promise.all(Array.from({ length: connections }, client));
  return { ...counts, faults };
}

/** One request of one client, whose manners the dice decide. */
class Request {
  described = '';
  /** Times that it was told to come back later. */
  refusals = 0;
  /** When it was sent, the last time. */
  sent = performance.now();
  readonly #soak: Soak;
  readonly #roll: ReturnType<typeof dice>;
  readonly #counts: Counts;
  readonly #ids: Set<string>;

  constructor(options: Soak, roll: ReturnType<typeof dice>, counts: Counts, ids: Set<string>) {
    this.#soak = options;
    this.#roll = roll;
    this.#counts = counts;
    this.#ids = ids;
  }

  async run(): Promise<'answered' | 'left' | 'malformed'> {
    const roll = this.#roll;
    const manners = roll(100);
    if (manners < 10) return await this.#malformed();
    const question = this.#soak.questions[roll(this.#soak.questions.length)]!;
    const stream = manners < 70;
    const body = {
      ...question.body,
      cache_salt: ['', 'a', 'b'][roll(3)],
      priority: roll(4) === 0 ? 1 : 0,
      ...(stream && { stream, stream_options: { include_usage: true } }),
    };
    if (manners < 20) return await this.#leaves(question, body);
    this.described = manners < 28 ? 'a slow reader' : stream ? 'a stream' : 'a whole answer';
    const response = await this.#ask(question.path, body);
    const got = stream ? await this.#readStream(response, manners < 28 ? 2 + roll(40) : 0) : await readWhole(response);
    this.#counts.tokens += got.completionTokens;
    this.#counts.cachedTokens += got.cachedTokens;
    if (this.#ids.has(got.id)) throw new Error(`the id ${got.id} was given twice`);
    this.#ids.add(got.id);
    checkAnswer(question, got, this.#soak.questions);
    return 'answered';
  }

  /** Asks, and asks again later as long as the server says so. */
  async #ask(path: string, body: object, signal: AbortSignal | null = null): Promise<Response> {
    for (;;) {
      this.sent = performance.now();
      const response = await fetch(this.#soak.url + path, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify(body),
        signal,
      });
      if (response.status === 200) return response;
      const said = await response.text();
      if (response.status !== 429) throw new Error(`the server answered ${response.status}: ${said}`);
      this.#counts.cameBack++;
      this.refusals++;
      await pause(Number(response.headers.get('Retry-After')) * 1000);
    }
  }

  async #readStream(response: Response, pauseMs: number): Promise<Got> {
    const got = { id: '', text: '', finish: null as string | null, promptTokens: 0, completionTokens: 0 };
    const logprobs: number[] = [];
    let cachedTokens = 0;
    let done = false;
    for await (const data of serverEvents(response.body!)) {
      if (pauseMs > 0) await pause(pauseMs);
      if (done) throw new Error('something came after the end');
      done = data === '[DONE]';
      if (done) continue;
      const event = JSON.parse(data) as Reply;
      if (event.error) throw new Error(event.error.message);
      got.id ||= event.id;
      if (got.id !== event.id) throw new Error('a stream holds parts of two answers');
      const choice = event.choices[0];
      got.text += choice?.text ?? choice?.delta?.content ?? '';
      got.finish ??= choice?.finish_reason ?? null;
      logprobs.push(...logprobsOf(choice));
      if (event.usage) {
        got.promptTokens = event.usage.prompt_tokens;
        got.completionTokens = event.usage.completion_tokens;
        cachedTokens = event.usage.prompt_cache_hit_tokens;
      }
    }
    if (!done) throw new Error('the stream ended before its end');
    return { ...got, logprobs, cachedTokens };
  }

  /** Goes in the middle of an answer, or before it has come. */
  async #leaves(question: Question, body: object): Promise<'answered' | 'left'> {
    this.described = 'a client that leaves';
    const leaving = new AbortController();
    let read = '';
    let events = this.#roll(30);
    const timer = this.#roll(3) === 0 ? setTimeout(() => leaving.abort(), this.#roll(400)) : undefined;
    try {
      const response = await this.#ask(question.path, body, leaving.signal);
      for await (const data of serverEvents(response.body!)) {
        if (events-- === 0) leaving.abort();
        if (data === '[DONE]') return 'answered';
        const { choices, error } = JSON.parse(data) as Reply;
        if (error) throw new Error(error.message);
        read += choices[0]?.text ?? choices[0]?.delta?.content ?? '';
      }
      throw new Error('the stream ended before its end');
    } catch (error) {
      if (!leaving.signal.aborted) throw error;
      if (!question.answer.text.startsWith(read)) throw new Error(`read ${JSON.stringify(read)} before leaving`);
      return 'left';
    } finally {
      clearTimeout(timer);
    }
  }

  async #malformed(): Promise<'malformed'> {
    const kinds = [...MALFORMED, 'half', 'noise'] as const;
    const kind = this.#roll(60) === 0 ? HUGE : kinds[this.#roll(kinds.length)]!;
    if (typeof kind === 'string') {
      this.described = `${kind} of a request`;
      await sendRaw(this.#soak.url, kind);
      return 'malformed';
    }
    const [name, body, status, type = 'application/json'] = kind;
    this.described = name;
    const response = await fetch(`${this.#soak.url}/v1/completions`, {
      method: 'POST',
      headers: { 'Content-Type': type },
      body: body(),
    });
    const { error } = (await response.json()) as Reply;
    if (response.status !== status || !error) throw new Error(`the server answered ${response.status}, not ${status}`);
    return 'malformed';
  }
}

type Malformed = [name: string, body: () => string | Uint8Array<ArrayBuffer>, status: number, type?: string];

const json = (fields: object) => () =>
  JSON.stringify({ model: 'farthing-tiny', prompt: 'hi', max_tokens: 4, ...fields });
const MALFORMED: Malformed[] = [
  ['no body', () => '', 400],
  ['half a body', () => '{"model": "farthing-tiny", "prom', 400],
  ['bytes that are no text', () => new Uint8Array([0x22, 0xff, 0xfe, 0x22]), 400],
  ['a wrong type', json({ max_tokens: 'many' }), 400],
  ['a token that is none', json({ prompt: [1, 2, 1e9] }), 400],
  ['more than the context holds', json({ prompt: new Array(900).fill(5), max_tokens: 900 }), 400],
  ['another model', json({ model: 'nobody' }), 404],
  ['another type of content', json({}), 415, 'text/plain'],
];
const HUGE: Malformed = ['a body that is too large', () => ' '.repeat(17 * 2 ** 20), 413];

/** Sends the beginning of a request and goes, or what is no HTTP and waits to be turned away. */
async function sendRaw(url: string, kind: 'half' | 'noise'): Promise<void> {
  const socket = connect(Number(new URL(url).port), '127.0.0.1');
  const closed = new Promise((resolve) => socket.once('close', resolve).on('error', () => {}));
  const head =
    'POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{"m';
  socket.resume().write(kind === 'half' ? head : 'HELLO \u0000\u0007 THERE\r\n\r\n');
  if (kind === 'half') {
    await pause(5);
    socket.destroy();
  }
  await closed;
}

interface Got extends Answer {
  readonly id: string;
  readonly cachedTokens: number;
}

/** What of a reply's many forms is looked at. */
interface Reply {
  readonly id: string;
  readonly error?: { readonly message: string };
  readonly choices: readonly Choice[];
  readonly usage?: {
    readonly prompt_tokens: number;
    readonly completion_tokens: number;
    readonly prompt_cache_hit_tokens: number;
  } | null;
}
interface Choice {
  readonly text?: string;
  readonly message?: { readonly content: string };
  readonly delta?: { readonly content?: string };
  readonly finish_reason: string | null;
  readonly logprobs: {
    readonly token_logprobs?: readonly number[];
    readonly content?: readonly { readonly logprob: number }[];
  } | null;
}

/** @throws Error when it is not what the question is answered alone */
export function checkAnswer(question: Question, got: Got, questions: readonly Question[]): void {
  const { text, finish, promptTokens, completionTokens, logprobs } = got;
  const wanted = question.answer;
  const told: Answer = { text, finish, promptTokens, completionTokens, logprobs: wanted.logprobs && logprobs };
  if (JSON.stringify(told) === JSON.stringify(wanted)) return;
  const others = questions.filter(({ answer }) => answer.text === text && text.length > 20);
  const problem = others.length > 0 ? 'the answer to another request' : 'an answer unlike the one to it alone';
  throw new Error(`${problem}: ${JSON.stringify(told)} instead of ${JSON.stringify(wanted)}`);
}

export async function readWhole(response: Response): Promise<Got> {
  const { id, choices, usage } = (await response.json()) as Reply;
  const choice = choices[0]!;
  return {
    id,
    text: choice.text ?? choice.message!.content,
    finish: choice.finish_reason,
    promptTokens: usage!.prompt_tokens,
    completionTokens: usage!.completion_tokens,
    cachedTokens: usage!.prompt_cache_hit_tokens,
    logprobs: logprobsOf(choice),
  };
}

function logprobsOf(choice: Choice | undefined): readonly number[] {
  const { token_logprobs: ofText, content } = choice?.logprobs ?? {};
  return ofText ?? content?.map(({ logprob }) => logprob) ?? [];
}

async function within<T>(ms: number, request: Request, work: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setInterval> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setInterval(() => {
      if (performance.now() - request.sent > ms) reject(new Error(`hung: no end after ${ms / 1000} s`));
    }, 1000);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearInterval(timer);
  }
}

function causeOf(error: unknown): string {
  const { message, cause } = error as Error;
  return cause instanceof Error ? `${message}: ${cause.message}` : message;
}
