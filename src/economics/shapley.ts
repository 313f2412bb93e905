/**
 * What each of `n` parts adds to a whole, whatever the order in which they come: its mean over all orders (Shapley 1953).
 * @param value of a set of parts, by the bits of its number
 * @returns for each part; their sum is value(all) − value(none)
 */
export function shapley(n: number, value: (set: number) => number): number[] {
  return Array.from({ length: n }, (_, part) => {
    const bit = 1 << part;
    let sum = 0;
    for (let set = 0; set < 1 << n; set++) {
      if (set & bit) continue;
      const size = ones(set);
      const shareOfOrders = (factorial(size) * factorial(n - size - 1)) / factorial(n);
      sum += shareOfOrders * (value(set | bit) - value(set));
    }
    return sum;
  });
}

function ones(set: number): number {
  let count = 0;
  for (let left = set; left > 0; left >>= 1) count += left & 1;
  return count;
}

function factorial(n: number): number {
  return n <= 1 ? 1 : n * factorial(n - 1);
}
