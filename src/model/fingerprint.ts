/** A digest of everything a checkpoint holds: equal ones are the same model, wherever and whenever they were written. */
import { createHash, webcrypto } from 'node:crypto';
import type { Checkpoint } from './checkpoint.ts';

const PIECE_BYTES = 16 * 2 ** 20;
/** Pieces digested at a time, on Node's threads. */
const AT_ONCE = 4;

/**
 * SHA-256, in hexadecimal, over configuration, names, types, shapes and every byte of every weight. Reads all of them:
 * about a second for each gigabyte and thread.
 */
export async function fingerprint(checkpoint: Checkpoint): Promise<string> {
  const hash = createHash('sha256').update(JSON.stringify(checkpoint.config));
  for (const name of [...checkpoint.names].sort()) {
    const { dtype, shape, bytes, scales } = checkpoint.tensor(name);
    hash.update(JSON.stringify([name, dtype, shape]));
    if (scales) hash.update(scales);
    for (const digest of await digestsOfPieces(bytes)) hash.update(digest);
  }
  return hash.digest('hex');
}

async function digestsOfPieces(bytes: Uint8Array): Promise<Uint8Array[]> {
  const digests: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += AT_ONCE * PIECE_BYTES) {
    const pieces = Array.from({ length: AT_ONCE }, (_, i) => at + i * PIECE_BYTES).filter(
      (from) => from < bytes.length,
    );
    const digested = await Promise.all(
      pieces.map((from) => webcrypto.subtle.digest('SHA-256', bytes.subarray(from, from + PIECE_BYTES))),
    );
    digests.push(...digested.map((digest) => new Uint8Array(digest)));
  }
  return digests;
}
