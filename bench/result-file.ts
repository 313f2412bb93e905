/** Files in bench/results: who measured what, where and when. Replaced whole, so that none is ever half-written. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { instructionSet, threads } from '../src/backend/native.ts';
import { replaceFile } from '../src/numerics/replace-file.ts';

export interface Origin {
  readonly machine: {
    readonly processor: string;
    readonly cores: number;
    readonly memoryBytes: number;
    readonly threads: number;
    readonly instructionSet: string;
  };
  /** With `-changed` where the checkout differs from it. */
  readonly commit: string;
}

export function origin(usedThreads: number = threads()): Origin {
  const git = (...args: string[]) => execFileSync('git', args, { encoding: 'utf8' }).trim();
  const changes = git('status', '--porcelain', '--untracked-files=no', '--', '.', ':!bench/results', ':!*.md');
  return {
    machine: {
      processor: os.cpus()[0]?.model.trim() ?? 'unknown',
      cores: os.availableParallelism(),
      memoryBytes: os.totalmem(),
      threads: usedThreads,
      instructionSet,
    },
    commit: `${git('rev-parse', '--short', 'HEAD')}${changes === '' ? '' : '-changed'}`,
  };
}

const fileOf = (name: string) => path.join('bench/results', `${name}.json`);

export async function writeResult(name: string, from: Origin, result: object): Promise<void> {
  const whole = { ...from, date: new Date().toISOString(), ...result };
  mkdirSync('bench/results', { recursive: true });
  await replaceFile(fileOf(name), (file) => file.writeFile(`${JSON.stringify(whole, null, 2)}\n`));
}

/** Rows measured earlier on the same machine at the same commit; none when the file is from another. */
export function earlierRows<Row>(name: string, from: Origin): Row[] {
  if (!existsSync(fileOf(name))) return [];
  const { machine, commit, rows } = JSON.parse(readFileSync(fileOf(name), 'utf8')) as Origin & { rows?: Row[] };
  const same = JSON.stringify({ machine, commit }) === JSON.stringify(from);
  if (!same) console.log(`${fileOf(name)} is from another machine or commit (${commit}): begun anew`);
  return same ? (rows ?? []) : [];
}
