/**
 * Recorded workloads to replay: Mooncake's (JSON lines, with the ids of the 512-token blocks of each prompt) and Azure's
 * of 2023 (CSV of times and lengths).
 */
import { readFile } from 'node:fs/promises';
import { gunzipSync } from 'node:zlib';
import { z } from 'zod';

interface TraceRequest {
  /** Since the first request. */
  readonly seconds: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  /** Of the blocks of the prompt: equal leading ids are an equal beginning. Empty where the trace has none. */
  readonly blocks: readonly number[];
}

export interface Trace {
  readonly requests: readonly TraceRequest[];
  readonly blockTokens: number;
}

class TraceError extends Error {
  override name = 'TraceError';
}

const MOONCAKE_BLOCK = 512;

const tokens = z.number().int().min(0);
const mooncakeLine = z
  .object({
    timestamp: z.number().min(0),
    input_length: tokens,
    output_length: tokens,
    hash_ids: z.array(z.number().int().min(0)),
  })
  .refine(({ input_length, hash_ids }) => hash_ids.length === Math.ceil(input_length / MOONCAKE_BLOCK));
const AZURE_HEADER = 'TIMESTAMP,ContextTokens,GeneratedTokens';
const azureLine = z.tuple([
  z
    .string()
    .transform((time) => Date.parse(`${time.trim().replace(' ', 'T')}Z`))
    .pipe(z.number()),
  z.string().regex(/^\d+$/).transform(Number),
  z.string().regex(/^\d+$/).transform(Number),
]);

/** Reads a trace, compressed by gzip or not. @throws TraceError naming file, line and what was expected */
export async function readTrace(path: string): Promise<Trace> {
  const bytes = await readFile(path).catch((error: Error) => {
    throw new TraceError(`${path}: cannot be read (${error.message})`);
  });
  const zipped = bytes[0] === 0x1f && bytes[1] === 0x8b;
  const lines = (zipped ? gunzipSync(bytes) : bytes).toString('utf8').trimEnd().split(/\r?\n/);
  const csv = lines[0] === AZURE_HEADER;
  const requests = csv
    ? lines.slice(1).map((line, i) => azureRequest(line, `${path}, line ${i + 2}`))
    : lines.map((line, i) => mooncakeRequest(line, `${path}, line ${i + 1}`));
  if (requests.length === 0) throw new TraceError(`${path}: holds no request`);
  const start = requests.reduce((least, { seconds }) => Math.min(least, seconds), Number.POSITIVE_INFINITY);
  const ordered = requests
    .map((request) => ({ ...request, seconds: request.seconds - start }))
    .sort((a, b) => a.seconds - b.seconds);
  return { requests: ordered, blockTokens: MOONCAKE_BLOCK };
}

function mooncakeRequest(line: string, where: string): TraceRequest {
  const parsed = mooncakeLine.safeParse(parseJson(line));
  if (!parsed.success) {
    throw new TraceError(
      `${where}: expected {"timestamp": ms, "input_length": n, "output_length": n, "hash_ids": [one for each ` +
        `${MOONCAKE_BLOCK} tokens]} or a file that begins with "${AZURE_HEADER}"`,
    );
  }
  const { timestamp, input_length, output_length, hash_ids } = parsed.data;
  return { seconds: timestamp / 1000, promptTokens: input_length, outputTokens: output_length, blocks: hash_ids };
}

function azureRequest(line: string, where: string): TraceRequest {
  const parsed = azureLine.safeParse(line.split(','));
  if (!parsed.success) throw new TraceError(`${where}: expected a time and two numbers of tokens, found "${line}"`);
  const [ms, promptTokens, outputTokens] = parsed.data;
  return { seconds: ms / 1000, promptTokens, outputTokens, blocks: [] };
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

export interface TraceScale {
  /** Requests from the beginning that are replayed. */
  readonly requests: number;
  /** How many times faster than recorded. */
  readonly speed: number;
  /** What prompts and answers are multiplied by. */
  readonly length: number;
}

/** Prompts keep what they share: their blocks shrink or grow with them. Nothing gets shorter than a token. */
export function scaleTrace({ requests, blockTokens }: Trace, scale: TraceScale): Trace {
  const scaled = (count: number) => Math.max(1, Math.round(count * scale.length));
  const block = scaled(blockTokens);
  return {
    blockTokens: block,
    requests: requests.slice(0, scale.requests).map(({ seconds, promptTokens, outputTokens, blocks }) => ({
      seconds: seconds / scale.speed,
      promptTokens: blocks.length > 0 ? Math.min(scaled(promptTokens), blocks.length * block) : scaled(promptTokens),
      outputTokens: scaled(outputTokens),
      blocks,
    })),
  };
}

/** Share of prompt tokens that a cache would have found that forgets nothing and knows a prompt when it arrives. */
export function idealHits({ requests, blockTokens }: Trace): number {
  const seen = new Set<number>();
  let [hits, all] = [0, 0];
  for (const { promptTokens, blocks } of requests) {
    const unseen = blocks.findIndex((id) => !seen.has(id));
    const known = unseen === -1 ? blocks.length : unseen;
    hits += Math.min(known * blockTokens, promptTokens);
    all += promptTokens;
    for (const id of blocks) seen.add(id);
  }
  return all === 0 ? 0 : hits / all;
}

/** Token ids that nearly every vocabulary has and gives no special meaning to. */
const FIRST_ID = 32;
const IDS = 224;

/** The prompt of request number `index`: the same tokens for the same block id, others for another. */
export function tracePrompt({ requests, blockTokens }: Trace, index: number): number[] {
  const { promptTokens, blocks } = requests[index]!;
  return Array.from({ length: promptTokens }, (_, i) => {
    const block = blocks.length > 0 ? 2 * blocks[Math.floor(i / blockTokens)]! : 2 * index + 1;
    const within = blocks.length > 0 ? i % blockTokens : i;
    return FIRST_ID + (mixed(mixed(block) + within) % IDS);
  });
}

/** A 32-bit number that depends on every bit of another (the finalizer of MurmurHash3). */
function mixed(value: number): number {
  let bits = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return (bits ^ (bits >>> 16)) >>> 0;
}
