/** How many users the memory beside the weights has room for, with this model's attention and with others. */
import type { Architecture } from '../../../src/economics/architecture.ts';
import { cacheBytes, withAttention } from '../../../src/economics/counts.ts';
import { USABLE_MEMORY, weightsPerDevice } from '../../../src/economics/deployment.ts';
import { base, line, rules, xAxis, yAxis } from '../chart-style.ts';
import type { Evaluation } from '../evaluation.ts';
import type { Figure } from '../figure.ts';
import { bytes, count, digits } from '../format.ts';

const POINTS = 25;

export function cacheByUsers({ architecture, plan, serving }: Evaluation): Figure {
  const { machine, devices, cache } = plan.decode;
  const { context } = serving.decode;
  const weights = weightsPerDevice(architecture, plan.decode);
  const room = devices * (machine.memory * USABLE_MEMORY - weights);
  const own = ownName(architecture);
  const kinds = [
    { name: own, perToken: cacheBytes(architecture, cache) },
    { name: 'MQA', perToken: cacheBytes(withAttention(architecture, 'mqa'), cache) },
    { name: 'GQA-8', perToken: cacheBytes(withAttention(architecture, 'gqa8'), cache) },
    { name: 'MHA', perToken: cacheBytes(withAttention(architecture, 'mha'), cache) },
  ];
  // Its own attention may be one of the others.
  const shown = kinds.filter(({ name }, i) => i === 0 || name !== own);
  const users = (perToken: number) => room / (perToken * context);
  const [mine, , , multiHead] = kinds as [(typeof kinds)[0], unknown, unknown, (typeof kinds)[0]];
  const most = users(mine.perToken) * 1.15;
  const top = room * 1.12;
  const counts = Array.from({ length: POINTS }, (_, i) => Math.max(1, Math.round((most * i) / (POINTS - 1))));
  return {
    id: 'cache-by-users',
    title: 'Cache memory against users',
    says: `${devices === 1 ? 'One device has' : `${devices} devices have`} ${bytes(room)} left beside the weights: ${count(users(mine.perToken))} users at ${count(context)} tokens each, where multi-head attention would hold ${digits(users(multiHead.perToken))}.`,
    rows: counts.map((n) => ({
      users: n,
      ...Object.fromEntries(shown.map(({ name, perToken }) => [`${name}, bytes`, n * context * perToken])),
      'room, bytes': room,
    })),
    workings: [
      {
        what: 'Cache of one token',
        formula:
          own === 'MLA'
            ? 'layers × (latent + rotary values) × bytes a value'
            : 'layers × 2 × key-value heads × width × bytes a value',
        values: cacheOfToken(),
        result: `${digits(mine.perToken / 1000, 6)} KB`,
      },
      {
        what: 'Room for the cache',
        formula: 'devices × (memory × usable share − weights of a device)',
        values: `${devices} × (${bytes(machine.memory)} × ${USABLE_MEMORY} − ${bytes(weights)})`,
        result: bytes(room),
      },
      {
        what: 'Users',
        formula: 'room ÷ (context × cache of one token)',
        values: `${bytes(room)} ÷ (${digits(context, 6)} × ${digits(mine.perToken / 1000, 6)} KB)`,
        result: digits(users(mine.perToken), 4),
      },
    ],
    chart: (style) => ({
      ...base(style),
      grid: { left: 8, right: 64, top: 34, bottom: 30, containLabel: true },
      xAxis: xAxis(style, { name: 'users at once', type: 'value', format: count, max: most }),
      yAxis: yAxis(style, { name: 'cache', type: 'value', format: bytes, max: top }),
      series: shown.map(({ name, perToken }, i) => ({
        ...line(style, i as 0 | 1 | 2 | 3, name, [
          [0, 0],
          [Math.min(most, top / (perToken * context)), Math.min(most * perToken * context, top)],
        ]),
        tooltip: { valueFormatter: bytes },
        ...(i === 0 ? { markLine: rules(style, [{ yAxis: room, label: `room: ${bytes(room)}` }]) } : {}),
      })),
    }),
  };

  function cacheOfToken(): string {
    const { attention, layers } = architecture;
    const perValue = { bf16: '2 B', fp8: '1 B and scales', int6: '0.75 B' }[cache];
    if (attention.kind === 'mla') return `${layers} × (${attention.kvRank} + ${attention.ropeDim}) × ${perValue}`;
    if (attention.kind === 'grouped')
      return `${layers} × 2 × ${attention.kvHeads} × ${attention.headDim} × ${perValue}`;
    return '';
  }
}

function ownName({ attention }: Architecture): string {
  if (attention.kind !== 'grouped') return 'MLA';
  if (attention.kvHeads === attention.heads) return 'MHA';
  return attention.kvHeads === 1 ? 'MQA' : `GQA-${attention.kvHeads}`;
}
