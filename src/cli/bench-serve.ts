/** `farthing bench serve`: a server under load, as its clients see it. */
import { Command } from 'commander';
import type { Load, LoadReport, Percentiles } from '../server/load-generator.ts';
import { examples, number, whole } from './arguments.ts';

interface Options {
  readonly url: string;
  readonly apiKey?: string;
  readonly model?: string;
  readonly requests?: number;
  readonly clients: number;
  readonly rate?: number;
  readonly prompt: number;
  readonly shared: number;
  readonly decode: number;
  readonly trace?: string;
  readonly speed: number;
  readonly length: number;
  readonly ttftMs: number;
  readonly tpotMs: number;
  readonly json?: boolean;
}

export function benchServeCommand(): Command {
  return new Command('serve')
    .description('Put an OpenAI-compatible server under load; print throughput and latencies.')
    .option('--url <url>', 'the server, with /v1', 'http://127.0.0.1:8000/v1')
    .option('--api-key <key>', 'key to send')
    .option('--model <name>', 'model to ask (default: the first it lists)')
    .option('--requests <n>', 'requests in all (default: 64, or the whole trace)', whole(1, 1_000_000))
    .option('--clients <n>', 'clients that ask again when answered', whole(1, 10_000), 16)
    .option('--rate <r>', 'instead: requests a second, at random moments', number(0.001, 100_000))
    .option('--prompt <n>', 'words of a prompt', whole(1, 1_000_000), 128)
    .option('--shared <n>', 'words at the beginning that all prompts share', whole(0, 1_000_000), 0)
    .option('--decode <n>', 'most tokens of an answer', whole(1, 1_000_000), 64)
    .option('--trace <file>', 'instead: replay the times, lengths and shared prompts of a Mooncake or Azure trace')
    .option('--speed <x>', 'times faster than the trace was recorded', number(0.001, 1_000_000), 1)
    .option('--length <x>', 'multiply its prompts and answers by this', number(0.0001, 100), 1)
    .option('--ttft-ms <ms>', 'target: first token within', number(0, 1e9), 1000)
    .option('--tpot-ms <ms>', 'target: each further token within', number(0, 1e9), 100)
    .option('--json', 'print as JSON')
    .addHelpText(
      'after',
      examples(
        'farthing bench serve --clients 32 --requests 128 --prompt 512 --decode 128',
        'farthing bench serve --url http://localhost:9000/v1 --rate 5 --shared 100 --json',
        'farthing bench serve --trace conversation_trace.jsonl --requests 1000 --speed 10 --length 0.125',
      ),
    )
    .action(run);
}

async function run(options: Options): Promise<void> {
  const { driveLoad } = await import('../server/load-generator.ts');
  const { url, ttftMs, tpotMs } = options;
  const apiKey = options.apiKey ?? null;
  const { idealHits, ...workload } = await workloadOf(options);
  const measured = await driveLoad({
    baseUrl: url,
    apiKey,
    model: options.model ?? (await firstModel(url, apiKey)),
    ...workload,
    target: { ttftMs, tpotMs },
  });
  const report = { ...measured, idealCacheHits: idealHits };
  console.log(options.json ? JSON.stringify(report) : describe(report));
}

type Workload = Pick<Load, 'requests' | 'ask' | 'pace'> & {
  /** What a cache that forgets nothing would find of a trace's prompts. */
  readonly idealHits: number | null;
};

async function workloadOf({ trace: file, requests, speed, length, ...options }: Options): Promise<Workload> {
  if (file !== undefined) {
    const { idealHits, readTrace, scaleTrace, tracePrompt } = await import('../server/traces.ts');
    const recorded = await readTrace(file);
    const trace = scaleTrace(recorded, { requests: requests ?? recorded.requests.length, speed, length });
    return {
      requests: trace.requests.length,
      ask: (index) => ({ prompt: tracePrompt(trace, index), maxTokens: trace.requests[index]!.outputTokens }),
      pace: { moments: trace.requests.map(({ seconds }) => seconds) },
      idealHits: idealHits(trace),
    };
  }
  const { wordPrompt } = await import('../server/load-generator.ts');
  const { prompt, shared, decode, rate, clients } = options;
  return {
    requests: requests ?? 64,
    ask: (index) => ({ prompt: wordPrompt({ words: prompt, shared }, index), maxTokens: decode }),
    pace: rate === undefined ? { clients } : { perSecond: rate },
    idealHits: null,
  };
}

async function firstModel(url: string, apiKey: string | null): Promise<string> {
  const headers: HeadersInit = apiKey === null ? {} : { Authorization: `Bearer ${apiKey}` };
  const response = await fetch(`${url}/models`, { headers }).catch(() => null);
  if (!response?.ok)
    throw new Error(`${url}/models: ${response ? `answered ${response.status}` : 'no server answers'}`);
  const { data } = (await response.json()) as { data?: { id?: string }[] };
  const name = data?.[0]?.id;
  if (name === undefined) throw new Error(`${url}/models lists no model`);
  return name;
}

function describe(report: LoadReport & { readonly idealCacheHits: number | null }): string {
  const ms = ({ p50, p90, p99 }: Percentiles) => `${p50.toFixed(1)} / ${p90.toFixed(1)} / ${p99.toFixed(1)} ms`;
  const { answered, refused, failed } = report.requests;
  const { prompt, output } = report.tokensPerSecond;
  const percent = (share: number) => `${(share * 100).toFixed(1)} %`;
  const ideal = report.idealCacheHits === null ? '' : `; ${percent(report.idealCacheHits)} with an endless cache`;
  const lines: [string, string][] = [
    ['requests', `${answered} answered, ${refused} refused, ${failed} failed in ${report.seconds.toFixed(1)} s`],
    ['tokens/s', `${output.toFixed(0)} written, ${prompt.toFixed(0)} read`],
    ['goodput', `${report.goodput.toFixed(2)} answers/s within the target`],
    ['TTFT 50/90/99', ms(report.ttftMs)],
    ['TPOT 50/90/99', ms(report.tpotMs)],
    ['cache hits', `${percent(report.cacheHits)} of prompt tokens (${report.cachedTokens} tokens saved)${ideal}`],
  ];
  return lines.map(([name, value]) => `${name.padEnd(17)}${value}`).join('\n');
}
