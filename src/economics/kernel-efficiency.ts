/**
 * How much of a peak real kernels reach: one set of factors for every prediction, fitted to published measurements of
 * single kernels on H800 (data/kernels.json) and to nothing that is predicted with them. A test redoes the fits.
 */
import kernels from './data/kernels.json' with { type: 'json' };
import { wireBytes } from './expert-traffic.ts';

export interface KernelEfficiency {
  /** Matrix products: share of peak operations, share of memory bandwidth, seconds before the first result. */
  readonly productCompute: number;
  readonly productMemory: number;
  readonly launchSeconds: number;
  /** Attention over a dense cache, over chosen tokens in decode, and its reading of the cache. */
  readonly attentionCompute: number;
  readonly sparseDecodeCompute: number;
  readonly attentionMemory: number;
  /** All-to-all between nodes: kernels for throughput (prefill) and for latency (decode); inside a node. */
  readonly exchangeThroughput: number;
  readonly exchangeLatency: number;
  readonly localLink: number;
  /** Multiprocessors that the throughput all-to-all takes from computation. */
  readonly exchangeMultiprocessors: number;
  /** End-to-end latency of a message between nodes (ISCA 2025 paper, table 5). */
  readonly messageSeconds: number;
}

/** The fitted factors; `fitKernels()` finds them again. */
export const KERNELS: KernelEfficiency = {
  productCompute: 0.64,
  productMemory: 0.84,
  launchSeconds: 2.75e-6,
  attentionCompute: 0.633,
  sparseDecodeCompute: 0.414,
  attentionMemory: 0.896,
  exchangeThroughput: 0.873,
  exchangeLatency: 0.769,
  localLink: 0.972,
  exchangeMultiprocessors: kernels.multiprocessorsForExchange.value,
  messageSeconds: 3.7e-6,
};

const H800 = { bf16: 990e12, fp8: 1979e12, memory: 3350e9, remote: 50e9, local: 160e9, devicesPerNode: 8 };

/**
 * Time of one (grouped) matrix product: inputs stream in while products are made, results are written at the end.
 * @param compute operations a second at the kernel's best, @param memory bytes a second at its best
 */
function productSeconds(
  work: { readonly flop: number; readonly bytesIn: number; readonly bytesOut: number },
  compute: number,
  memory: number,
  launch: number,
): number {
  return launch + Math.max(work.flop / compute, work.bytesIn / memory) + work.bytesOut / memory;
}

export interface ProductFit {
  readonly productCompute: number;
  readonly productMemory: number;
  readonly launchSeconds: number;
  /** Root mean square of the logarithm of predicted over measured. */
  readonly deviation: number;
}

/** Least squares over DeepGEMM's 28 published shapes, on a grid of whole per cents and quarter microseconds. */
export function fitProducts(): ProductFit {
  const measured = kernels.deepgemm.rows.map((row) => {
    const [groups, rows, n, k, tflops] = row as [number, number, number, number, number];
    const flop = 2 * groups * rows * n * k;
    const work = { flop, bytesIn: groups * (rows * k + n * k), bytesOut: 2 * groups * rows * n };
    return { work, seconds: flop / (tflops * 1e12) };
  });
  let best: ProductFit = { productCompute: 0, productMemory: 0, launchSeconds: 0, deviation: Number.POSITIVE_INFINITY };
  for (let c = 50; c <= 100; c++) {
    for (let m = 60; m <= 100; m += 2) {
      for (let quarter = 0; quarter <= 16; quarter++) {
        const launchSeconds = quarter * 0.25e-6;
        let sum = 0;
        for (const { work, seconds } of measured) {
          const predicted = productSeconds(work, (c / 100) * H800.fp8, (m / 100) * H800.memory, launchSeconds);
          sum += Math.log(predicted / seconds) ** 2;
        }
        const deviation = Math.sqrt(sum / measured.length);
        if (deviation < best.deviation) {
          best = { productCompute: c / 100, productMemory: m / 100, launchSeconds, deviation };
        }
      }
    }
  }
  return best;
}

/** The other factors: means of what was measured, over the data-sheet figure. */
export function fitAttentionAndExchange() {
  const { flashmla, deepep } = kernels;
  const dense = [...flashmla.dense_compute_tflops.map(({ value }) => value), flashmla.sparse_prefill_tflops.value];
  const gigabytes = 1e9;
  // 16 devices are left out: forwarding inside the node binds there, not the link between nodes.
  const acrossNodes = deepep.throughput.rows.filter(([devices]) => devices! >= 32);
  const physical = acrossNodes.flatMap(([devices, dispatch, combine]) => {
    const elsewhere = 1 - H800.devicesPerNode / devices!;
    return [dispatch! * gigabytes * elsewhere, combine! * gigabytes * elsewhere];
  });
  const latency = deepep.latency.rows
    .filter(([devices]) => devices! >= 32)
    .flatMap(([devices, dispatch, combine]) => {
      const copies = deepep.latency.tokens * deepep.topK * (1 - H800.devicesPerNode / devices!);
      return [
        (copies * wireBytes(deepep.hidden, 'fp8')) / (dispatch! * 1e-6),
        (copies * wireBytes(deepep.hidden, 'bf16')) / (combine! * 1e-6),
      ];
    });
  const local = deepep.throughput.rows.filter(([devices]) => devices === 8).flatMap(([, a, b]) => [a!, b!]);
  return {
    attentionCompute: (mean(dense) * 1e12) / H800.bf16,
    sparseDecodeCompute: (flashmla.sparse_decode_tflops.value * 1e12) / H800.bf16,
    attentionMemory: (flashmla.dense_memory_gb_per_second.value * gigabytes) / H800.memory,
    exchangeThroughput: mean(physical) / H800.remote,
    exchangeLatency: mean(latency) / H800.remote,
    localLink: (mean(local) * gigabytes) / H800.local,
  };
}

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
