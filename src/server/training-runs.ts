/** The runs of a folder over HTTP, for the training page: `GET /v1/runs` streams them as server-sent events. */
import { Hono } from 'hono';
import { followRuns } from '../train/run-folders.ts';
import { ApiError } from './api-error.ts';
import { eventStream } from './event-stream.ts';

export interface WatchedRuns {
  readonly folder: string;
  /** Aborted when the server stops: streams have no end of their own. */
  readonly stopping: AbortSignal;
}

/** Query: `run=NAME` or `run=NAME:STEP`, once for each run wanted, with the last step that is known already. */
export function trainingRuns({ folder, stopping }: WatchedRuns, describe: (error: unknown) => ApiError): Hono {
  const app = new Hono();
  app.get('/', (c) => {
    const after = new Map((c.req.queries('run') ?? []).map(askedRun));
    return eventStream(followRuns(folder, after, AbortSignal.any([c.req.raw.signal, stopping])), describe);
  });
  return app;
}

function askedRun(text: string): [string, number] {
  const [, name, step = '0'] = /^(.+?)(?::(\d+))?$/s.exec(text) ?? [];
  if (name === undefined) throw new ApiError(400, 'run: expected NAME or NAME:STEP', { param: 'run' });
  return [name, Number(step)];
}
