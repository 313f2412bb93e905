/** `farthing price validate`: published figures beside the ones computed here; docs/economics-validation.md is its output. */
import { Command } from 'commander';
import { examples } from './arguments.ts';

export function priceValidateCommand(): Command {
  return new Command('validate')
    .description('Print published figures beside the ones computed here, as Markdown.')
    .option('--json', 'print as JSON')
    .addHelpText('after', examples('farthing price validate > docs/economics-validation.md'))
    .action(run);
}

async function run({ json }: { json?: boolean }): Promise<void> {
  const { validation, validationMarkdown } = await import('../economics/validation.ts');
  const sections = validation();
  process.stdout.write(json ? `${JSON.stringify(sections)}\n` : validationMarkdown(sections));
}
