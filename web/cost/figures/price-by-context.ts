/** What input and output cost against how far a token looks back. */
import { largestBatch } from '../../../src/economics/decode.ts';
import { DeploymentError } from '../../../src/economics/deployment.ts';
import { prefillPoint } from '../../../src/economics/prefill.ts';
import { costPerMillion, times } from '../../../src/economics/quantity.ts';
import { base, here, line, xAxis, yAxis } from '../chart-style.ts';
import type { Evaluation } from '../evaluation.ts';
import { type Figure, geometric } from '../figure.ts';
import { count, digits, dollarMark, dollars } from '../format.ts';

const LEAST = 512;
const MOST = 131_072;
const POINTS = 17;

export function priceByContext({ architecture, plan, serving, workload, machine }: Evaluation): Figure {
  const points = geometric(LEAST, MOST, POINTS).map((context) => {
    const shape = { promptTokens: context, hitShare: 0, tokensPerStep: plan.prefillTokensPerStep };
    const prefill = ifItFits(() => prefillPoint(architecture, plan.prefill, shape));
    const decode = ifItFits(() => largestBatch(architecture, plan.decode, context, workload.tpotTarget));
    return {
      context,
      input: prefill && costPerMillion(machine.price, times(prefill.missesPerDevice, serving.prefill.load)),
      output: decode && costPerMillion(machine.price, times(decode.perDevice, workload.load)),
      batch: decode?.batch ?? null,
    };
  });
  const reached = points.filter(({ output }) => output !== null);
  const last = reached.at(-1);
  const { context } = serving.decode;
  const says =
    last === undefined || last.context < 1024
      ? 'Long contexts do not fit this plan.'
      : `At ${count(last.context)} tokens of context an output token costs ${digits(last.output! / serving.usd.output)} times what it does at ${count(context)}: the longer cache leaves room, and time, for ${digits(last.batch!)} sequences a device.`;
  return {
    id: 'price-by-context',
    title: 'Price against context',
    says,
    rows: points.map(({ context, input, output, batch }) => ({
      'context tokens': context,
      'USD a million output tokens': output,
      'USD a million input tokens, no cache hit': input,
      'sequences a device': batch,
    })),
    workings: [
      {
        what: 'Context of an output token',
        formula: 'prompt + output ÷ 2',
        values: `${digits(workload.promptTokens, 6)} + ${digits(workload.outputTokens, 6)} ÷ 2`,
        result: digits(context, 6),
      },
      {
        what: 'Dollars a million missed input tokens',
        formula: 'seconds of a device a token × rent an hour ÷ 3600 ÷ load of prefill × 10^6',
        values: `${digits(serving.prefill.secondsPerMiss * 1e6, 4)} × 10^−6 × $${machine.price.toFixed(2)} ÷ 3600 ÷ ${digits(serving.prefill.load, 4)} × 10^6`,
        result: dollars(serving.usd.miss),
      },
      {
        what: 'Dollars a million hit input tokens',
        formula: 'seconds of a device a token × rent an hour ÷ 3600 ÷ load of prefill × 10^6',
        values: `${digits(serving.prefill.secondsPerHit * 1e6, 4)} × 10^−6 × $${machine.price.toFixed(2)} ÷ 3600 ÷ ${digits(serving.prefill.load, 4)} × 10^6`,
        result: dollars(serving.usd.hit),
      },
    ],
    chart: (style) => ({
      ...base(style),
      grid: { left: 8, right: 58, top: 34, bottom: 30, containLabel: true },
      xAxis: xAxis(style, { name: 'tokens of context', format: count, min: LEAST, max: MOST }),
      yAxis: yAxis(style, { name: '$ a million tokens', format: dollarMark }),
      series: [
        {
          ...line(
            style,
            0,
            'output',
            reached.map(({ context, output }) => [context, output!] as const),
          ),
          tooltip: { valueFormatter: dollars },
        },
        {
          ...line(
            style,
            1,
            'input',
            points.flatMap(({ context, input }) => (input === null ? [] : [[context, input] as const])),
          ),
          tooltip: { valueFormatter: dollars },
        },
        here(style, dollars(serving.usd.output), context, serving.usd.output),
      ],
    }),
  };
}

/** null where a sequence as long as that does not fit, or is too slow even alone. */
function ifItFits<T>(work: () => T): T | null {
  try {
    return work();
  } catch (error) {
    if (error instanceof DeploymentError) return null;
    throw error;
  }
}
