/** What can go wrong between the page and the server, as plain data that the page can show and keep. */
import * as z from 'zod/mini';

export const failureSchema = z.discriminatedUnion('kind', [
  /** No answer at all: the server is not running, or the network is gone. */
  z.object({ kind: z.literal('unreachable') }),
  /** 401: the key is missing or wrong. */
  z.object({ kind: z.literal('unauthorized'), message: z.string() }),
  /** 429: too many requests; `retryAt` is in milliseconds since 1970. */
  z.object({ kind: z.literal('busy'), message: z.string(), retryAt: z.number() }),
  /** Other 4xx: the request will not pass as it is. */
  z.object({ kind: z.literal('refused'), message: z.string() }),
  /** 5xx, an answer that is not in the API's form, or a stream that ended before the answer did. */
  z.object({ kind: z.literal('broken'), message: z.string() }),
]);
export type Failure = z.infer<typeof failureSchema>;

export class ChatError extends Error {
  override name = 'ChatError';
  readonly failure: Failure;

  constructor(failure: Failure) {
    super('message' in failure ? failure.message : failure.kind);
    this.failure = failure;
  }
}

/** `fetch`, with every answer but a good one thrown as ChatError; an abort is thrown as it is. */
export async function request(path: string, apiKey: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if (apiKey !== '') headers.set('Authorization', `Bearer ${apiKey}`);
  let response: Response;
  try {
    response = await fetch(path, { ...init, headers });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new ChatError({ kind: 'unreachable' });
  }
  if (!response.ok) throw new ChatError(await failureOf(response));
  return response;
}

const errorBody = z.object({ error: z.object({ message: z.string() }) });

/** The message of a body in OpenAI's error form; undefined where it has another form. */
export function errorMessage(json: unknown): string | undefined {
  return errorBody.safeParse(json).data?.error.message;
}

async function failureOf(response: Response): Promise<Failure> {
  const { status } = response;
  const told = errorMessage(await response.json().catch(() => undefined));
  const message = told ?? `The server answered ${status} ${response.statusText}`.trimEnd();
  if (status === 401) return { kind: 'unauthorized', message };
  if (status === 429) return { kind: 'busy', message, retryAt: Date.now() + retryAfterMs(response) };
  return { kind: status < 500 ? 'refused' : 'broken', message };
}

/** Retry-After (RFC 9110, §10.2.3) is a number of seconds or a date; a second where there is neither. */
function retryAfterMs(response: Response): number {
  const value = response.headers.get('Retry-After') ?? '';
  if (/^\d+$/.test(value)) return Number(value) * 1000;
  const date = Date.parse(value);
  return Number.isNaN(date) ? 1000 : Math.max(0, date - Date.now());
}
