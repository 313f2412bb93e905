/** `farthing price`: what tokens take and cost, from architecture, machine and workload. Each subcommand has its file. */
import { Command } from 'commander';
import { examples } from './arguments.ts';
import { priceBookCommand } from './price-book.ts';
import { priceCountsCommand } from './price-counts.ts';

export function priceCommand(): Command {
  return new Command('price')
    .description('Work out what tokens take and cost, from architecture, machine and workload.')
    .enablePositionalOptions()
    .addCommand(priceCountsCommand())
    .addCommand(priceBookCommand())
    .addHelpText('after', examples('farthing price counts', 'farthing price counts deepseek-v3 --context 131072'));
}
