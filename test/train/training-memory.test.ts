import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { expect, test } from 'vitest';
import type { MemoryOfRun } from './memory-run.ts';

const program = path.join(import.meta.dirname, 'memory-run.ts');

test.each([
  ['bf16', 'keep'],
  ['fp8', 'recompute'],
])(
  'a run in %s (%s) holds the memory that was announced, within a tenth',
  (...settings) => {
    const printed = execFileSync('node', ['--import', 'tsx', program, ...settings], { encoding: 'utf8' });
    const { announced, grown } = JSON.parse(printed) as MemoryOfRun;
    expect(Math.abs(grown / announced - 1), `${grown} bytes, announced ${announced}`).toBeLessThan(0.1);
  },
  120_000,
);
