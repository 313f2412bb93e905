import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Model, openModel } from '../../src/model/load.ts';
import { createRunner, type Runner } from '../../src/model/runner.ts';
import { writeSafetensors } from '../../src/numerics/safetensors-writer.ts';

/** A real trained model; what llama2.c computes for it is in the fixture. See its README. */
const fixture = (name: string) => readFileSync(`test/fixtures/stories260k/${name}`);

/** llama2.c's file as a Hugging Face Llama checkpoint: pairs of rotary neighbours become halves. */
async function writeCheckpoint(folder: string): Promise<void> {
  const file = fixture('stories260K.bin');
  const data = file.buffer.slice(file.byteOffset, file.byteOffset + file.byteLength);
  const [dim, hidden, layers, heads, kvHeads, vocab, context] = [...new Int32Array(data, 0, 7)] as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const headDim = dim / heads;
  let at = 28;
  const take = (count: number) => {
    const values = new Float32Array(data, at, count);
    at += count * 4;
    return values;
  };
  const perLayer = (count: number) => Array.from({ length: layers }, () => take(count));
  /** Row 2i + p of a head goes to row p · headDim / 2 + i. */
  const halves = (rows: Float32Array) => {
    const out = new Float32Array(rows.length);
    for (let r = 0; r < rows.length / dim; r++) {
      const [head, inside] = [Math.floor(r / headDim), r % headDim];
      const to = head * headDim + (inside % 2) * (headDim / 2) + Math.floor(inside / 2);
      out.set(rows.subarray(r * dim, (r + 1) * dim), to * dim);
    }
    return out;
  };
  const embedding = take(vocab * dim);
  const attentionNorm = perLayer(dim);
  const wq = perLayer(dim * dim).map(halves);
  const wk = perLayer(kvHeads * headDim * dim).map(halves);
  const wv = perLayer(kvHeads * headDim * dim);
  const wo = perLayer(dim * dim);
  const feedForwardNorm = perLayer(dim);
  const w1 = perLayer(hidden * dim);
  const w2 = perLayer(dim * hidden);
  const w3 = perLayer(hidden * dim);
  const finalNorm = take(dim);
  const tensor = (name: string, shape: number[], values: Float32Array) => ({
    name,
    dtype: 'F32' as const,
    shape,
    bytes: new Uint8Array(values.slice().buffer),
  });
  await writeSafetensors(path.join(folder, 'model.safetensors'), [
    tensor('model.embed_tokens.weight', [vocab, dim], embedding),
    tensor('model.norm.weight', [dim], finalNorm),
    ...Array.from({ length: layers }, (_, i) => {
      const prefix = `model.layers.${i}`;
      return [
        tensor(`${prefix}.input_layernorm.weight`, [dim], attentionNorm[i]!),
        tensor(`${prefix}.self_attn.q_proj.weight`, [dim, dim], wq[i]!),
        tensor(`${prefix}.self_attn.k_proj.weight`, [kvHeads * headDim, dim], wk[i]!),
        tensor(`${prefix}.self_attn.v_proj.weight`, [kvHeads * headDim, dim], wv[i]!),
        tensor(`${prefix}.self_attn.o_proj.weight`, [dim, dim], wo[i]!),
        tensor(`${prefix}.post_attention_layernorm.weight`, [dim], feedForwardNorm[i]!),
        tensor(`${prefix}.mlp.gate_proj.weight`, [hidden, dim], w1[i]!),
        tensor(`${prefix}.mlp.down_proj.weight`, [dim, hidden], w2[i]!),
        tensor(`${prefix}.mlp.up_proj.weight`, [hidden, dim], w3[i]!),
      ];
    }).flat(),
  ]);
  const config = {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    vocab_size: vocab,
    hidden_size: dim,
    intermediate_size: hidden,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    max_position_embeddings: context,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    hidden_act: 'silu',
    tie_word_embeddings: true,
    attention_bias: false,
    bos_token_id: 1,
    eos_token_id: 2,
    torch_dtype: 'float32',
  };
  writeFileSync(path.join(folder, 'config.json'), JSON.stringify(config));
}

/** Text of ids with tok512.bin: pieces by id, byte tokens `<0xNN>` as bytes, no space after bos. */
function decode(ids: readonly number[]): string {
  const file = fixture('tok512.bin');
  const pieces: Buffer[] = [];
  for (let at = 4; at < file.length; ) {
    const length = file.readInt32LE(at + 4);
    pieces.push(file.subarray(at + 8, at + 8 + length));
    at += 8 + length;
  }
  const bytes = ids.map((id, i) => {
    const piece = pieces[id]!;
    const byte = /^<0x([0-9A-F]{2})>$/.exec(piece.toString('latin1'));
    if (byte) return Buffer.from([Number.parseInt(byte[1]!, 16)]);
    return i === 0 && piece[0] === 0x20 ? piece.subarray(1) : piece;
  });
  return Buffer.concat(bytes).toString('utf8');
}

const folder = mkdtempSync(path.join(os.tmpdir(), 'stories260k-'));
let model: Model;
let runner: Runner;
beforeAll(async () => {
  await writeCheckpoint(folder);
  model = await openModel(folder, { compute: 'f32' });
  runner = await createRunner(model, {
    tokens: 8,
    logits: 1,
    sequences: 1,
    blocks: 16,
    blockTokens: 16,
    blocksPerSequence: 16,
  });
});
afterAll(() => rmSync(folder, { recursive: true }));

test('a trained Llama computes the logits and tells the story that llama2.c does', async () => {
  const steps = JSON.parse(fixture('expected-logits.json').toString()) as {
    token: number;
    argmax: number;
    logits: number[];
  }[];
  const blocks = Array.from({ length: 16 }, (_, b) => b);
  const told: number[] = [];
  let token = 1;
  for (let position = 0; position < 200; position++) {
    const logits = await runner.step([{ ids: [token], start: position, blocks, logits: 1 }]);
    const step = steps[position];
    if (step) {
      expect(token).toBe(step.token);
      step.logits.forEach((logit, i) => void expect(Math.abs(logits[i]! - logit)).toBeLessThan(1e-3));
    }
    token = logits.indexOf(logits.reduce((a, b) => Math.max(a, b)));
    if (step) expect(token).toBe(step.argmax);
    if (token === 1) break;
    told.push(token);
  }
  expect(decode(told).trim()).toBe(fixture('expected-greedy-200.txt').toString().trim());
});
