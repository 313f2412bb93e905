/** `farthing train`: trains a model as a TOML file says. */
import path from 'node:path';
import { Command } from 'commander';
import type { AnnouncedRun, RunReport } from '../train/configured-run.ts';
import { examples, threadsOption } from './arguments.ts';
import { bytes, count, duration } from './quantities.ts';

interface Options {
  readonly config: string;
  readonly resume?: boolean;
  readonly threads?: number;
  readonly json?: boolean;
}

export function trainCommand(): Command {
  return new Command('train')
    .description('Train a model, or go on with a run that was stopped.')
    .requiredOption('--config <file>', 'TOML file: [model], [data], [schedule], [run] and more, see docs/training.md')
    .option('--resume', 'go on from the newest checkpoint')
    .addOption(threadsOption())
    .option('--json', 'print every step as a line of JSON')
    .addHelpText(
      'after',
      examples('farthing train --config examples/tales.toml', 'farthing train --config run.toml --resume'),
    )
    .action(run);
}

async function run({ config: file, resume, threads, json }: Options): Promise<void> {
  const { readTrainConfig } = await import('../train/train-config.ts');
  const config = await readTrainConfig(file);
  if (threads !== undefined) (await import('../backend/native.ts')).setThreads(threads);
  const { runConfig } = await import('../train/configured-run.ts');
  const { default: logUpdate } = await import('log-update');
  const { steps } = config.schedule;
  const onPlan = (plan: AnnouncedRun) => {
    if (json) return;
    console.log(describePlan(plan));
    console.log(
      `To watch: farthing serve --runs ${path.relative('.', path.dirname(config.run.folder)) || '.'}, page /train`,
    );
  };
  const recent: number[] = [];
  const show = (report: RunReport) => {
    recent.push(report.seconds);
    if (recent.length > 50) recent.shift();
    const left = (steps - report.step) * (recent.reduce((a, b) => a + b, 0) / recent.length);
    const lines = [describe(report, steps, left), ...(report.samples ?? []).map(quote)].join('\n');
    if (!process.stdout.columns) console.log(lines);
    else if (report.bitsPerByte === undefined && !report.samples) logUpdate(lines);
    else logUpdate.persist(lines);
  };
  let [asked, stopped] = [false, false];
  const stop = () => {
    asked = true;
  };
  process.once('SIGINT', stop).once('SIGTERM', stop);
  for await (const report of runConfig(config, { resume: resume === true, onPlan })) {
    if (json) console.log(JSON.stringify(report));
    else show(report);
    stopped = asked && report.step < steps;
    if (stopped) break;
  }
  logUpdate.done();
  if (stopped) {
    process.exitCode = 130;
    if (!json) console.log('Stopped, and saved. --resume goes on.');
  } else if (!json) console.log(`${config.run.folder}: model/ holds the model, loss.svg its curve`);
}

function describePlan({
  steps,
  parameters,
  trainingTokens,
  tokensPerStep,
  validationBatches,
  memory,
}: AnnouncedRun): string {
  const perParameter = (total: number) => (total / parameters).toFixed(1);
  const epochs = (steps * tokensPerStep) / trainingTokens;
  return [
    `${count(parameters)} parameters`,
    `memory: weights ${bytes(memory.weights)} (${perParameter(memory.weights)} bytes a parameter), optimizer ${bytes(memory.optimizer)} (${perParameter(memory.optimizer)}), activations ${bytes(memory.activations)} (${bytes(memory.activations / memory.rows)} a token)`,
    `${count(trainingTokens)} tokens, read ${epochs.toFixed(1)} times in ${steps} steps of ${tokensPerStep}`,
    validationBatches > 0
      ? `${validationBatches} validation batch${validationBatches > 1 ? 'es' : ''}`
      : 'no validation: too little text is held out',
  ].join('; ');
}

const quote = ({ prompt, text }: { prompt: string; text: string }) =>
  `  ${JSON.stringify(prompt)} ${JSON.stringify(text)}`;

function describe(report: RunReport, steps: number, secondsLeft: number): string {
  const { step, loss, mtpLoss, learningRate, gradientNorm, imbalance, tokens, seconds, bitsPerByte } = report;
  return [
    `step ${step}/${steps}`,
    `loss ${loss.toFixed(3)}${mtpLoss === null ? '' : ` (mtp ${mtpLoss.toFixed(3)})`}`,
    ...(bitsPerByte === undefined ? [] : [`held out ${bitsPerByte.toFixed(4)} bits/byte`]),
    `lr ${learningRate.toExponential(1)}`,
    `norm ${gradientNorm.toFixed(2)}`,
    ...(imbalance === null ? [] : [`busiest expert ${imbalance.toFixed(2)}×`]),
    `${Math.round(tokens / seconds).toLocaleString('en')} tokens/s`,
    `${duration(secondsLeft)} left`,
  ].join('  ');
}
