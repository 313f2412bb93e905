/** The HTTP interface: which path does what, and what every request goes through before it. */
import { type Context, Hono } from 'hono';
import type { Logger } from 'pino';
import type { LanguageModel } from '../engine/language-model.ts';
import { ApiError, toApiError } from './api-error.ts';
import { requireApiKey } from './api-key.ts';
import { type ChatCompletion, startChat } from './chat-completions.ts';
import { startCompletion, type TextCompletion } from './completions.ts';
import { engineEvents } from './engine-events.ts';
import { eventStream } from './event-stream.ts';
import { readBody } from './json-body.ts';
import type { Metrics } from './metrics.ts';
import { pages } from './pages.ts';
import { refusal } from './refusal.ts';
import { chatBody, completionBody } from './request-bodies.ts';
import { timingsOf } from './timings.ts';
import { trainingRuns, type WatchedRuns } from './training-runs.ts';

export interface AppOptions {
  readonly model: LanguageModel;
  /** Clients must send it as `Authorization: Bearer …`; null lets everyone in. */
  readonly apiKey: string | null;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Training runs to look at. */
  readonly runs: WatchedRuns;
  /** Folder of the built browser pages; null serves none. */
  readonly pagesFolder: string | null;
}

export function createApp({ model, apiKey, log, metrics, runs, pagesFolder }: AppOptions): Hono {
  const app = new Hono();
  const created = Math.floor(Date.now() / 1000);
  const card = {
    id: model.name,
    object: 'model',
    created,
    owned_by: 'farthing',
    max_model_len: model.engine.mostTokens,
  };

  const describe = (error: unknown, path: string) => {
    const told = toApiError(error, path === '/v1/chat/completions' ? 'messages' : 'prompt');
    if (told.status >= 500) log.error({ err: error, path }, 'request failed');
    return told;
  };

  app.onError((error, c) => refusal(c, describe(error, c.req.path)));
  app.use(async (c, next) => {
    const start = performance.now();
    await next();
    const { method, path } = c.req;
    log.info({ method, path, status: c.res.status, ms: Math.round(performance.now() - start) }, 'request');
  });
  if (apiKey !== null) app.use('/v1/*', requireApiKey(apiKey));

  app.get('/health', (c) => c.json({ status: 'ok', model: model.name }));
  app.get('/metrics', async (c) => c.text(await metrics.text(), 200, { 'Content-Type': metrics.contentType }));
  app.get('/v1/models', (c) => c.json({ object: 'list', data: [card] }));
  app.get('/v1/models/:model', (c) => {
    checkModel(c.req.param('model'), model);
    return c.json(card);
  });
  app.post('/v1/chat/completions', async (c) => {
    const body = await readBody(c, chatBody);
    checkModel(body.model, model);
    return answer(c, body.stream === true, startChat(model, body, c.req.raw.signal));
  });
  app.post('/v1/completions', async (c) => {
    const body = await readBody(c, completionBody);
    checkModel(body.model, model);
    return answer(c, body.stream === true, startCompletion(model, body, c.req.raw.signal));
  });
  app.route(
    '/v1/runs',
    trainingRuns(runs, (error) => describe(error, '/v1/runs')),
  );
  app.get('/v1/engine', (c) => {
    const gone = AbortSignal.any([c.req.raw.signal, runs.stopping]);
    return eventStream(engineEvents(model.engine, model.name, gone), (error) => describe(error, c.req.path));
  });
  for (const [path, allow] of [
    ['/health', 'GET'],
    ['/metrics', 'GET'],
    ['/v1/models', 'GET'],
    ['/v1/models/:model', 'GET'],
    ['/v1/runs', 'GET'],
    ['/v1/engine', 'GET'],
    ['/v1/chat/completions', 'POST'],
    ['/v1/completions', 'POST'],
  ] as const) {
    app.all(path, (c) => {
      throw new ApiError(405, `${c.req.method} ${c.req.path}: expected ${allow}`, { headers: { Allow: allow } });
    });
  }
  if (pagesFolder !== null) app.get('*', pages(pagesFolder));
  app.notFound((c) => {
    const { method, path } = c.req;
    return refusal(c, new ApiError(404, `${method} ${path}: there is nothing here`, { code: 'not_found' }));
  });

  async function answer(c: Context, stream: boolean, started: ChatCompletion | TextCompletion) {
    const { generation } = started;
    metrics.follow(generation);
    void generation.ended.then(() => {
      const { promptTokens, cachedTokens, completionTokens } = generation.usage;
      log.info({ promptTokens, cachedTokens, completionTokens, ...timingsOf(generation) }, 'answer');
    });
    if (!stream) return c.json(await started.whole());
    return eventStream(started.chunks(), (error) => describe(error, c.req.path));
  }
  return app;
}

function checkModel(asked: string, model: LanguageModel): void {
  if (asked !== model.name) {
    throw new ApiError(404, `the model "${asked}" does not exist; this server has "${model.name}"`, {
      param: 'model',
      code: 'model_not_found',
    });
  }
}
