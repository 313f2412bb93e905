/**
 * A file from outside that is not what it claims to be. The message names the file and the part of it, what was
 * expected and what was found; commands and the server show it as it is. Subclasses say which kind of file.
 */
export class FormatError extends Error {
  override name = 'FormatError';
}

const SHOWN_CHARACTERS = 60;

/** A value from a JSON file as a message shows it: as JSON, and only its beginning when it is long. */
export function shown(value: unknown): string {
  let text: string;
  try {
    text = JSON.stringify(value) ?? 'missing';
  } catch {
    return 'a value too deeply nested to show';
  }
  return text.length > SHOWN_CHARACTERS ? `${text.slice(0, SHOWN_CHARACTERS)}…` : text;
}
