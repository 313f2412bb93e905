/** Prometheus metrics of the engine, under vLLM's names where it has one. */
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { Engine } from '../engine/engine.ts';
import type { TextGeneration } from '../engine/text-generation.ts';

export interface Metrics {
  readonly contentType: string;
  text(): Promise<string>;
  /** Observes the latencies of an answer when it has ended. */
  follow(answer: TextGeneration): void;
}

const SECONDS = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];

export function createMetrics(engine: Engine, modelName: string): Metrics {
  const registry = new Registry();
  registry.setDefaultLabels({ model_name: modelName });
  const registers = [registry];
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  const counter = (name: string, help: string, read: () => number) =>
    new Counter({
      name,
      help,
      registers,
      collect() {
        this.reset();
        this.inc(read());
      },
    });
  const seconds = (name: string, help: string) => new Histogram({ name, help, buckets: SECONDS, registers });

  const status = () => engine.status();
  gauge('vllm:num_requests_running', 'Requests in the batch', () => status().running);
  gauge('vllm:num_requests_waiting', 'Requests waiting for a place in the batch', () => status().waiting);
  gauge('vllm:kv_cache_usage_perc', 'Share of cache blocks in use; 1 means all', () => {
    const { total, free } = status().blocks;
    return (total - free) / total;
  });
  const { cache, blocks } = status();
  new Gauge({
    name: 'vllm:cache_config_info',
    help: 'Type and size of the cache, as labels',
    labelNames: ['cache_dtype', 'block_size', 'num_cpu_blocks'],
    registers,
  }).set({ cache_dtype: cache.dtype, block_size: cache.blockTokens, num_cpu_blocks: blocks.total }, 1);
  gauge('farthing:cache_bytes_per_token', 'Bytes of cache for one token over all layers', () => cache.bytesPerToken);
  counter(
    'vllm:num_preemptions_total',
    'Requests interrupted for memory and resumed',
    () => status().counts.preemptions,
  );
  counter('vllm:prompt_tokens_total', 'Prompt tokens of admitted requests', () => status().counts.promptTokens);
  counter('vllm:generation_tokens_total', 'Tokens generated', () => status().counts.generatedTokens);
  counter(
    'vllm:prefix_cache_queries_total',
    'Prompt tokens looked up in the prefix cache',
    () => status().counts.promptTokens,
  );
  counter(
    'vllm:prefix_cache_hits_total',
    'Prompt tokens found in the prefix cache',
    () => status().counts.cachedPromptTokens,
  );
  const drafts = () => status().counts.drafts;
  counter('vllm:spec_decode_num_drafts_total', 'Times that drafts of a request were checked', () => drafts().drafts);
  counter('vllm:spec_decode_num_draft_tokens_total', 'Tokens drafted and checked', () => drafts().drafted);
  counter('vllm:spec_decode_num_accepted_tokens_total', 'Drafted tokens that were kept', () => drafts().accepted);
  new Counter({
    name: 'vllm:spec_decode_num_accepted_tokens_per_pos_total',
    help: 'Drafted tokens that were kept, by their place in the draft',
    labelNames: ['position'],
    registers,
    collect() {
      this.reset();
      for (const [position, kept] of drafts().acceptedByPlace.entries()) this.inc({ position }, kept);
    },
  });
  counter(
    'vllm:external_prefix_cache_hits_total',
    'Prompt tokens read from the disk cache, among those found in the prefix cache',
    () => status().counts.fetchedPromptTokens,
  );
  if (status().disk) {
    const disk = () => status().disk!;
    gauge('farthing:disk_cache_bytes', 'Size of the disk cache', () => disk().bytes);
    new Counter({
      name: 'farthing:disk_cache_blocks_total',
      help: 'Blocks of the disk cache by what became of them; damaged ones were not used',
      labelNames: ['event'],
      registers,
      collect() {
        this.reset();
        for (const [event, count] of Object.entries(disk().counts)) this.inc({ event }, count);
      },
    });
  }
  counter('farthing:steps_total', 'Steps of the model', () => status().counts.steps);
  new Counter({
    name: 'vllm:request_success_total',
    help: 'Finished requests by reason',
    labelNames: ['finished_reason'],
    registers,
    collect() {
      this.reset();
      const { finished } = status().counts;
      for (const reason of ['stop', 'length'] as const) this.inc({ finished_reason: reason }, finished[reason]);
      this.inc({ finished_reason: 'abort' }, finished.cancelled);
    },
  });
  const queue = seconds('vllm:request_queue_time_seconds', 'From arrival to the first step');
  const prefill = seconds('vllm:request_prefill_time_seconds', 'From the first step to the first token');
  const decode = seconds('vllm:request_decode_time_seconds', 'From the first token to the last');
  const ttft = seconds('vllm:time_to_first_token_seconds', 'From arrival to the first token');
  const tpot = seconds('vllm:request_time_per_output_token_seconds', 'Between tokens of an answer, on average');
  const whole = seconds('vllm:e2e_request_latency_seconds', 'From arrival to the last token');

  return {
    contentType: registry.contentType,
    text: () => registry.metrics(),
    async follow(answer) {
      await answer.ended;
      const { arrived, started, firstToken, finished } = answer.times;
      if (firstToken === 0) return;
      queue.observe((started - arrived) / 1000);
      prefill.observe((firstToken - started) / 1000);
      decode.observe((finished - firstToken) / 1000);
      ttft.observe((firstToken - arrived) / 1000);
      whole.observe((finished - arrived) / 1000);
      const { completionTokens } = answer.usage;
      if (completionTokens > 1) tpot.observe((finished - firstToken) / 1000 / (completionTokens - 1));
    },
  };
}
