/** What an output token costs against the sequences that a device decodes together. */
import { decodePoint } from '../../../src/economics/decode.ts';
import { costPerMillion, times } from '../../../src/economics/quantity.ts';
import { base, here, line, rules, xAxis, yAxis } from '../chart-style.ts';
import type { Evaluation } from '../evaluation.ts';
import { type Figure, geometric } from '../figure.ts';
import { digits, dollarMark, dollars, milliseconds } from '../format.ts';

const POINTS = 36;

export function priceByBatch({ architecture, plan, serving, workload, machine, scenario }: Evaluation): Figure {
  const { decode } = serving;
  const least = 1 / plan.decode.tensorParallel;
  const points = geometric(least, decode.memoryBatch, POINTS).map((batch) =>
    decodePoint(architecture, plan.decode, batch, decode.context),
  );
  const price = (point: { perDevice: typeof decode.perDevice }) =>
    costPerMillion(machine.price, times(point.perDevice, workload.load));
  const alone = price(points[0]!);
  const limit = {
    memory: 'then the cache fills the memory',
    latency: `then each user gets less than ${digits(scenario.speed)} tokens a second`,
    demand: 'then demand ends',
  }[decode.limit];
  const { time } = decode;
  return {
    id: 'price-by-batch',
    title: 'Price against batch',
    says: `Weights are read once for all: ${digits(decode.batch)} sequences a device instead of ${
      least === 1 ? 'one' : 'one a group'
    } make an output token ${digits(alone / serving.usd.output)} times cheaper; ${limit}.`,
    rows: points.map((point) => ({
      'sequences a device': point.batch,
      'USD a million output tokens': price(point),
      'tokens a second and device': point.perDevice,
      'tokens a second and user': point.perUser,
      'ms a token': point.tpot * 1000,
      binds: point.binds,
    })),
    workings: [
      {
        what: 'Time of a step',
        formula: 'compute + memory + links + launches',
        values: `${milliseconds(time.compute)} + ${milliseconds(time.memory)} + ${milliseconds(time.link)} + ${milliseconds(time.launch)}`,
        result: milliseconds(decode.tpot * decode.tokensPerStep),
      },
      {
        what: 'Tokens a second and device',
        formula: 'sequences × tokens a step ÷ time of a step',
        values: `${digits(decode.batch, 4)} × ${digits(decode.tokensPerStep, 4)} ÷ ${digits(decode.tpot * decode.tokensPerStep, 4)} s`,
        result: digits(decode.perDevice, 4),
      },
      {
        what: 'Dollars a million output tokens',
        formula: 'rent an hour ÷ 3600 ÷ (tokens a second × load) × 10^6',
        values: `$${machine.price.toFixed(2)} ÷ 3600 ÷ (${digits(decode.perDevice, 4)} × ${digits(workload.load)}) × 10^6`,
        result: dollars(serving.usd.output),
      },
    ],
    chart: (style) => ({
      ...base(style),
      xAxis: xAxis(style, {
        name: 'sequences a device',
        format: (v) => digits(v),
        min: least,
        max: decode.memoryBatch * 1.1,
      }),
      yAxis: yAxis(style, { name: '$ a million output tokens', format: dollarMark }),
      series: [
        {
          ...line(
            style,
            0,
            '',
            points.map((point) => [point.batch, price(point)] as const),
          ),
          name: 'output',
          tooltip: { valueFormatter: dollars },
          markLine: rules(style, [{ xAxis: decode.memoryBatch, label: 'memory full' }]),
          markArea: {
            silent: true,
            itemStyle: { color: style.wash, opacity: 0.55 },
            label: { color: style.soft, position: 'insideBottomRight', fontSize: 11.5, distance: 6 },
            data:
              decode.limit === 'latency'
                ? [[{ xAxis: decode.batch, name: style.narrow ? '' : 'too slow' }, { xAxis: decode.memoryBatch }]]
                : [],
          },
        },
        here(style, dollars(serving.usd.output), decode.batch, serving.usd.output),
      ],
    }),
  };
}
