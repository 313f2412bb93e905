/** `farthing price`: what tokens take and cost, from architecture, machine and workload. Each subcommand has its file. */
import { Command } from 'commander';
import { examples } from './arguments.ts';
import { priceBookCommand } from './price-book.ts';
import { priceCompareCommand } from './price-compare.ts';
import { priceCountsCommand } from './price-counts.ts';
import { priceExplainCommand } from './price-explain.ts';
import { priceServeCommand } from './price-serve.ts';
import { priceTrainCommand } from './price-train.ts';
import { priceValidateCommand } from './price-validate.ts';

export function priceCommand(): Command {
  return new Command('price')
    .description('Work out what tokens take and cost, from architecture, machine and workload.')
    .enablePositionalOptions()
    .addCommand(priceCountsCommand())
    .addCommand(priceBookCommand())
    .addCommand(priceServeCommand())
    .addCommand(priceCompareCommand())
    .addCommand(priceTrainCommand())
    .addCommand(priceExplainCommand())
    .addCommand(priceValidateCommand())
    .addHelpText(
      'after',
      examples(
        'farthing price counts',
        'farthing price serve deepseek-v3 --machine h800-sxm',
        'farthing price compare deepseek-v3,llama-3.1-405b --on h800-sxm,h200-sxm',
        'farthing price train deepseek-v3',
        'farthing price explain',
      ),
    );
}
