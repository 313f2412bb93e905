/** The tokenizer of a run: a given one, or a byte-level BPE trained on the run's texts. */
import { mkdir } from 'node:fs/promises';
import type { ModelConfig } from '../model/config.ts';
import { loadTokenizer, type Tokenizer } from '../tokenizer/tokenizer.ts';
import { writeTokenizer } from '../tokenizer/write-tokenizer.ts';
import { SPLIT_PATTERN, trainBpe } from './bpe.ts';
import { TrainConfigError } from './train-config.ts';

const SPECIALS = ['<|bos|>', '<|eos|>', '<|pad|>', '<|user|>', '<|assistant|>', '<think>', '</think>'];
const CHAT_TEMPLATE =
  "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}<|assistant|>{{ message['content'] }}{{ eos_token }}" +
  "{% else %}<|user|>{{ message['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

/** @throws TrainConfigError when the folder has no tokenizer, or one with more tokens than the model has */
export async function openRunTokenizer(folder: string, model: ModelConfig): Promise<Tokenizer> {
  const tokenizer = await loadTokenizer(folder);
  if (tokenizer === null) throw new TrainConfigError(`data.tokenizer: ${folder} has no tokenizer.json`);
  if (tokenizer.vocabSize > model.vocabSize) {
    throw new TrainConfigError(
      `${folder}: ${tokenizer.vocabSize} tokens, expected at most the model's vocab_size (${model.vocabSize})`,
    );
  }
  return tokenizer;
}

/** Trains a tokenizer of the model's vocab_size on `texts` and writes it to `folder`. */
export async function makeRunTokenizer(folder: string, model: ModelConfig, texts: readonly string[]): Promise<void> {
  await mkdir(folder, { recursive: true });
  await writeTokenizer(folder, {
    ...trainBpe(texts, model.vocabSize, SPECIALS),
    splitPattern: SPLIT_PATTERN,
    specials: SPECIALS,
    shown: ['<think>', '</think>'],
    bos: SPECIALS[0]!,
    eos: SPECIALS[1]!,
    pad: SPECIALS[2]!,
    chatTemplate: CHAT_TEMPLATE,
    maxLength: model.maxPositionEmbeddings,
  });
}
