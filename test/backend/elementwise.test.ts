import { describe, expect, test } from 'vitest';
import { columns, type Graph, own, rowsOf, type Tensor, temp } from '../../src/backend/graph.ts';
import { add, concat, embed, rmsNorm, rope, selectRows, siluMul } from '../../src/backend/ops.ts';
import { dot, noise, relativeError, runOps, slope } from './run-op.ts';

const op = (
  graph: Graph,
  kernel: string,
  writes: (Tensor | null)[],
  reads: (Tensor | null)[],
  scalars: number[] = [],
) => graph.ops.push({ kernel, writes, reads, scalars });
const tolerance = 2e-6;

/** Plain float64 forms. */
const rmsNorm64 = (x: number[], w: number[], eps: number) =>
  x.map((v, i) => {
    const group = x.slice(i - (i % w.length), i - (i % w.length) + w.length);
    return (v / Math.sqrt(dot(group, group) / w.length + eps)) * w[i % w.length]!;
  });
const silu64 = (gate: number[], up: number[]) => gate.map((g, i) => (g / (1 + Math.exp(-g))) * up[i]!);

function rope64(
  x: number[],
  cols: number,
  heads: number,
  at: number,
  positions: number[],
  f: number[],
  interleaved: boolean,
) {
  const out = [...x];
  for (let row = 0; row < positions.length; row++) {
    for (let h = 0; h < heads; h++) {
      const base = row * cols + (h * cols) / heads + at;
      f.forEach((frequency, i) => {
        const [p, q] = interleaved ? [base + 2 * i, base + 2 * i + 1] : [base + i, base + i + f.length];
        const angle = positions[row]! * frequency;
        out[p] = x[p]! * Math.cos(angle) - x[q]! * Math.sin(angle);
        out[q] = x[p]! * Math.sin(angle) + x[q]! * Math.cos(angle);
      });
    }
  }
  return out;
}

describe.each([16, 37, 5])('rows of %i columns', (cols) => {
  const rows = 7;
  const x = noise(rows * cols, 1).map((v) => Math.fround(v * 3));
  const y = noise(rows * cols, 2);
  const w = noise(cols, 3);
  const g = noise(rows * cols, 4);

  test('rms_norm is x over its root mean square, times the weight', async () => {
    const { out } = await runOps({ x: { cols, values: x }, w: { cols, values: w } }, (graph, t) => ({
      out: rmsNorm(graph, t.x, t.w, 1e-6),
    }));
    expect(relativeError(out, rmsNorm64(x, w, 1e-6))).toBeLessThan(tolerance);
  });

  test('rms_norm_backward is the slope of rms_norm', async () => {
    const { dx, dw } = await runOps(
      { x: { cols, values: x }, w: { cols, values: w }, g: { cols, values: g } },
      (graph, t) => {
        const dx = own(rowsOf(null, rows), cols);
        const dw = own(rowsOf(null, 1), cols);
        op(graph, 'rms_norm_backward', [dx, dw, own(rowsOf(null, 3), cols)], [t.g, t.x, t.w, null], [1e-6]);
        return { dx, dw };
      },
    );
    expect(
      relativeError(
        dx,
        slope((v) => dot(rmsNorm64(v, w, 1e-6), g), x),
      ),
    ).toBeLessThan(1e-5);
    expect(
      relativeError(
        dw,
        slope((v) => dot(rmsNorm64(x, v, 1e-6), g), w),
      ),
    ).toBeLessThan(1e-5);
  });

  test('silu_mul and its backward form', async () => {
    const given = { x: { cols, values: x }, y: { cols, values: y }, g: { cols, values: g } };
    const { out, dx, dy } = await runOps(given, (graph, t) => {
      const dx = own(rowsOf(null, rows), cols);
      const dy = own(rowsOf(null, rows), cols);
      const out = siluMul(graph, t.x, t.y);
      op(graph, 'silu_mul_backward', [dx, dy], [t.g, t.x, t.y], [1, 0]);
      return { out, dx, dy };
    });
    expect(relativeError(out, silu64(x, y))).toBeLessThan(tolerance);
    expect(
      relativeError(
        dx,
        slope((v) => dot(silu64(v, y), g), x),
      ),
    ).toBeLessThan(1e-5);
    expect(
      relativeError(
        dy,
        slope((v) => dot(silu64(x, v), g), y),
      ),
    ).toBeLessThan(1e-5);
  });

  test('backward kernels add to what is there', async () => {
    const { sums, rowsSum } = await runOps({ x: { cols, values: x }, y: { cols, values: y } }, (graph, t) => {
      const sums = own(rowsOf(null, 1), cols);
      op(graph, 'fill', [sums], [], [2]);
      op(graph, 'column_sums', [sums], [t.x]);
      const rowsSum = add(graph, t.x, t.y);
      op(graph, 'accumulate', [rowsSum], [t.y], [1]);
      return { sums, rowsSum };
    });
    const expected = w.map((_, c) => 2 + x.filter((_, i) => i % cols === c).reduce((a, b) => a + b, 0));
    expect(relativeError(sums, expected)).toBeLessThan(tolerance);
    expect(
      relativeError(
        rowsSum,
        x.map((v, i) => v + 2 * y[i]!),
      ),
    ).toBeLessThan(tolerance);
  });

  test('concat and column views put columns where they belong', async () => {
    const { joined, part } = await runOps({ x: { cols, values: x }, y: { cols, values: y } }, (graph, t) => {
      const joined = concat(graph, t.x, t.y);
      return { joined, part: add(graph, columns(joined, 2, 3), columns(joined, cols + 1, 3)) };
    });
    for (let r = 0; r < rows; r++) {
      expect(joined.slice(2 * r * cols, 2 * (r + 1) * cols)).toEqual([
        ...x.slice(r * cols, (r + 1) * cols),
        ...y.slice(r * cols, (r + 1) * cols),
      ]);
      const sums = [0, 1, 2].map((c) => Math.fround(x[r * cols + 2 + c]! + y[r * cols + 1 + c]!));
      expect(part.slice(3 * r, 3 * r + 3)).toEqual(sums);
    }
  });
});

test.each([true, false])(
  'rope turns pairs by position times frequency and undoes it (interleaved %s)',
  async (interleaved) => {
    const [heads, headDim, offset, rows] = [3, 11, 3, 5];
    const cols = heads * headDim;
    const x = noise(rows * cols, 5);
    const positions = [0, 1, 17, 4095, 100_003];
    const frequencies = [1, 0.1, 0.01, 0.0007].map(Math.fround);
    const layout = { heads, headDim, offset, interleaved, magnitude: 1 };
    const given = {
      x: { cols, values: x },
      positions: { cols: 1, values: positions, dtype: 'i32' as const },
      frequencies: { cols: 4, values: frequencies },
    };
    const { out, back } = await runOps(given, (graph, t) => {
      const out = rope(graph, t.x, t.positions, t.frequencies, layout);
      const back = temp(t.x.storage.rows, cols);
      op(
        graph,
        'rope',
        [back],
        [out, t.positions, t.frequencies],
        [heads, headDim, offset, interleaved ? 1 : 0, 1, -1],
      );
      return { out, back };
    });
    expect(relativeError(out, rope64(x, cols, heads, offset, positions, frequencies, interleaved))).toBeLessThan(
      tolerance,
    );
    expect(relativeError(back, x)).toBeLessThan(tolerance);
  },
);

test('embed and select_rows copy rows; embed_backward adds them up by id', async () => {
  const [vocab, cols] = [9, 21];
  const table = noise(vocab * cols, 6);
  const ids = [3, 0, 8, 3];
  const g = noise(ids.length * cols, 7);
  const given = {
    table: { cols, values: table },
    ids: { cols: 1, values: ids, dtype: 'i32' as const },
    last: { cols: 1, values: [2, 0], dtype: 'i32' as const },
    g: { cols, values: g },
  };
  const { rows, picked, gradient } = await runOps(given, (graph, t) => {
    const rows = embed(graph, t.ids, t.table);
    const gradient = own(rowsOf(null, vocab), cols);
    op(graph, 'embed_backward', [gradient], [t.g, t.ids]);
    return { rows, picked: selectRows(graph, rows, t.last), gradient };
  });
  const row = (of: number[], r: number) => of.slice(r * cols, (r + 1) * cols);
  ids.forEach((id, r) => void expect(row(rows, r)).toEqual(row(table, id)));
  expect(row(picked, 0)).toEqual(row(table, 8));
  expect(row(gradient, 3)).toEqual(row(g, 0).map((v, c) => Math.fround(v + row(g, 3)[c]!)));
  expect(row(gradient, 1).every((v) => v === 0)).toBe(true);
});
