/**
 * The alphabet of byte-level BPE (GPT-2): every byte has a printable character that stands for it in vocabularies and
 * merges. Printable Latin-1 stands for itself, the other 68 bytes take the characters from U+0100 on, in order.
 */

/** Character of each byte. */
export const BYTE_CHARACTERS: readonly string[] = byteCharacters();

const BYTES = new Map(BYTE_CHARACTERS.map((character, byte) => [character, byte]));

/** The bytes that a token of a byte-level vocabulary stands for; null when it has a character outside the alphabet. */
export function bytesOfToken(token: string): Uint8Array | null {
  const bytes = new Uint8Array(token.length);
  for (let i = 0; i < token.length; i++) {
    const byte = BYTES.get(token[i]!);
    if (byte === undefined) return null;
    bytes[i] = byte;
  }
  return bytes;
}

function byteCharacters(): string[] {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    return String.fromCodePoint(printable ? byte : next++);
  });
}
