/**
 * The prefix cache's tier on disk: full cache blocks as files, found again by the tokens they hold, in this process or
 * after a restart. DeepSeek calls this context caching on disk.
 *
 * A file is named after the SHA-256 of its identity (model, numerics, block size), tenant and all tokens up to its
 * end, and holds a header, the tokens of the block, the content and a SHA-256 of all that. Nothing in it is trusted
 * before digest, identity, preceding prefix and tokens have been compared, so what a kill, a full disk or a stranger
 * left there is never used.
 */
import { createHash, randomBytes, webcrypto } from 'node:crypto';
import { mkdir, open, readdir, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

export interface DiskCacheOptions {
  readonly folder: string;
  /** Most bytes of all files in it, those of other models included. */
  readonly bytes: number;
  /** Digest, in hexadecimal, of all that decides what a block of some tokens holds. */
  readonly identity: string;
  readonly blockTokens: number;
  readonly blockBytes: number;
  /** Told, in a sentence, of what was found damaged or could not be done. */
  readonly warn: (problem: string) => void;
}

/** Digest, in hexadecimal, of a prefix: identity, tenant and tokens. */
export type PrefixKey = string;

/** A block of tokens and the prefix that it continues. */
export interface BlockPlace {
  readonly before: PrefixKey;
  readonly tokens: ArrayLike<number>;
}

export interface DiskCacheStatus {
  readonly bytes: number;
  /** Since it was opened. `dropped`: not written because too much was being written already. */
  readonly counts: Readonly<Record<'read' | 'written' | 'evicted' | 'dropped' | 'damaged' | 'failed', number>>;
}

const MAGIC = Buffer.from('FARTHING CACHE 1');
const DIGEST_BYTES = 32;
const TOKENS_AT = MAGIC.length + 2 * DIGEST_BYTES;
const NAME = /^[0-9a-f]{16}-[0-9a-f]{64}\.block$/;
const PART = /^[0-9a-f]{16}-[0-9a-f]{64}\.[0-9a-f]{12}\.part$/;
/** Content that waits in memory to be written; beyond it blocks are dropped. */
const MOST_PENDING_BYTES = 256 * 2 ** 20;
const FILES_AT_ONCE = 64;

/**
 * Invariants: a name ending in .block is given only to a whole file, in one step; the files known never exceed the
 * limit, least recently used ones going first; what `read` returns is what was written for the same tokens.
 */
export class DiskCache {
  readonly #options: DiskCacheOptions;
  readonly #prefix: string;
  readonly #fileBytes: number;
  /** Sizes by file name, least recently used first; those of other models too, as they share the limit. */
  readonly #files = new Map<string, number>();
  /** Names of files that wait to be written or are being written, one at a time. */
  readonly #pending = new Set<string>();
  #writing: Promise<void> = Promise.resolve();
  readonly #counts = { read: 0, written: 0, evicted: 0, dropped: 0, damaged: 0, failed: 0 };
  #bytes = 0;
  #failing = false;

  private constructor(options: DiskCacheOptions) {
    this.#options = options;
    this.#prefix = options.identity.slice(0, 16);
    this.#fileBytes = TOKENS_AT + 4 * options.blockTokens + options.blockBytes + DIGEST_BYTES;
  }

  /**
   * Opens the folder, made if it is not there, and looks at what earlier runs left in it.
   * @throws Error when the folder cannot be used; RangeError when the limit is below one block
   */
  static async open(options: DiskCacheOptions): Promise<DiskCache> {
    const cache = new DiskCache(options);
    if (cache.#fileBytes > options.bytes) {
      throw new RangeError(`a disk cache of ${options.bytes} bytes is too small: one block takes ${cache.#fileBytes}`);
    }
    // Whoever can read the cache learns what users wrote.
    await mkdir(options.folder, { recursive: true, mode: 0o700 });
    await cache.#scan();
    return cache;
  }

  /** Where the prefixes of a tenant begin. Different tenants share nothing. */
  root(tenant: string): PrefixKey {
    return createHash('sha256').update(this.#options.identity).update('\n').update(tenant).digest('hex');
  }

  after({ before, tokens }: BlockPlace): PrefixKey {
    return createHash('sha256').update(before, 'hex').update(Int32Array.from(tokens)).digest('hex');
  }

  has(key: PrefixKey): boolean {
    return this.#files.has(this.#nameOf(key));
  }

  /** The content of a block; null when it is not there, or not whole, which is reported, and removed. */
  async read(place: BlockPlace): Promise<Uint8Array | null> {
    const name = this.#nameOf(this.after(place));
    if (!this.#files.has(name)) return null;
    const file = await this.#readFile(name);
    if (file === null) return null;
    const problem = await this.#problemWith(file, place);
    if (problem !== null) {
      this.#counts.damaged++;
      this.#options.warn(`${name} in ${this.#options.folder}: ${problem}. It is not used, and removed`);
      await this.#remove(name);
      return null;
    }
    this.#counts.read++;
    this.#use(name);
    const now = new Date();
    utimes(join(this.#options.folder, name), now, now).catch(() => this.#forget(name));
    return file.subarray(TOKENS_AT + 4 * this.#options.blockTokens, -DIGEST_BYTES);
  }

  /** Writes a block behind, unless it is there or too much waits already; `fill` gives the content, at once. */
  write(place: BlockPlace, fill: (content: Uint8Array) => void): void {
    const name = this.#nameOf(this.after(place));
    if (this.#files.has(name) || this.#pending.has(name)) return;
    if ((this.#pending.size + 1) * this.#fileBytes > Math.max(MOST_PENDING_BYTES, this.#fileBytes)) {
      this.#counts.dropped++;
      return;
    }
    const file = Buffer.allocUnsafe(this.#fileBytes);
    file.set(MAGIC);
    file.write(this.#options.identity, MAGIC.length, 'hex');
    file.write(place.before, MAGIC.length + DIGEST_BYTES, 'hex');
    file.set(bytesOf(place.tokens), TOKENS_AT);
    fill(file.subarray(TOKENS_AT + 4 * this.#options.blockTokens, -DIGEST_BYTES));
    this.#pending.add(name);
    this.#writing = this.#writing.then(async () => {
      await this.#store(name, file);
      this.#pending.delete(name);
    });
  }

  /** Marks prefixes as just used, the last as the one used longest ago. */
  touch(keys: readonly PrefixKey[]): void {
    for (const key of [...keys].reverse()) this.#use(this.#nameOf(key));
  }

  status(): DiskCacheStatus {
    return { bytes: this.#bytes, counts: { ...this.#counts } };
  }

  /** Returns when everything taken to be written is written. */
  async close(): Promise<void> {
    await this.#writing;
  }

  #nameOf(key: PrefixKey): string {
    return `${this.#prefix}-${key}.block`;
  }

  #use(name: string): void {
    const bytes = this.#files.get(name);
    if (bytes === undefined) return;
    this.#files.delete(name);
    this.#files.set(name, bytes);
  }

  async #scan(): Promise<void> {
    const { folder, warn } = this.#options;
    const names = await readdir(folder);
    const known = names.filter((name) => NAME.test(name));
    // A run that was killed leaves the file it was writing.
    const parts = names.filter((name) => PART.test(name));
    await Promise.all(parts.map((name) => rm(join(folder, name), { force: true })));
    const strangers = names.length - known.length - parts.length;
    if (strangers > 0) warn(`${folder}: files that are no cache blocks (${strangers}) are left alone`);
    const found: { name: string; bytes: number; used: number }[] = [];
    for (let at = 0; at < known.length; at += FILES_AT_ONCE) {
      await Promise.all(
        known.slice(at, at + FILES_AT_ONCE).map(async (name) => {
          const status = await stat(join(folder, name)).catch(() => null);
          if (status) found.push({ name, bytes: status.size, used: status.mtimeMs });
        }),
      );
    }
    found.sort((a, b) => a.used - b.used);
    for (const { name, bytes } of found) {
      this.#files.set(name, bytes);
      this.#bytes += bytes;
    }
    await this.#makeRoom(0);
  }

  async #readFile(name: string): Promise<Buffer | null> {
    try {
      const file = await open(join(this.#options.folder, name), 'r');
      try {
        const { size } = await file.stat();
        // A file of another size is damaged: nothing of it is read but that.
        if (size !== this.#fileBytes) return Buffer.alloc(0);
        const content = Buffer.allocUnsafe(size);
        const { bytesRead } = await file.read(content, 0, size, 0);
        return content.subarray(0, bytesRead);
      } finally {
        await file.close();
      }
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      // Another server on the same folder may have removed it.
      if (code !== 'ENOENT') this.#fail(`${name} could not be read: ${message}`);
      this.#forget(name);
      return null;
    }
  }

  /** What is wrong with a file that should hold the block; null when nothing is. */
  async #problemWith(file: Buffer, { before, tokens }: BlockPlace): Promise<string | null> {
    if (file.length !== this.#fileBytes) return `is not ${this.#fileBytes} bytes long`;
    const digest = Buffer.from(await webcrypto.subtle.digest('SHA-256', file.subarray(0, -DIGEST_BYTES)));
    if (!digest.equals(file.subarray(-DIGEST_BYTES))) return 'is damaged: its checksum is not that of its content';
    const header = Buffer.concat([MAGIC, Buffer.from(this.#options.identity, 'hex'), Buffer.from(before, 'hex')]);
    if (!header.equals(file.subarray(0, TOKENS_AT))) return 'belongs to another model, numerics or beginning';
    const same = bytesOf(tokens).equals(file.subarray(TOKENS_AT, TOKENS_AT + 4 * this.#options.blockTokens));
    return same ? null : 'holds other tokens than its name says';
  }

  async #store(name: string, file: Buffer): Promise<void> {
    const { folder } = this.#options;
    const aside = join(folder, name.replace(/block$/, `${randomBytes(6).toString('hex')}.part`));
    try {
      const digest = await webcrypto.subtle.digest('SHA-256', file.subarray(0, -DIGEST_BYTES));
      file.set(new Uint8Array(digest), file.length - DIGEST_BYTES);
      await this.#makeRoom(file.length);
      // Not flushed to the disk: should the power fail, the checksum tells.
      await writeFile(aside, file, { mode: 0o600 });
      await rename(aside, join(folder, name));
      this.#files.set(name, file.length);
      this.#bytes += file.length;
      this.#counts.written++;
      this.#failing = false;
    } catch (error) {
      await rm(aside, { force: true }).catch(() => {});
      this.#fail(`a block could not be written: ${(error as Error).message}`);
    }
  }

  /** Removes what was used longest ago until `bytes` more keep within the limit. */
  async #makeRoom(bytes: number): Promise<void> {
    while (this.#bytes + bytes > this.#options.bytes) {
      const [oldest] = this.#files.keys();
      if (oldest === undefined) return;
      this.#counts.evicted++;
      await this.#remove(oldest);
    }
  }

  async #remove(name: string): Promise<void> {
    this.#forget(name);
    await rm(join(this.#options.folder, name), { force: true }).catch((error: Error) => {
      this.#fail(`${name} could not be removed: ${error.message}`);
    });
  }

  #forget(name: string): void {
    this.#bytes -= this.#files.get(name) ?? 0;
    this.#files.delete(name);
  }

  /** Says so once until something is written again. */
  #fail(problem: string): void {
    this.#counts.failed++;
    if (!this.#failing) this.#options.warn(`disk cache ${this.#options.folder}: ${problem}`);
    this.#failing = true;
  }
}

function bytesOf(tokens: ArrayLike<number>): Buffer {
  return Buffer.from(Int32Array.from(tokens).buffer);
}
