/** `farthing bench serve`: a server under load, as its clients see it. */
import { Command } from 'commander';
import type { LoadReport, Percentiles } from '../server/load-generator.ts';
import { examples, number, whole } from './arguments.ts';

interface Options {
  readonly url: string;
  readonly apiKey?: string;
  readonly model?: string;
  readonly requests: number;
  readonly clients: number;
  readonly rate?: number;
  readonly prompt: number;
  readonly shared: number;
  readonly decode: number;
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
    .option('--requests <n>', 'requests in all', whole(1, 1_000_000), 64)
    .option('--clients <n>', 'clients that ask again when answered', whole(1, 10_000), 16)
    .option('--rate <r>', 'instead: requests a second, at random moments', number(0.001, 100_000))
    .option('--prompt <n>', 'words of a prompt', whole(1, 1_000_000), 128)
    .option('--shared <n>', 'words at the beginning that all prompts share', whole(0, 1_000_000), 0)
    .option('--decode <n>', 'most tokens of an answer', whole(1, 1_000_000), 64)
    .option('--ttft-ms <ms>', 'target: first token within', number(0, 1e9), 1000)
    .option('--tpot-ms <ms>', 'target: each further token within', number(0, 1e9), 100)
    .option('--json', 'print as JSON')
    .addHelpText(
      'after',
      examples(
        'farthing bench serve --clients 32 --requests 128 --prompt 512 --decode 128',
        'farthing bench serve --url http://localhost:9000/v1 --rate 5 --shared 100 --json',
      ),
    )
    .action(run);
}

async function run(options: Options): Promise<void> {
  const { driveLoad } = await import('../server/load-generator.ts');
  const { url, requests, prompt, shared, decode, ttftMs, tpotMs, clients, rate } = options;
  const apiKey = options.apiKey ?? null;
  const report = await driveLoad({
    baseUrl: url,
    apiKey,
    model: options.model ?? (await firstModel(url, apiKey)),
    requests,
    promptWords: prompt,
    sharedWords: shared,
    maxTokens: decode,
    pace: rate === undefined ? { clients } : { perSecond: rate },
    target: { ttftMs, tpotMs },
  });
  console.log(options.json ? JSON.stringify(report) : describe(report));
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

function describe(report: LoadReport): string {
  const ms = ({ p50, p90, p99 }: Percentiles) => `${p50.toFixed(1)} / ${p90.toFixed(1)} / ${p99.toFixed(1)} ms`;
  const { answered, refused, failed } = report.requests;
  const { prompt, output } = report.tokensPerSecond;
  const lines: [string, string][] = [
    ['requests', `${answered} answered, ${refused} refused, ${failed} failed in ${report.seconds.toFixed(1)} s`],
    ['tokens/s', `${output.toFixed(0)} written, ${prompt.toFixed(0)} read`],
    ['goodput', `${report.goodput.toFixed(2)} answers/s within the target`],
    ['TTFT 50/90/99', ms(report.ttftMs)],
    ['TPOT 50/90/99', ms(report.tpotMs)],
    ['cache hits', `${(report.cacheHits * 100).toFixed(1)} % of prompt tokens`],
  ];
  return lines.map(([name, value]) => `${name.padEnd(17)}${value}`).join('\n');
}
