/**
 * A file from outside that is not what it claims to be. The message names the file and the part of it, what was
 * expected and what was found; commands and the server show it as it is. Subclasses say which kind of file.
 */
export class FormatError extends Error {
  override name = 'FormatError';
}
