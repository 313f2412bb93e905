/** Least squares of few coefficients, none of them negative, each observation weighed by its own size. */

interface Observation {
  readonly terms: readonly number[];
  readonly value: number;
}

/**
 * Coefficients ≥ 0 that make Σ ((Σ coefficient · term − value) / value)² least: of the solutions over each subset of the
 * terms, the best of those without a negative one.
 */
export function fitNonNegative(observations: readonly Observation[]): number[] {
  const rows = observations
    .filter(({ value }) => value > 0)
    .map(({ terms, value }) => terms.map((term) => term / value));
  const count = observations[0]!.terms.length;
  let best = { error: Number.POSITIVE_INFINITY, coefficients: new Array<number>(count).fill(0) };
  for (let subset = 0; subset < 2 ** count; subset++) {
    const chosen = Array.from({ length: count }, (_, i) => i).filter((i) => subset & (1 << i));
    const solved = solveLeastSquares(rows.map((row) => chosen.map((i) => row[i]!)));
    if (!solved?.every((coefficient) => coefficient >= 0)) continue;
    const coefficients = new Array<number>(count).fill(0);
    chosen.forEach((i, at) => {
      coefficients[i] = solved[at]!;
    });
    const error = rows.reduce(
      (sum, row) => sum + (row.reduce((all, term, i) => all + term * coefficients[i]!, 0) - 1) ** 2,
      0,
    );
    if (error < best.error) best = { error, coefficients };
  }
  return best.coefficients;
}

/** x that makes |rows · x − 1|² least, by the normal equations; null where they have no one solution. */
function solveLeastSquares(rows: readonly (readonly number[])[]): number[] | null {
  const count = rows[0]?.length ?? 0;
  // columns of like size, or the equations would be ill-conditioned
  const sizes = Array.from({ length: count }, (_, i) => Math.hypot(...rows.map((row) => row[i]!)));
  const scaled = rows.map((row) => row.map((term, i) => term / sizes[i]!));
  const equations = Array.from({ length: count }, (_, i) => [
    ...Array.from({ length: count }, (_, j) => scaled.reduce((sum, row) => sum + row[i]! * row[j]!, 0)),
    scaled.reduce((sum, row) => sum + row[i]!, 0),
  ]);
  for (let i = 0; i < count; i++) {
    const pivot = equations[i]![i]!;
    if (!(Math.abs(pivot) > 1e-10)) return null;
    for (let row = 0; row < count; row++) {
      if (row === i) continue;
      const factor = equations[row]![i]! / pivot;
      for (let column = i; column <= count; column++) equations[row]![column]! -= factor * equations[i]![column]!;
    }
  }
  return equations.map((equation, i) => equation[count]! / equation[i]! / sizes[i]!);
}
