/** Reads the JSON body of a request: bounded in size, strict in form, checked by a schema. */
import type { Context } from 'hono';
import type { z } from 'zod';
import { ApiError, invalidBody } from './api-error.ts';

/** Room for the longest contexts there are, written out as text. */
const MOST_BYTES = 16 * 2 ** 20;

/** @throws ApiError 415, 413, 400 */
export async function readBody<Schema extends z.ZodType>(c: Context, schema: Schema): Promise<z.infer<Schema>> {
  const type = c.req.header('Content-Type') ?? '';
  if (!/^application\/json\s*(;|$)/i.test(type)) {
    throw new ApiError(415, `Content-Type is "${type}", expected application/json`);
  }
  if (Number(c.req.header('Content-Length') ?? 0) > MOST_BYTES) throw tooLarge();
  const parsed = schema.safeParse(parseJson(await readBytes(c.req.raw.body)));
  if (!parsed.success) throw invalidBody(parsed.error);
  return parsed.data;
}

/** Stops as soon as the body is known to be too large, whatever length was stated; the rest can still be read. */
async function readBytes(body: ReadableStream<Uint8Array> | null): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  let length = 0;
  try {
    for await (const piece of body?.values({ preventCancel: true }) ?? []) {
      pieces.push(piece);
      length += piece.length;
      if (length > MOST_BYTES) break;
    }
  } catch {
    throw new ApiError(400, 'the connection ended before the body did');
  }
  if (length > MOST_BYTES) throw tooLarge();
  return Buffer.concat(pieces);
}

function tooLarge(): ApiError {
  return new ApiError(413, `the body is larger than ${MOST_BYTES} bytes`, { code: 'request_too_large' });
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    throw new ApiError(400, `the body is not JSON in UTF-8: ${(error as Error).message}`);
  }
}
