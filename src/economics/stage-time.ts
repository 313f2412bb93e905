/**
 * Time of the stages of a layer on one device, by roofline: each kernel takes as long as its operations at the peak or
 * its bytes at the bandwidth, whichever is longer, of which real kernels reach the shares of kernel-efficiency.ts.
 */
import type { Architecture } from './architecture.ts';
import { attentionFlopPerPair, weightBytes } from './counts.ts';
import { type Deployment, expertsPerDevice } from './deployment.ts';
import { distinctExperts, exchangeBytes, wireBytes } from './expert-traffic.ts';

/** Where the seconds of a stage go; their sum is its time. */
export interface StageTime {
  compute: number;
  memory: number;
  link: number;
  launch: number;
}

export const RESOURCES = ['compute', 'memory', 'link', 'launch'] as const;
export type Resource = (typeof RESOURCES)[number];

export function stageSeconds({ compute, memory, link, launch }: StageTime): number {
  return compute + memory + link + launch;
}

export function addStage(sum: StageTime, stage: StageTime, factor = 1): void {
  sum.compute += stage.compute * factor;
  sum.memory += stage.memory * factor;
  sum.link += stage.link * factor;
  sum.launch += stage.launch * factor;
}

export const noTime = (): StageTime => ({ compute: 0, memory: 0, link: 0, launch: 0 });

/** What one device's group works on in one pass. */
export interface Pass {
  readonly phase: 'prefill' | 'decode';
  /** New tokens of the group of `tensorParallel` devices. */
  readonly rows: number;
  /** Sequences they belong to. */
  readonly sequences: number;
  /** Tokens that a new token looks back on, on average. */
  readonly context: number;
  /** Tokens of cached prefixes that are read along, for all sequences together; prefill only. */
  readonly prefixRows: number;
  /** Multiprocessors that compute while the all-to-all runs, as a share. */
  readonly computeShare: number;
}

/** Attention and what stands around it, of one layer. */
export function attentionStage(a: Architecture, d: Deployment, pass: Pass): StageTime {
  const time = noTime();
  const kernel = new Kernels(time, d, pass.computeShare);
  const { attention, hidden } = a;
  const { rows, sequences, context, prefixRows } = pass;
  const split = d.tensorParallel;
  // Residual and norm: read two, write two, quantised for what follows.
  kernel.move(rows * hidden * 8);
  if (attention.kind === 'mla') {
    const { qRank, kvRank, nopeDim, ropeDim, valueDim, indexer } = attention;
    const heads = attention.heads / split;
    kernel.product(rows, hidden, (qRank ?? heads * (nopeDim + ropeDim)) + kvRank + ropeDim);
    kernel.move(rows * ((qRank ?? 0) + kvRank) * 4);
    if (qRank !== null) kernel.product(rows, qRank, heads * (nopeDim + ropeDim));
    kernel.move(rows * heads * ropeDim * 4 + (rows * cacheOf(a, d)) / a.layers);
    if (indexer) {
      kernel.product(rows, qRank ?? hidden, indexer.heads * indexer.dim);
      kernel.product(rows, hidden, indexer.dim + indexer.heads);
    }
    const absorbed = pass.phase === 'decode' || (indexer !== null && sparsePays(a, context, indexer.topK));
    if (absorbed) {
      kernel.batched(heads, rows, nopeDim, kvRank);
      kernel.batched(heads, rows, kvRank, valueDim);
    } else {
      kernel.product(rows + prefixRows, kvRank, heads * (nopeDim + valueDim));
    }
    const seen = indexer && absorbed ? Math.min(context, indexer.topK) : context;
    const perPair = attentionFlopPerPair(a, absorbed ? 'absorbed' : 'expanded') / a.layers / split;
    const cache = cacheOf(a, d) / a.layers;
    const share =
      indexer && pass.phase === 'decode' ? d.machine.kernels.sparseDecodeCompute : d.machine.kernels.attentionCompute;
    // Chosen tokens are fetched for every query; a dense cache is read once for all queries of a sequence.
    const cacheRead = pass.phase === 'decode' ? (indexer ? rows : sequences) * seen * cache : 0;
    const activations = rows * heads * (absorbed ? 2 * kvRank + ropeDim : 2 * (nopeDim + ropeDim + valueDim)) * 2;
    kernel.attention(rows * seen * perPair, cacheRead + activations, share);
    if (indexer) {
      const keys = pass.phase === 'decode' ? sequences * context * (indexer.dim + 4) : 0;
      kernel.attentionInFp8(rows * context * 2 * indexer.heads * indexer.dim, keys);
    }
    kernel.move(rows * heads * valueDim * 3);
    kernel.product(rows, heads * valueDim, hidden);
  } else if (attention.kind === 'grouped') {
    const heads = attention.heads / split;
    const kvHeads = Math.max(1, attention.kvHeads / split);
    const { headDim } = attention;
    kernel.product(rows, hidden, (heads + 2 * kvHeads) * headDim);
    kernel.move(rows * (heads + 2 * kvHeads) * headDim * 4);
    const seen =
      attention.slidingWindow === null ? context : (context + Math.min(context, attention.slidingWindow)) / 2;
    const cacheRead = pass.phase === 'decode' ? sequences * seen * (cacheOf(a, d) / a.layers) : 0;
    kernel.attention(
      rows * seen * 4 * heads * headDim,
      cacheRead + rows * heads * headDim * 4,
      d.machine.kernels.attentionCompute,
    );
    kernel.move(rows * heads * headDim * 3);
    kernel.product(rows, heads * headDim, hidden);
  }
  return time;
}

/**
 * Whether prefill over chosen tokens in the latent space takes less than over all of them head by head: short prompts
 * are computed with a mask instead (V3.2 report §2.3).
 */
function sparsePays(a: Architecture, context: number, topK: number): boolean {
  return Math.min(context, topK) * attentionFlopPerPair(a, 'absorbed') < context * attentionFlopPerPair(a, 'expanded');
}

/** Router, shared and routed experts of one layer. */
export function expertStage(a: Architecture, d: Deployment, pass: Pass): StageTime {
  const time = noTime();
  const { experts, hidden } = a;
  if (!experts) return denseStage(a, d, pass);
  const kernel = new Kernels(time, d, pass.computeShare);
  const { rows } = pass;
  const { width, topK, routed } = experts;
  kernel.move(rows * hidden * 8);
  kernel.productInBf16(rows, hidden, routed);
  kernel.move(rows * routed * 4);
  const groups = d.devices / d.tensorParallel;
  const tokens = rows * groups;
  const splitWidth = d.expertParallel ? width : width / d.tensorParallel;
  const copies = d.expertParallel ? ((tokens * topK) / d.devices) * d.imbalance : rows * topK;
  const touched = (distinctExperts(experts, tokens) / routed) * expertsPerDevice(a, d);
  // Rows are gathered for each expert, and summed for each token afterwards.
  kernel.move(copies * hidden * 2 * weightBytes(d.precision));
  kernel.grouped(touched, copies, hidden, 2 * splitWidth);
  kernel.move(copies * splitWidth * (4 + weightBytes(d.precision)));
  kernel.grouped(touched, copies, splitWidth, hidden);
  kernel.move(copies * hidden * 4);
  if (experts.shared > 0) {
    const shared = (experts.shared * width) / d.tensorParallel;
    kernel.product(rows, hidden, 2 * shared);
    kernel.move(rows * shared * (4 + weightBytes(d.precision)));
    kernel.product(rows, shared, hidden);
  }
  return time;
}

/** The feed-forward block of a layer without experts. */
export function denseStage(a: Architecture, d: Deployment, pass: Pass): StageTime {
  const time = noTime();
  const kernel = new Kernels(time, d, pass.computeShare);
  const width = a.denseWidth / d.tensorParallel;
  kernel.move(pass.rows * a.hidden * 8);
  kernel.product(pass.rows, a.hidden, 2 * width);
  kernel.move(pass.rows * width * (4 + weightBytes(d.precision)));
  kernel.product(pass.rows, width, a.hidden);
  return time;
}

/** The output head, and the choice of a token. */
export function headStage(a: Architecture, d: Deployment, rows: number): StageTime {
  const time = noTime();
  const kernel = new Kernels(time, d, 1);
  const vocab = a.vocab / d.tensorParallel;
  kernel.productInBf16(rows, a.hidden, vocab);
  kernel.move(rows * vocab * 4);
  return time;
}

/**
 * What travels after attention and after the experts: the two all-to-alls where experts are spread, the two sums over
 * devices where weights are split, nothing where a device is alone.
 */
export function exchangeStages(a: Architecture, d: Deployment, pass: Pass): { out: StageTime; back: StageTime } {
  const out = noTime();
  const back = noTime();
  if (d.expertParallel && a.experts && d.devices > 1) {
    const kernel = pass.phase === 'prefill' ? 'throughput' : 'latency';
    const spread = { ...a, experts: a.experts };
    const { remote, local } = exchangeBytes(
      spread,
      { devices: d.devices, devicesPerNode: d.machine.devicesPerNode },
      kernel,
      d.precision,
    );
    // A group sends its tokens from all its devices.
    const rows = (pass.rows / d.tensorParallel) * d.imbalance;
    out.link = linkSeconds(d, rows * remote.dispatch, rows * local.dispatch, kernel);
    back.link = linkSeconds(d, rows * remote.combine, rows * local.combine, kernel);
  }
  if (d.tensorParallel > 1) {
    const sum = allReduceSeconds(d, pass.rows * wireBytes(a.hidden, 'bf16'));
    out.link += sum;
    back.link += sum;
  }
  return { out, back };
}

function linkSeconds(d: Deployment, remoteBytes: number, localBytes: number, kernel: 'throughput' | 'latency'): number {
  const { localLink, remoteLink, kernels } = d.machine;
  const share = kernel === 'throughput' ? kernels.exchangeThroughput : kernels.exchangeLatency;
  const remote =
    remoteBytes > 0 && remoteLink !== null ? remoteBytes / (remoteLink * share) + kernels.messageSeconds : 0;
  const local = localBytes > 0 && localLink !== null ? localBytes / (localLink * kernels.localLink) : 0;
  // The links work side by side.
  return Math.max(remote, local) + kernels.launchSeconds;
}

/** A sum over the devices of a group: within nodes by the fast link, then across by the slow one, each its share. */
function allReduceSeconds(d: Deployment, bytes: number): number {
  const { localLink, remoteLink, devicesPerNode, kernels } = d.machine;
  const inside = Math.min(d.tensorParallel, devicesPerNode);
  const nodes = d.tensorParallel / inside;
  let seconds = 2 * kernels.launchSeconds;
  if (inside > 1 && localLink !== null) seconds += (2 * bytes * (1 - 1 / inside)) / (localLink * kernels.localLink);
  if (nodes > 1 && remoteLink !== null) {
    seconds +=
      (2 * bytes * (1 - 1 / nodes)) / inside / (remoteLink * kernels.exchangeThroughput) + 2 * kernels.messageSeconds;
  }
  return seconds;
}

function cacheOf(a: Architecture, d: Deployment): number {
  const { attention } = a;
  if (attention.kind === 'mla') {
    const { kvRank, ropeDim } = attention;
    const latent =
      d.cache === 'fp8'
        ? kvRank + 4 * Math.ceil(kvRank / 128) + 2 * ropeDim
        : (kvRank + ropeDim) * (d.cache === 'bf16' ? 2 : 0.75);
    return a.layers * latent;
  }
  if (attention.kind !== 'grouped') return 0;
  const kvHeads = Math.max(1, attention.kvHeads / d.tensorParallel);
  return a.layers * 2 * kvHeads * attention.headDim * { bf16: 2, fp8: 1, int6: 0.75 }[d.cache];
}

/** Adds kernels to a stage's time, each to the resource that binds it. */
class Kernels {
  readonly #time: StageTime;
  readonly #bandwidth: number;
  readonly #attentionBandwidth: number;
  readonly #inPrecision: number;
  readonly #inBf16: number;
  readonly #attentionPeak: number;
  readonly #weightBytes: number;
  readonly #launchSeconds: number;

  constructor(time: StageTime, { machine, precision }: Deployment, computeShare: number) {
    const { kernels } = machine;
    const clock = machine.sustainedClock * computeShare * kernels.productCompute;
    this.#time = time;
    this.#bandwidth = machine.bandwidth * kernels.productMemory;
    this.#attentionBandwidth = machine.bandwidth * kernels.attentionMemory;
    this.#inPrecision = (precision === 'fp8' && machine.fp8 !== null ? machine.fp8 : machine.bf16) * clock;
    this.#inBf16 = machine.bf16 * clock;
    // Attention was measured under load: its factor holds the sustained clock already.
    this.#attentionPeak = machine.bf16 * computeShare;
    this.#weightBytes = weightBytes(precision);
    this.#launchSeconds = kernels.launchSeconds;
  }

  /** [rows, k] times [n, k] in the deployment's precision. */
  product(rows: number, k: number, n: number): void {
    this.grouped(1, rows, k, n);
  }

  productInBf16(rows: number, k: number, n: number): void {
    this.batched(1, rows, k, n);
  }

  /** The same rows for each head, with that head's own matrix, in BF16. */
  batched(heads: number, rows: number, k: number, n: number): void {
    const bytesIn = heads * (rows * k + k * n) * 2;
    this.#roofline(2 * heads * rows * k * n, bytesIn, 2 * heads * rows * n, this.#inBf16, this.#bandwidth);
  }

  /** Rows divided among the experts that they touch. */
  grouped(experts: number, rows: number, k: number, n: number): void {
    const bytesIn = (rows * k + experts * k * n) * this.#weightBytes;
    this.#roofline(2 * rows * k * n, bytesIn, 2 * rows * n, this.#inPrecision, this.#bandwidth);
  }

  attention(flop: number, bytes: number, share: number): void {
    this.#roofline(flop, bytes, 0, this.#attentionPeak * share, this.#attentionBandwidth);
  }

  attentionInFp8(flop: number, bytes: number): void {
    this.#roofline(flop, bytes, 0, this.#inPrecision, this.#attentionBandwidth);
  }

  /** An elementwise kernel. */
  move(bytes: number): void {
    this.#time.memory += bytes / this.#bandwidth;
    this.#time.launch += this.#launchSeconds;
  }

  #roofline(flop: number, bytesIn: number, bytesOut: number, peak: number, bandwidth: number): void {
    const compute = flop / peak;
    const reading = bytesIn / bandwidth;
    if (compute > reading) this.#time.compute += compute;
    else this.#time.memory += reading;
    this.#time.memory += bytesOut / bandwidth;
    this.#time.launch += this.#launchSeconds;
  }
}
