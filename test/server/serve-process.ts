/** The real `farthing serve` in a process of its own. */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import type { Readable } from 'node:stream';
import { afterAll } from 'vitest';

export interface Served {
  readonly url: string;
  readonly process: ChildProcessByStdio<null, Readable, Readable>;
  /** Settles with the exit code when the process has ended. */
  readonly exit: Promise<number | null>;
  /** What it has written to standard error. */
  said(): string;
}

const running: Served[] = [];
afterAll(async () => {
  for (const { process, exit } of running) {
    process.kill('SIGKILL');
    await exit;
  }
});

/** Starts the server on a free port; it is stopped after the file's tests if it still runs. */
export async function serve(...args: string[]): Promise<Served> {
  const child = spawn(
    process.execPath,
    ['--import', 'tsx', 'src/cli/main.ts', 'serve', '--port', '0', '--json', ...args],
    {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, FARTHING_THREADS: '2' },
    },
  );
  const exit = new Promise<number | null>((resolve) => child.once('close', resolve));
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (piece: string) => {
    stderr += piece;
  });
  const line = await firstLine(child.stdout);
  if (line === '') {
    await exit;
    throw new Error(`farthing serve ended at once: ${stderr}`);
  }
  const { url } = JSON.parse(line) as { url: string };
  const served = { url, process: child, exit, said: () => stderr };
  running.push(served);
  return served;
}

/** The value of a metric, summed over its labels. */
export async function metric(url: string, name: string, label = ''): Promise<number> {
  const lines = (await (await fetch(`${url}/metrics`)).text()).split('\n');
  return lines
    .filter((line) => line.startsWith(`${name}{`) && line.includes(label))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
}

async function firstLine(stream: Readable): Promise<string> {
  let seen = '';
  for await (const piece of stream) {
    seen += piece;
    if (seen.includes('\n')) break;
  }
  return seen.split('\n')[0]!;
}
