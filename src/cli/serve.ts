/** `farthing serve`: the OpenAI- and DeepSeek-compatible HTTP server with its chat page. */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Command, Option } from 'commander';
import type { CacheDType, Compute } from '../backend/graph.ts';
import {
  cacheDtypeOption,
  computeOption,
  examples,
  modelOption,
  packedOption,
  showPacking,
  size,
  threadsOption,
  whole,
} from './arguments.ts';

interface Options {
  readonly model: string;
  readonly host: string;
  readonly port: number;
  readonly apiKey?: string;
  readonly compute: Compute;
  readonly cacheDtype?: CacheDType;
  readonly packed?: string;
  readonly threads?: number;
  readonly sequences: number;
  readonly waiting: number;
  readonly cache?: number;
  readonly diskCache?: string;
  readonly diskCacheSize: number;
  readonly drafts: number;
  readonly runs: string;
  readonly logLevel: string;
  readonly json?: boolean;
}

/** How long answers under way may take to finish after the first signal to stop. */
const GRACE_MS = 30_000;

export function serveCommand(): Command {
  return new Command('serve')
    .description('Serve a model over HTTP: OpenAI-compatible API, and pages to chat with it and to watch training.')
    .addOption(modelOption())
    .option('--host <host>', 'address to listen on', '127.0.0.1')
    .option('--port <port>', 'port to listen on; 0 takes any free one', whole(0, 65535), 8000)
    .addOption(new Option('--api-key <key>', 'key that clients must send').env('FARTHING_API_KEY'))
    .addOption(computeOption())
    .addOption(cacheDtypeOption())
    .addOption(packedOption())
    .addOption(threadsOption())
    .option('--sequences <n>', 'most requests computed together', whole(1, 256), 32)
    .option('--waiting <n>', 'most requests that may wait', whole(0, 100_000), 256)
    .option(
      '--cache <size>',
      'memory for the cache, such as 2GiB (default: what the sequences need, at most a quarter of all)',
      size,
    )
    .addOption(
      new Option(
        '--disk-cache <dir>',
        'folder that keeps the beginnings of prompts beyond memory and restarts (default: none is kept)',
      ).argParser((text) => path.resolve(text)),
    )
    .addOption(
      new Option('--disk-cache-size <size>', 'most that the folder may take')
        .argParser(size)
        .default(16 * 2 ** 30, '16GiB'),
    )
    .option('--drafts <n>', 'most tokens drafted ahead by an MTP module, where it pays; 0 for none', whole(0, 8), 3)
    .option('--runs <dir>', 'folder of training runs to watch and compare at /train', 'runs')
    .addOption(
      new Option('--log-level <level>', 'what to log, as JSON lines on standard error')
        .choices(['debug', 'info', 'warn', 'error', 'silent'])
        .default('warn'),
    )
    .option('--json', 'print the address as JSON')
    .addHelpText(
      'after',
      examples(
        'farthing serve',
        'farthing serve --model ./DeepSeek-V2-Lite-Chat --port 9000 --api-key secret',
        'farthing serve --runs runs    # and watch them train at http://127.0.0.1:8000/train',
        'farthing serve --model ./DeepSeek-V2-Lite-Chat --cache 8GiB --disk-cache /var/cache/farthing',
        'farthing serve --model ./DeepSeek-V2-Lite-Chat --cache-dtype fp8   # nearly twice the contexts in the same memory',
        `curl localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \\\n` +
          `      -d '{"model": "farthing-tiny", "messages": [{"role": "user", "content": "Hello"}]}'`,
      ),
    )
    .action(run);
}

async function run(options: Options): Promise<void> {
  const [{ loadModel }, { createApp }, { listen }, { createMetrics }, { pino }] = await Promise.all([
    import('../engine/language-model.ts'),
    import('../server/app.ts'),
    import('../server/listen.ts'),
    import('../server/metrics.ts'),
    import('pino'),
  ]);
  const { threads, compute, cacheDtype, sequences, waiting, drafts } = options;
  if (threads !== undefined) (await import('../backend/native.ts')).setThreads(threads);
  const log = pino({ level: options.logLevel }, pino.destination({ dest: 2, sync: true }));
  const model = await loadModel(options.model, {
    compute,
    cacheDtype,
    sequences,
    waiting,
    drafts,
    packedFile: options.packed,
    onPacking: showPacking(),
    ...(options.cache !== undefined && { cacheBytes: options.cache }),
    ...(options.diskCache !== undefined && {
      diskCache: {
        folder: options.diskCache,
        bytes: options.diskCacheSize,
        warn: (problem: string) => log.warn({ folder: options.diskCache }, problem),
      },
    }),
  });
  const pagesFolder = fileURLToPath(new URL('../../dist/web', import.meta.url));
  const stopping = new AbortController();
  const app = createApp({
    model,
    apiKey: options.apiKey ?? null,
    log,
    metrics: createMetrics(model.engine, model.name),
    runs: { folder: options.runs, stopping: stopping.signal },
    pagesFolder: existsSync(pagesFolder) ? pagesFolder : null,
  });
  if (options.apiKey === undefined && !['127.0.0.1', '::1', 'localhost'].includes(options.host)) {
    log.warn({ host: options.host }, 'anyone who can reach this address can use the model: consider --api-key');
  }
  const server = await listen(app, options.host, options.port);
  console.log(
    options.json
      ? JSON.stringify({ url: server.url, model: model.name })
      : `${model.name} is being served.\n  Chat:  ${server.url}/\n  API:   ${server.url}/v1`,
  );
  await signalToStop();
  stopping.abort();
  log.info('stopping: answers under way may finish; a second signal ends them');
  const again = signalToStop().then(() => model.close());
  await Promise.race([server.close(GRACE_MS), again]);
  await model.close();
  process.exit(0);
}

function signalToStop(): Promise<void> {
  return new Promise((resolve) => {
    const stop = () => {
      process.off('SIGTERM', stop);
      process.off('SIGINT', stop);
      resolve();
    };
    process.on('SIGTERM', stop);
    process.on('SIGINT', stop);
  });
}
