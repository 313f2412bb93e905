/** A printed figure beside the one that this code computes: a row of the validation table. */

export interface Comparison {
  readonly id: string;
  readonly what: string;
  readonly unit: string;
  readonly printed: number;
  readonly computed: number;
  /** Allowed relative deviation, mostly the rounding of the printed figure; null: not expected to agree, `note` says why. */
  readonly within: number | null;
  readonly source: string;
  readonly note?: string;
}

export function deviation({ printed, computed }: Comparison): number {
  return computed / printed - 1;
}

export function agrees(comparison: Comparison): boolean {
  // Rounding of the last digit of a double is no deviation.
  return comparison.within !== null && Math.abs(deviation(comparison)) <= comparison.within + 1e-12;
}
