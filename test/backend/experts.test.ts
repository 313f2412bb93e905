import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { own, rowsOf } from '../../src/backend/graph.ts';
import { combineExperts, groupByExpert, type Routing, routerEntropy, routeTokens } from '../../src/backend/ops.ts';
import { dot, noise, relativeError, runOps, slope } from './run-op.ts';

/** DeepSeek-V3 report eq. 12–16 (sigmoid) and V2 (softmax) for one token, in float64. */
function route64(logits: number[], bias: number[], routing: Routing) {
  const { topK, groups, topGroups, scoring, groupScore, normalise, scale } = routing;
  const most = Math.max(...logits);
  const total = logits.reduce((sum, l) => sum + Math.exp(l - most), 0);
  const scores = logits.map((l) => (scoring === 'sigmoid' ? 1 / (1 + Math.exp(-l)) : Math.exp(l - most) / total));
  const selection = scores.map((s, e) => s + bias[e]!);
  const size = logits.length / groups;
  const best = Array.from({ length: groups }, (_, g) => {
    const sorted = selection.slice(g * size, (g + 1) * size).sort((a, b) => b - a);
    return { g, score: groupScore === 'max' ? sorted[0]! : sorted[0]! + (sorted[1] ?? -Infinity) };
  }).sort((a, b) => b.score - a.score);
  const allowed = new Set(groups === topGroups ? best.map((b) => b.g) : best.slice(0, topGroups).map((b) => b.g));
  const experts = selection
    .map((score, e) => ({ score, e }))
    .filter(({ e }) => allowed.has(Math.floor(e / size)))
    .sort((a, b) => b.score - a.score)
    .slice(0, topK)
    .map(({ e }) => e);
  const sum = experts.reduce((s, e) => s + scores[e]!, 0);
  return { experts, weights: experts.map((e) => (normalise ? scores[e]! / (sum + 1e-20) : scores[e]!) * scale) };
}

const v3: Routing = {
  topK: 4,
  groups: 4,
  topGroups: 2,
  scoring: 'sigmoid',
  groupScore: 'top2',
  normalise: true,
  scale: 2.5,
};
const v2: Routing = {
  topK: 3,
  groups: 4,
  topGroups: 3,
  scoring: 'softmax',
  groupScore: 'max',
  normalise: false,
  scale: 1,
};
const plainTopK: Routing = { ...v2, groups: 1, topGroups: 1 };
const scalarsOf = (r: Routing) => [
  r.groups,
  r.topGroups,
  r.scoring === 'sigmoid' ? 1 : 0,
  r.groupScore === 'top2' ? 1 : 0,
  r.normalise ? 1 : 0,
  r.scale,
];

describe.each([
  ['V3', v3],
  ['V2 group-limited', v2],
  ['V2 greedy', plainTopK],
])('routing of %s', (_, routing) => {
  const experts = 16;

  test('experts and weights follow the published equations', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 1e6 }), fc.integer({ min: 1, max: 40 }), async (seed, rows) => {
        const logits = noise(rows * experts, seed).map((v) => Math.fround(v * 4));
        const bias = noise(experts, seed + 1).map((v) => Math.fround(v * 0.3));
        const given = { logits: { cols: experts, values: logits }, bias: { cols: experts, values: bias } };
        const got = await runOps(given, (graph, t) => ({ ...routeTokens(graph, t.logits, t.bias, routing) }));
        for (let r = 0; r < rows; r++) {
          const expected = route64(logits.slice(r * experts, (r + 1) * experts), bias, routing);
          const slice = (of: number[]) => of.slice(r * routing.topK, (r + 1) * routing.topK);
          expect(slice(got.experts)).toEqual(expected.experts);
          expect(relativeError(slice(got.weights), expected.weights)).toBeLessThan(1e-5);
        }
      }),
      { numRuns: 25 },
    );
  });

  test('the gradient reaches the logits through the chosen weights only', async () => {
    const logits = noise(experts, 11);
    const bias = noise(experts, 12).map((v) => Math.fround(v * 0.1));
    const g = noise(routing.topK, 13);
    const chosen = route64(logits, bias, routing).experts;
    const weightsOf = (l: number[]) => {
      const total = l.reduce((sum, v) => sum + Math.exp(v), 0);
      const scores = chosen.map((e) =>
        routing.scoring === 'sigmoid' ? 1 / (1 + Math.exp(-l[e]!)) : Math.exp(l[e]!) / total,
      );
      const sum = scores.reduce((a, b) => a + b, 0);
      return scores.map((s) => (routing.normalise ? s / sum : s) * routing.scale);
    };
    const given = {
      logits: { cols: experts, values: logits },
      bias: { cols: experts, values: bias },
      g: { cols: routing.topK, values: g },
    };
    const { gradient } = await runOps(given, (graph, t) => {
      const routed = routeTokens(graph, t.logits, t.bias, routing);
      const gradient = own(rowsOf(null, 1), experts);
      const reads = [t.g, t.logits, routed.experts, routed.weights];
      graph.ops.push({ kernel: 'route_tokens_backward', writes: [gradient], reads, scalars: scalarsOf(routing) });
      return { gradient };
    });
    expect(
      relativeError(
        gradient,
        slope((l) => dot(weightsOf(l), g), logits),
      ),
    ).toBeLessThan(1e-5);
  });
});

test.each(['sigmoid', 'softmax'] as const)(
  'the entropy of a router is that of %s affinities as shares',
  async (scoring) => {
    const [rows, experts] = [20, 24];
    // from near even to all but certain; the last is even
    const logits = noise(rows * experts, 7).map((v, i) => Math.fround(v * 4 * (rows - 1 - Math.floor(i / experts))));
    const { entropy } = await runOps({ logits: { cols: experts, values: logits } }, (graph, t) => ({
      entropy: routerEntropy(graph, t.logits, scoring),
    }));
    const expected = Array.from({ length: rows }, (_, r) => {
      const affinities = logits
        .slice(r * experts, (r + 1) * experts)
        .map((l) => (scoring === 'sigmoid' ? 1 / (1 + Math.exp(-l)) : Math.exp(l)));
      const total = affinities.reduce((a, b) => a + b);
      return -affinities.reduce((sum, a) => sum + (a / total) * Math.log(a / total), 0);
    });
    entropy.forEach((value, r) => {
      expect(value).toBeCloseTo(expected[r]!, 4);
    });
    expect(entropy.at(-1)).toBeCloseTo(Math.log(experts), 5);
  },
);

test('ties go to the lower expert', async () => {
  const given = { logits: { cols: 8, values: new Array(8).fill(0.5) } };
  const { experts } = await runOps(given, (graph, t) => ({
    experts: routeTokens(graph, t.logits, null, { ...plainTopK, topK: 3 }).experts,
  }));
  expect(experts).toEqual([0, 1, 2]);
});

test('every slot is grouped once, by expert and then by slot, and finds its way back', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.integer({ min: 0, max: 6 }), { minLength: 2, maxLength: 120 }), async (slots) => {
      const values = slots.slice(0, slots.length - (slots.length % 2));
      const given = { chosen: { cols: 2, values, dtype: 'i32' as const } };
      const got = await runOps(given, (graph, t) => {
        const { order, place, offsets } = groupByExpert(graph, t.chosen, 7);
        return { order, place, offsets };
      });
      const expected = values
        .map((expert, slot) => ({ expert, slot }))
        .sort((a, b) => a.expert - b.expert || a.slot - b.slot);
      expect(got.order).toEqual(expected.map(({ slot }) => slot));
      got.order.forEach((slot, at) => void expect(got.place[slot]).toBe(at));
      for (let e = 0; e <= 7; e++) expect(got.offsets[e]).toBe(values.filter((v) => v < e).length);
    }),
    { numRuns: 30 },
  );
});

test('combine sums a token’s experts by weight; its backward form is the slope', async () => {
  const [rows, topK, cols] = [5, 3, 19];
  const chosen = noise(rows * topK, 20).map((v) => Math.floor((v + 1) * 3.5));
  const sorted = noise(rows * topK * cols, 21);
  const weights = noise(rows * topK, 22);
  const g = noise(rows * cols, 23);
  const given = {
    chosen: { cols: topK, values: chosen, dtype: 'i32' as const },
    sorted: { cols, values: sorted },
    weights: { cols: topK, values: weights },
    g: { cols, values: g },
  };
  const got = await runOps(given, (graph, t) => {
    const plan = groupByExpert(graph, t.chosen, 7);
    const out = combineExperts(graph, t.sorted, plan, t.weights);
    const dSorted = own(rowsOf(null, rows * topK), cols);
    const dWeights = own(rowsOf(null, rows), topK);
    const reads = [t.g, t.sorted, plan.order, plan.place, t.weights];
    graph.ops.push({ kernel: 'combine_experts_backward', writes: [dSorted, dWeights], reads, scalars: [1] });
    const scattered = own(rowsOf(null, rows), cols);
    graph.ops.push({ kernel: 'scatter_slots', writes: [scattered], reads: [t.sorted, plan.place], scalars: [0] });
    return { out, dSorted, dWeights, scattered, place: plan.place };
  });
  const combine64 = (s: number[], w: number[]) =>
    Array.from({ length: rows * cols }, (_, i) => {
      const [r, c] = [Math.floor(i / cols), i % cols];
      return dot(
        w.slice(r * topK, (r + 1) * topK),
        got.place.slice(r * topK, (r + 1) * topK).map((p) => s[p * cols + c]!),
      );
    });
  expect(relativeError(got.out, combine64(sorted, weights))).toBeLessThan(1e-6);
  expect(
    relativeError(
      got.scattered,
      combine64(
        sorted,
        weights.map(() => 1),
      ),
    ),
  ).toBeLessThan(1e-6);
  expect(
    relativeError(
      got.dSorted,
      slope((s) => dot(combine64(s, weights), g), sorted),
    ),
  ).toBeLessThan(1e-5);
  expect(
    relativeError(
      got.dWeights,
      slope((w) => dot(combine64(sorted, w), g), weights),
    ),
  ).toBeLessThan(1e-5);
});
