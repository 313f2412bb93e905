/** Servers for tests: each is stopped after the file's tests if it still runs. */
import { afterAll } from 'vitest';
import { type Served, spawnServe } from './spawn-serve.ts';

const running: Served[] = [];
afterAll(async () => {
  for (const { process, exit } of running) {
    process.kill('SIGKILL');
    await exit;
  }
});

/** Starts the server on a free port. */
export async function serve(...args: string[]): Promise<Served> {
  const served = await spawnServe(...args);
  running.push(served);
  return served;
}
