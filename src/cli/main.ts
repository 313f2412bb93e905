#!/usr/bin/env node
/** The `farthing` command. Each command has its file, which loads what it needs only when it runs. */
import { Command } from 'commander';
import { ablateCommand } from './ablate.ts';
import { benchCommand } from './bench.ts';
import { convertCommand } from './convert.ts';
import { inspectCommand } from './inspect.ts';
import { logitsCommand } from './logits.ts';
import { makeCheckpointCommand } from './make-checkpoint.ts';
import { priceCommand } from './price.ts';
import { reportFailure } from './report-failure.ts';
import { runCommand } from './run.ts';
import { serveCommand } from './serve.ts';
import { trainCommand } from './train.ts';
import { version } from './version.ts';

const program = new Command('farthing')
  .description('Train, serve, route and price DeepSeek-style language models on your own machine.')
  .version(version, '-V, --version', 'print the version')
  .helpOption('-h, --help', 'print help')
  .enablePositionalOptions()
  .showHelpAfterError('(add --help for the options)')
  .addCommand(runCommand())
  .addCommand(serveCommand())
  .addCommand(inspectCommand())
  .addCommand(logitsCommand())
  .addCommand(trainCommand())
  .addCommand(ablateCommand())
  .addCommand(makeCheckpointCommand())
  .addCommand(convertCommand())
  .addCommand(benchCommand())
  .addCommand(priceCommand());

try {
  await program.parseAsync();
} catch (error) {
  reportFailure(error);
}
