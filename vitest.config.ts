import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // Test files run beside each other: threads that must share a core would wait for one another at every step.
    env: { FARTHING_THREADS: process.env.FARTHING_THREADS ?? '2' },
  },
});
