/**
 * What each token id stands for, as bytes: the decoder of a tokenizer.json worked out once. Two kinds are known, which
 * the DeepSeek, Qwen and Llama families use: byte-level (GPT-2) and SentencePiece with byte fall-back.
 */
import { shown } from '../numerics/format-error.ts';
import { bytesOfToken } from './byte-alphabet.ts';
import { TokenizerError, type TokenizerFile } from './tokenizer-file.ts';

export interface TokenBytes {
  /** By id; undefined where no token has the id. */
  readonly bytes: readonly (Uint8Array | undefined)[];
  /** Whether the space that begins a text is dropped. */
  readonly dropsFirstSpace: boolean;
}

/** @throws TokenizerError when the decoder is of neither kind */
export function tokenBytes({ vocabulary, added_tokens, decoder }: TokenizerFile, folder: string): TokenBytes {
  const stages = decoder?.type === 'Sequence' && Array.isArray(decoder.decoders) ? decoder.decoders : [decoder];
  const kinds = stages.map((stage) => stage?.type);
  const byteLevel = kinds.includes('ByteLevel');
  if (!byteLevel && !kinds.includes('ByteFallback') && !kinds.includes('Metaspace')) {
    throw new TokenizerError(
      `${folder}/tokenizer.json: "decoder": expected ByteLevel, Metaspace or ByteFallback, found ${shown(decoder)}`,
    );
  }
  const utf8 = new TextEncoder();
  const ofToken = (token: string) =>
    (byteLevel ? bytesOfToken(token) : byteOfFallback(token)) ?? utf8.encode(spaced(token));
  const spaced = (token: string) => (byteLevel ? token : token.replaceAll('\u2581', ' '));

  const bytes: (Uint8Array | undefined)[] = [];
  for (const [token, id] of vocabulary) bytes[id] = ofToken(token);
  for (const { content, id } of added_tokens) bytes[id] = utf8.encode(content);
  const strips = stages.some((stage) => stage?.type === 'Strip' && stage.content === ' ' && stage.start > 0);
  return { bytes, dropsFirstSpace: strips || kinds.includes('Metaspace') };
}

/** `<0x0A>` is the byte 10. */
function byteOfFallback(token: string): Uint8Array | null {
  const hex = /^<0x([0-9A-F]{2})>$/.exec(token)?.[1];
  return hex === undefined ? null : Uint8Array.of(Number.parseInt(hex, 16));
}
