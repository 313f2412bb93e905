/** `farthing price compare`: the same workload on several models and machines, side by side. */
import { Command } from 'commander';
import { examples } from './arguments.ts';
import { readMachine } from './price-machine.ts';
import { readArchitecture } from './price-model.ts';
import { planOf, type ServeOptions, summary, withServeOptions, workloadOf } from './price-serve.ts';
import { asCsv, asText, type Row } from './table.ts';

type Options = ServeOptions & { readonly on?: string };

export function priceCompareCommand(): Command {
  return withServeOptions(
    new Command('compare')
      .description('Predict one workload on several models and machines, side by side.')
      .argument('<models>', 'names or files, with commas between'),
  )
    .option('--on <machines>', 'machines, with commas between; --machine alone unless given')
    .addHelpText(
      'after',
      examples(
        'farthing price compare deepseek-v3,llama-3.1-405b,qwen2.5-72b',
        'farthing price compare deepseek-v3 --on h800-sxm,h200-sxm,mi300x --csv',
      ),
    )
    .action(run);
}

async function run(models: string, options: Options): Promise<void> {
  const { serve } = await import('../economics/serving.ts');
  const workload = await workloadOf(options);
  const rows: Row[] = [];
  const refused: string[] = [];
  for (const name of models.split(',')) {
    const model = await readArchitecture(name.trim());
    for (const id of (options.on ?? options.machine).split(',')) {
      const machine = await readMachine(id.trim(), options.usdPerHour);
      try {
        const plan = await planOf(model, machine, workload, options);
        rows.push(summary(model.id, machine, serve(model.architecture, plan, workload)));
      } catch (error) {
        // Beside others a pair that cannot serve the workload is an answer.
        refused.push(`${model.id} on ${machine.id}: ${(error as Error).message}`);
      }
    }
  }
  if (options.json) console.log(JSON.stringify({ workload, rows, refused }));
  else if (options.csv) console.log(asCsv(rows));
  else console.log([...(rows.length > 0 ? [asText(rows)] : []), ...refused].join('\n'));
  if (rows.length === 0) process.exitCode = 1;
}
