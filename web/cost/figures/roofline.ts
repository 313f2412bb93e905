/** Where a decode step lies under the roof of one device: operations for each byte that is read, against what they allow. */
import {
  attentionFlopPerPair,
  cacheBytes,
  countParameters,
  expertParameters,
  forwardFlop,
  weightBytes,
} from '../../../src/economics/counts.ts';
import { expertsPerDevice } from '../../../src/economics/deployment.ts';
import { distinctExperts } from '../../../src/economics/expert-traffic.ts';
import { base, here, rules, xAxis, yAxis } from '../chart-style.ts';
import type { Evaluation } from '../evaluation.ts';
import { type Figure, geometric } from '../figure.ts';
import { bytes, digits } from '../format.ts';

const BATCHES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

export function roofline({ architecture: a, plan, serving, scenario }: Evaluation): Figure {
  const { decode: d } = plan;
  const { machine } = d;
  const { batch, context } = serving.decode;
  const peak = scenario.precision === 'fp8' && machine.fp8 !== null ? machine.fp8 : machine.bf16;
  const ridge = peak / machine.bandwidth;
  const perToken = forwardFlop(a, context, 'absorbed');
  const step = (sequences: number) => {
    const weights = weightsRead(sequences);
    const cache = sequences * context * cacheBytes(a, d.cache);
    const flop = sequences * perToken;
    return { batch: sequences, flop, weights, cache, intensity: flop / (weights + cache) };
  };
  /** Bytes of weights that a device reads in a step, as its share of its group. */
  function weightsRead(sequences: number): number {
    const { parts } = countParameters(a);
    const each = weightBytes(d.precision);
    const routed = a.experts
      ? (distinctExperts(a.experts, sequences * d.devices) / a.experts.routed) *
        expertsPerDevice(a, d) *
        (a.layers - a.denseLayers) *
        expertParameters(a) *
        each *
        (d.expertParallel ? 1 : 1 / d.tensorParallel)
      : 0;
    const head = (parts.head || parts.embedding) * weightBytes('bf16');
    return routed + ((parts.attention + parts.dense + parts.sharedExperts) * each + head) / d.tensorParallel;
  }
  const steps = BATCHES.filter((b) => b < batch * 0.8).map(step);
  const now = step(batch);
  const attention = attentionFlopPerPair(a, 'absorbed') / cacheBytes(a, d.cache);
  const roof = (intensity: number) => Math.min(peak, machine.bandwidth * intensity);
  const span = geometric(1, Math.max(ridge * 8, now.intensity * 3, attention * 2), 40);
  const side =
    now.intensity < ridge
      ? 'reading memory takes longer than the arithmetic'
      : 'the arithmetic takes longer than reading memory';
  return {
    id: 'roofline',
    title: 'Under the roofline',
    says: `A decode step does ${digits(now.intensity)} operations for each byte it reads; ${digits(ridge)} would keep the arithmetic of ${machine.name} busy, so ${side}. The attention core alone has ${digits(attention)}.`,
    rows: [...steps, now].map(({ batch, intensity, flop, weights, cache }) => ({
      'sequences a device': batch,
      'FLOP a byte': intensity,
      'FLOP a step': flop,
      'weight bytes read': weights,
      'cache bytes read': cache,
      'roof, FLOP a second': roof(intensity),
    })),
    workings: [
      {
        what: 'Where memory and arithmetic meet',
        formula: 'peak ÷ bandwidth',
        values: `${digits(peak / 1e12, 4)} TFLOP/s ÷ ${digits(machine.bandwidth / 1e12, 4)} TB/s`,
        result: `${digits(ridge)} FLOP a byte`,
      },
      {
        what: 'Operations for each byte of a step',
        formula: 'sequences × FLOP a token ÷ (weights read + cache read)',
        values: `${digits(batch, 4)} × ${digits(perToken / 1e9, 4)} GFLOP ÷ (${bytes(now.weights)} + ${bytes(now.cache)})`,
        result: `${digits(now.intensity)} FLOP a byte`,
      },
      {
        what: 'The attention core',
        formula: 'FLOP for a cached token ÷ its bytes',
        values: `${digits(attentionFlopPerPair(a, 'absorbed') / 1e6, 4)} MFLOP ÷ ${digits(cacheBytes(a, d.cache) / 1e3, 5)} KB`,
        result: `${digits(attention)} FLOP a byte`,
      },
    ],
    chart: (style) => ({
      ...base(style),
      tooltip: { ...(base(style).tooltip as object), trigger: 'item' },
      xAxis: xAxis(style, { name: 'operations for each byte', format: (v) => digits(v), min: 1, max: span.at(-1)! }),
      yAxis: yAxis(style, { name: 'TFLOP a second', format: (v) => digits(v) }),
      series: [
        {
          type: 'line',
          name: machine.name,
          data: span.map((i) => [i, roof(i) / 1e12]),
          showSymbol: false,
          silent: true,
          lineStyle: { color: style.soft, width: 2 },
          markLine: rules(style, [
            { xAxis: ridge, label: 'peak reached', after: true },
            { xAxis: attention, label: 'attention core', low: true },
          ]),
        },
        {
          type: 'line',
          name: 'smaller batches',
          data: [...steps, now].map(({ intensity, batch }) => ({
            value: [intensity, roof(intensity) / 1e12],
            name: `batch ${digits(batch)}`,
          })),
          symbol: 'circle',
          symbolSize: 7,
          lineStyle: { color: style.series[0], width: 1.5 },
          itemStyle: { color: style.series[0] },
          tooltip: { formatter: '{b}' },
        },
        here(style, `batch ${digits(batch)}`, now.intensity, roof(now.intensity) / 1e12),
      ],
    }),
  };
}
