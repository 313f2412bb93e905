/** The validation table: every published figure that this code computes or predicts, as Markdown. */
import { agrees, type Comparison, deviation } from './comparison.ts';
import {
  arithmeticComparisons,
  cacheComparisons,
  parameterComparisons,
  trainingComparisons,
} from './published-counts.ts';
import { costCurves, furtherRuns, productionDay, servingRuns } from './published-systems.ts';

interface ValidationSection {
  readonly title: string;
  readonly about: string;
  readonly rows: readonly Comparison[];
}

export function validation(): ValidationSection[] {
  return [
    {
      title: 'Parameters',
      about: 'Counted from the published configurations; within 1 % of a figure that rounds to the printed one.',
      rows: parameterComparisons(),
    },
    { title: 'Cache', about: 'What one token occupies; KB is 1000 bytes.', rows: cacheComparisons() },
    {
      title: 'Training',
      about: 'Operations of a token at 4,096 tokens, causal attention; hours and dollars of whole runs.',
      rows: trainingComparisons(),
    },
    {
      title: 'Arithmetic between published figures',
      about: 'What should follow from each other does.',
      rows: arithmeticComparisons(),
    },
    {
      title: 'A production day',
      about:
        'DeepSeek published one day of its service. Node throughputs are predicted from that day’s workload, units and ' +
        'user speed; within 25 %.',
      rows: productionDay(),
    },
    {
      title: 'Serving benchmarks',
      about: 'Throughput of a node of eight devices, layout and batch as published; within 30 %.',
      rows: servingRuns(),
    },
    {
      title: 'Cost against position',
      about:
        'What a token costs by where it stands, at 2 dollars a device-hour: prefill on 32 devices, decode on 144 with 128 ' +
        'sequences a device and drafting, V3.2-Exp with its FP8 cache, routing balanced as in a benchmark; within 30 %.',
      rows: costCurves(),
    },
    {
      title: 'Others',
      about: 'Systems that the factors were neither fitted to nor promised to meet.',
      rows: furtherRuns(),
    },
  ];
}

export function validationMarkdown(sections: readonly ValidationSection[]): string {
  const parts = sections.map(({ title, about, rows }) => {
    const notes = [...new Set(rows.flatMap(({ note }) => (note ? [note] : [])))];
    const marks = (row: Comparison) => (row.note ? ` [${notes.indexOf(row.note) + 1}]` : '');
    const sources = [...new Set(rows.map(({ source }) => source))];
    return [
      `## ${title}`,
      about,
      [
        '| what | unit | printed | computed | deviation | allowed | |',
        '|---|---|--:|--:|--:|--:|---|',
        ...rows.map(
          (row) =>
            `| ${row.what}${marks(row)} | ${row.unit} | ${figure(row.printed)} | ${figure(row.computed)} | ` +
            `${percent(deviation(row))} | ${row.within === null ? '–' : `± ${percent(row.within, '')}`} | ` +
            `${agrees(row) ? 'agrees' : '**misses**'} |`,
        ),
      ].join('\n'),
      ...notes.map((note, i) => `[${i + 1}] ${note}`),
      `Sources: ${sources.join('; ')}.`,
    ].join('\n\n');
  });
  return `# Published figures and ours\n\n${HEAD}\n\n${parts.join('\n\n')}\n`;
}

const HEAD =
  'Written by `farthing price validate`, from this package’s own counts; a test holds this page to what the command prints. ' +
  'How much of a peak real kernels reach is one set of factors (`src/economics/kernel-efficiency.ts`), fitted to ' +
  'DeepGEMM, FlashMLA and DeepEP measurements of single kernels on H800; the imbalance of experts in real traffic comes ' +
  'from one published pair of runs with and without it (`expert-balance.ts`). No system below is an input of its own ' +
  'prediction, but for that pair.';

function figure(value: number): string {
  return value.toLocaleString('en', value >= 1e4 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 5 });
}

function percent(share: number, sign = share < 0 ? '−' : '+'): string {
  const value = Math.abs(share) * 100;
  const text = value.toLocaleString('en', { maximumFractionDigits: value < 1 ? 2 : 1 });
  return `${value === 0 ? '' : sign}${text} %`;
}
