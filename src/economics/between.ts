/** A function that is known at some points: on a straight line between the points around x; the nearest point beyond them. */
export function between<Point>(
  points: readonly Point[],
  x: number,
  xOf: (point: Point) => number,
  yOf: (point: Point) => number,
  scale: (x: number) => number = (value) => value,
): number {
  const next = points.findIndex((point) => xOf(point) >= x);
  if (next <= 0) return yOf(points.at(next)!);
  const [low, high] = [points[next - 1]!, points[next]!];
  const share = (scale(x) - scale(xOf(low))) / (scale(xOf(high)) - scale(xOf(low)));
  return yOf(low) * (1 - share) + yOf(high) * share;
}

export const ascending = (values: readonly number[]) => [...new Set(values)].sort((one, other) => one - other);
