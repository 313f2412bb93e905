/** The real `farthing serve` in a process of its own. */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import type { Readable } from 'node:stream';

export interface Served {
  readonly url: string;
  readonly process: ChildProcessByStdio<null, Readable, Readable>;
  /** Settles with the exit code when the process has ended. */
  readonly exit: Promise<number | null>;
  /** What it has written to standard error. */
  said(): string;
}

/** Starts the server on a free port; it does not outlive this process. @throws Error with what it said when it ends at once */
export async function spawnServe(...args: string[]): Promise<Served> {
  const child = spawn(
    process.execPath,
    ['--import', 'tsx', 'src/cli/main.ts', 'serve', '--port', '0', '--json', ...args],
    {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, FARTHING_THREADS: '2' },
    },
  );
  const kill = () => child.kill('SIGKILL');
  process.once('exit', kill);
  const exit = new Promise<number | null>((resolve) => child.once('close', resolve));
  void exit.then(() => process.off('exit', kill));
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
  return { url, process: child, exit, said: () => stderr };
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
