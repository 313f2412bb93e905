/** Lets a request pass that carries the server's key; takes the same time whatever the wrong key is. */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { MiddlewareHandler } from 'hono';
import { ApiError } from './api-error.ts';

export function requireApiKey(key: string): MiddlewareHandler {
  // Digests are of equal length, whatever was sent.
  const digest = (text: string) => createHash('sha256').update(text).digest();
  const wanted = digest(key);
  return async (c, next) => {
    const sent = /^Bearer +(.*)$/i.exec(c.req.header('Authorization') ?? '')?.[1];
    if (sent === undefined || !timingSafeEqual(digest(sent), wanted)) {
      const message =
        sent === undefined ? 'no API key: send it as "Authorization: Bearer KEY"' : 'the API key is wrong';
      throw new ApiError(401, message, {
        type: 'authentication_error',
        code: 'invalid_api_key',
        headers: { 'WWW-Authenticate': 'Bearer' },
      });
    }
    await next();
  };
}
