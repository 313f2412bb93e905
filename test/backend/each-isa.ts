/** Runs a test file's checks again under every other instruction set of this machine (FARTHING_ISA is read once). */
import { execFile } from 'node:child_process';
import { createRequire } from 'node:module';
import path from 'node:path';
import { promisify } from 'node:util';
import { test } from 'vitest';
import { instructionSet } from '../../src/backend/native.ts';

const order = ['amx', 'avx512', 'avx2', 'plain'] as const;

/** To be called once in a test file, with its `import.meta.filename`. */
export function alsoUnderOtherInstructionSets(file: string): void {
  if (process.env.FARTHING_ISA) return; // this is such a child
  const vitest = path.join(path.dirname(createRequire(import.meta.url).resolve('vitest/package.json')), 'vitest.mjs');
  for (const set of order.slice(order.indexOf(instructionSet) + 1)) {
    test(`the same under ${set}`, async () => {
      const env = { ...process.env, FARTHING_ISA: set };
      await promisify(execFile)(process.execPath, [vitest, 'run', '--reporter=dot', file], { env });
    }, 300_000);
  }
}
