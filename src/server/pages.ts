/** The built browser pages, as files. */
import { serveStatic } from '@hono/node-server/serve-static';
import type { MiddlewareHandler } from 'hono';

/** Built assets carry a hash of their content in their name, so a browser may keep them. */
export function pages(folder: string): MiddlewareHandler {
  const files = serveStatic({ root: folder });
  return async (c, next) => {
    const response = await files(c, next);
    // Where there is no such file, what comes back is what came after it.
    if (!(response instanceof Response)) return;
    const kept = c.req.path.startsWith('/assets/');
    response.headers.set('Cache-Control', kept ? 'public, max-age=31536000, immutable' : 'no-cache');
    response.headers.set('X-Content-Type-Options', 'nosniff');
    return response;
  };
}
