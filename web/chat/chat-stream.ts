/** POST /v1/chat/completions as a stream of pieces: OpenAI's protocol, with DeepSeek's `reasoning_content`. */
import * as z from 'zod/mini';
import { ChatError, errorMessage, request } from './failure.ts';
import { serverEvents } from './server-events.ts';

export interface ChatMessage {
  readonly role: 'system' | 'user' | 'assistant';
  readonly content: string;
}

/** A field that is left out takes the server's default for the model. */
export interface ChatRequest {
  readonly model: string;
  readonly messages: readonly ChatMessage[];
  readonly temperature?: number;
  readonly top_p?: number;
  readonly top_k?: number;
  readonly max_tokens?: number;
  readonly seed?: number;
}

export const usageSchema = z.object({
  prompt_tokens: z.number(),
  completion_tokens: z.number(),
  prompt_tokens_details: z.nullish(z.object({ cached_tokens: z.nullish(z.number()) })),
});
type Usage = z.infer<typeof usageSchema>;

/** What one event adds to the answer. */
export interface Piece {
  readonly reasoning: string;
  readonly content: string;
  /** Why the answer ended ("stop", "length", …), on its last piece. */
  readonly finish: string | null;
  readonly usage: Usage | null;
}

const chunkSchema = z.object({
  choices: z.array(
    z.object({
      delta: z.object({ content: z.nullish(z.string()), reasoning_content: z.nullish(z.string()) }),
      finish_reason: z.nullish(z.string()),
    }),
  ),
  usage: z.nullish(usageSchema),
});

/**
 * @param baseUrl '' for the server that the page came from
 * @throws ChatError; what `signal` was aborted with
 */
export async function* streamChat(
  body: ChatRequest,
  { apiKey, signal, baseUrl = '' }: { apiKey: string; signal: AbortSignal; baseUrl?: string },
): AsyncGenerator<Piece> {
  const response = await request(`${baseUrl}/v1/chat/completions`, apiKey, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  const type = response.headers.get('Content-Type') ?? '';
  if (!response.body || !type.startsWith('text/event-stream')) {
    throw broken(`The server answered with ${type || 'nothing'}, where an event stream was expected`);
  }
  let finished = false;
  try {
    for await (const data of serverEvents(response.body)) {
      if (data === '[DONE]') {
        finished = true;
        continue;
      }
      const piece = parsePiece(data);
      if (piece.finish !== null) finished = true;
      yield piece;
    }
  } catch (error) {
    // A reset connection is an error of the reader, not of fetch.
    if (signal.aborted || error instanceof ChatError) throw error;
  }
  if (!finished) throw broken('The connection ended before the answer did');
}

function parsePiece(data: string): Piece {
  const json = parseJson(data);
  const told = errorMessage(json);
  if (told !== undefined) throw broken(told);
  const chunk = chunkSchema.safeParse(json).data;
  if (!chunk) throw broken(`The server sent an event that is no chunk of an answer: ${data.slice(0, 80)}`);
  const choice = chunk.choices[0];
  return {
    reasoning: choice?.delta.reasoning_content ?? '',
    content: choice?.delta.content ?? '',
    finish: choice?.finish_reason ?? null,
    usage: chunk.usage ?? null,
  };
}

function parseJson(data: string): unknown {
  try {
    return JSON.parse(data);
  } catch {
    throw broken(`The server sent an event that is not JSON: ${data.slice(0, 80)}`);
  }
}

function broken(message: string): ChatError {
  return new ChatError({ kind: 'broken', message });
}
