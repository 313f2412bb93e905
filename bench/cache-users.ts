/**
 * How many users with a context of 4,096 tokens run at once in the same cache memory, by the kind of attention: one latent
 * (MLA) against keys and values of 8 groups (GQA-8) and of every head (MHA), in models of the same size, depth, width and
 * heads. More requests are sent than can fit; those that the scheduler lets in together run to their end, without any being
 * set aside for memory. `npx tsx bench/cache-users.ts` (the medium shape, 1 GiB; about 5 minutes) or `--quick` (2 narrow
 * layers, contexts of 1,024, 32 MiB); `--context`, `--cache-mib`. Writes bench/results/cache-users.json.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { runnerLimits } from '../src/engine/cache-size.ts';
import { loadModel, modelReport, parseConfig } from '../src/index.ts';
import { SHAPES, writeRandomCheckpoint } from '../src/model/random-checkpoint.ts';
import { origin, writeResult } from './result-file.ts';

const quick = process.argv.includes('--quick');
const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean' },
    context: { type: 'string', default: quick ? '1024' : '4096' },
    'cache-mib': { type: 'string', default: quick ? '32' : '1024' },
  },
});
const context = Number(options.context);
const cacheBytes = Number(options['cache-mib']) * 2 ** 20;
const ANSWER_TOKENS = 64;
const REQUESTS = 128;

const latent = quick
  ? { ...SHAPES.medium, num_hidden_layers: 2, hidden_size: 256, moe_intermediate_size: 128, vocab_size: 2048 }
  : SHAPES.medium;
const size = modelReport(parseConfig(latent, 'MLA')).parameters;

/** A dense model with as many parameters as the latent one, what its experts have being in one wide layer. */
function denseLike(kvHeads: number): object {
  const { hidden_size, num_hidden_layers, num_attention_heads, vocab_size, v_head_dim } = latent as Record<
    string,
    number
  >;
  const config = (intermediate_size: number) => ({
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_size,
    num_hidden_layers,
    num_attention_heads,
    vocab_size,
    head_dim: v_head_dim,
    num_key_value_heads: kvHeads,
    intermediate_size,
    hidden_act: 'silu',
    initializer_range: 0.02,
    max_position_embeddings: 163840,
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    tie_word_embeddings: false,
    torch_dtype: 'bfloat16',
  });
  const parameters = (width: number) => modelReport(parseConfig(config(width), 'dense')).parameters;
  const perColumn = (parameters(256) - parameters(128)) / 128;
  return config(128 * Math.round((128 + (size - parameters(128)) / perColumn) / 128));
}

const kinds = { MLA: latent, 'GQA-8': denseLike(8), MHA: denseLike(16) };
const from = origin();
const rows: object[] = [];
console.log(
  `${cacheBytes / 2 ** 20} MiB of cache, contexts of ${context} tokens\n` +
    'attention   parameters   cache per token   users, predicted   users, run',
);
for (const [kind, config] of Object.entries(kinds)) {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'farthing-users-'));
  await writeRandomCheckpoint(folder, config, { dtype: 'fp8', seed: 1 });
  const row = await usersAtOnce(folder);
  await rm(folder, { recursive: true, force: true });
  rows.push({ kind, ...row });
  console.log(
    `${kind.padEnd(12)}${`${(row.parameters / 1e6).toFixed(0)}M`.padStart(10)}${`${row.cacheBytesPerToken} B`.padStart(18)}` +
      `${String(row.predicted).padStart(19)}${String(row.users).padStart(13)}`,
  );
  await writeResult('cache-users', from, { context, cacheBytes, rows });
}

async function usersAtOnce(folder: string) {
  const model = await loadModel(folder, { sequences: REQUESTS, cacheBytes });
  const { parameters, cacheBytesPerToken } = modelReport(model.config);
  const { blocks, blockTokens } = runnerLimits(model.config, model.engine.status().cache.dtype, {
    sequences: REQUESTS,
    cacheBytes,
  });
  const sampling = { temperature: 0, topP: 1, topK: 0, seed: 0 };
  const requests = Array.from({ length: REQUESTS }, (_, user) => {
    const prompt = Array.from(
      { length: context - ANSWER_TOKENS },
      (_, i) => ((i + 1) * (user + 1) * 7919 + 13) % model.config.vocabSize,
    );
    return { prompt, maxTokens: ANSWER_TOKENS, sampling, stopTokens: new Set<number>(), topLogprobs: null };
  });
  const generations = requests.map((request) => model.engine.submit(request));
  const finish = async (generation: (typeof generations)[number]) => {
    for await (const _ of generation);
  };
  const [first, ...others] = generations;
  const answered = others.map(finish);
  let users = 0;
  for await (const _ of first!) {
    if (users === 0) {
      users = model.engine.status().running;
      // the rest would only run after these
      for (const waiting of generations.slice(users)) waiting.cancel();
    }
  }
  await Promise.all(answered);
  const { preemptions, finished } = model.engine.status().counts;
  if (preemptions > 0 || finished.length !== users) {
    throw new Error(`${preemptions} requests were set aside and ${finished.length} of ${users} finished`);
  }
  await model.close();
  return {
    parameters,
    cacheBytesPerToken: cacheBytesPerToken.model,
    predicted: Math.floor(blocks / Math.ceil(context / blockTokens)),
    users,
  };
}
