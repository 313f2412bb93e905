/** An ablation as a page: a table and a picture for each comparison, and what it cannot show. */
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { replaceFile } from '../numerics/replace-file.ts';
import { type AblationSettings, BATCH_TOKENS, SEQUENCE, type SeedResult, type VariantResult } from './ablation.ts';
import { balancePicture, cachePicture, isAboutBalance, isAboutCache, lossPicture } from './ablation-pictures.ts';

/** Where and how it was run. */
export interface AblationCircumstances {
  readonly command: string;
  readonly machine: string;
  readonly threads: number;
  readonly date: string;
}

/** Writes the page to `file`, its pictures to the folder beside it that has its name. */
export async function writeAblation(
  file: string,
  settings: AblationSettings,
  results: readonly VariantResult[],
  circumstances: AblationCircumstances,
): Promise<void> {
  const byName = new Map(results.map((result) => [result.variant, result]));
  const { dir, name } = path.parse(file);
  const pictures = path.join(dir, name);
  await mkdir(pictures, { recursive: true });
  const picture = async (title: string, text: string, svg: Promise<string>) => {
    const content = await svg;
    await replaceFile(path.join(pictures, `${title}.svg`), (handle) => handle.writeFile(content));
    return `![${text}](${name}/${title}.svg)`;
  };
  const sections: string[] = [];
  for (const comparison of settings.comparisons) {
    const { variants, question, note } = comparison;
    const drawn = [
      await picture(comparison.name, `${question}: held-out bits per byte`, lossPicture(variants, byName)),
    ];
    if (isAboutCache(comparison)) {
      drawn.push(await picture('cache', 'held-out bits per byte over cache bytes', cachePicture(variants, byName)));
    }
    if (isAboutBalance(comparison)) {
      drawn.push(await picture('balance', 'busiest expert over the steps', balancePicture(variants, byName)));
    }
    const ofVariants = variants.map((variant) => byName.get(variant)!);
    sections.push(
      `## ${question}\n\n${note}\n\n${table(ofVariants)}\n\n${verdicts(ofVariants)}\n\n${drawn.join('\n\n')}\n`,
    );
  }
  const page = `${opening(settings, circumstances)}\n${sections.join('\n')}\n${closing(settings)}`;
  await replaceFile(file, (handle) => handle.writeFile(page));
}

function opening(
  { hidden, steps, seeds }: AblationSettings,
  { command, machine, threads, date }: AblationCircumstances,
): string {
  return `# What each part is worth, at a small scale

Made by \`${command}\` on ${date}: every model below was trained ${seeds} time${seeds > 1 ? 's' : ''}, each with another seed, on the same
${(steps * BATCH_TOKENS).toLocaleString('en')} tokens of shipped tales (${steps} steps of ${BATCH_TOKENS.toLocaleString('en')} tokens, sequences of ${SEQUENCE}; one document in 50 held
out). Models have 4 layers, a hidden size of ${hidden} and a vocabulary of 1,024. Machine: ${machine}, ${threads} thread${threads > 1 ? 's' : ''}.

How to read the tables: *bits per byte* is the held-out loss, mean over the seeds, with least and greatest. *Against the
first* is the difference to the first row with the same seed, so with the same order of texts. *Active* parameters are those
that one token uses. *Weights* are at two bytes a parameter; *training* is FP32 masters, gradients and moments, plus what a
step holds. *A step* is of the fastest tenth of all steps. *Cache* is at two bytes a value. *Busiest expert* is its load over
the mean in the worst layer, over the held-out texts after the last step.
`;
}

function table(results: readonly VariantResult[]): string {
  const [first] = results;
  const rows = results.map((result) => {
    const { variant, parameters, activeParameters, cacheBytesPerToken, trainingBytes, seeds } = result;
    const imbalances = seeds.flatMap(({ imbalance }) => imbalance ?? []);
    return [
      variant,
      millions(parameters),
      millions(activeParameters),
      spread(seeds.map(({ bitsPerByte }) => bitsPerByte)),
      result === first ? '' : spread(differences(result, first!), signed),
      `${(1000 * Math.min(...seeds.map(({ secondsPerStep }) => secondsPerStep))).toFixed(0)} ms`,
      mebibytes(2 * parameters),
      mebibytes(trainingBytes.state + trainingBytes.step),
      `${cacheBytesPerToken.toLocaleString('en')} B`,
      imbalances.length > 0 ? spread(imbalances, (value) => value.toFixed(2)) : '',
    ];
  });
  const head = [
    '',
    'parameters',
    'active',
    'bits per byte',
    'against the first',
    'a step',
    'weights',
    'training',
    'cache a token',
    'busiest expert',
  ];
  return [head, head.map((_, i) => (i === 0 ? '---' : '---:')), ...rows]
    .map((row) => `| ${row.join(' | ')} |`)
    .join('\n');
}

/** In words, what the seeds agree on. */
function verdicts([first, ...others]: readonly VariantResult[]): string {
  return others
    .map((other) => {
      const change = differences(other, first!);
      const agree = change.every((value) => value < 0) || change.every((value) => value > 0);
      const mean = meanOf(change);
      const names = `*${other.variant}* against *${first!.variant}*`;
      if (!agree) return `${names}: the seeds disagree on the sign; at this scale it is not decided.`;
      return `${names}: ${mean < 0 ? 'lower' : 'higher'} loss with every seed, by ${Math.abs(mean).toFixed(3)} bits per byte on average.`;
    })
    .join('\n');
}

function differences({ seeds }: VariantResult, { seeds: others }: VariantResult): number[] {
  return seeds.map(({ bitsPerByte }: SeedResult, i) => bitsPerByte - others[i]!.bitsPerByte);
}

function closing({ steps, seeds }: AblationSettings): string {
  return `## What this scale cannot show

- ${(steps * BATCH_TOKENS).toLocaleString('en')} tokens are far too few for experts to specialise: published gains of fine-grained and shared experts
  (DeepSeekMoE, arXiv:2401.06066) are at 100 billion tokens and more. A difference that is missing here is not refuted.
- ${seeds} seeds show a spread, not a confidence. A difference of the size of the spread is none.
- With sequences of ${SEQUENCE} tokens and 4 heads, attentions hardly differ in what they can express; what differs for certain is
  the cache. On long contexts the order of MHA, GQA, MQA and MLA is an open question to these runs.
- One learning rate serves all. The dense model of the same total size may want another one.
- Steps on a CPU at these widths are bound by overheads that larger models do not have: times compare variants here, not there.
- The curves of balance are of single batches of ${BATCH_TOKENS.toLocaleString('en')} tokens, where a load over the mean depends on the size of the batch.
`;
}

const meanOf = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
const signed = (value: number) => `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(3)}`;
const millions = (value: number) => `${(value / 1e6).toFixed(2)} M`;
const mebibytes = (value: number) => `${(value / 2 ** 20).toFixed(1)} MiB`;

/** Mean, and where there are several, least and greatest. */
function spread(values: readonly number[], shown = (value: number) => value.toFixed(3)): string {
  const mean = shown(meanOf(values));
  return values.length > 1 ? `${mean} (${shown(Math.min(...values))} to ${shown(Math.max(...values))})` : mean;
}
