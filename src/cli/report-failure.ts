/** How a failed command ends: one message on standard error and exit code 1; no stack trace unless asked for. */

export function reportFailure(error: unknown): void {
  const message = error instanceof Error ? error.message : String(error);
  process.stderr.write(`farthing: ${message}\n`);
  if (process.env.FARTHING_DEBUG && error instanceof Error) process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
}
