/**
 * The protobuf wire format (protobuf.dev/programming-guides/encoding): what generated code is made of.
 *
 * Both ends parse what the other side of an isolation boundary wrote, so the reader trusts nothing: every length is
 * checked against what is there, nesting is bounded, and text must be UTF-8. 64-bit integers are bigint.
 */

/** One message type: how it is made, written and read. */
export interface Codec<T> {
  readonly name: string;
  /** Fields that are left out have proto3's defaults. */
  encode(message: Partial<T>): Uint8Array;
  decode(bytes: Uint8Array): T;
  /** Writes the fields without a length before them. */
  write(message: Partial<T>, writer: WireWriter): void;
  read(reader: WireReader): T;
}

/** One call of a service. */
export interface Method<Request, Response> {
  /** Full name of the service: "tskata.agent.v1.Sandbox". */
  readonly service: string;
  readonly name: string;
  readonly responseStream: boolean;
  readonly request: Codec<Request>;
  readonly response: Codec<Response>;
}

export class WireError extends Error {
  override readonly name = "WireError";
}

const MAX_DEPTH = 32;
const VARINT = 0;
const FIXED64 = 1;
const LENGTH = 2;
const FIXED32 = 5;

const utf8Encoder = new TextEncoder();
// A string may begin with U+FEFF: it is the sender's, not a mark to take off.
const utf8Decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export class WireReader {
  #position = 0;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #depth: number;

  constructor(bytes: Uint8Array, depth = 0) {
    if (depth > MAX_DEPTH) throw new WireError(`messages nest deeper than ${MAX_DEPTH}`);
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#depth = depth;
  }

  /** The next field's tag (number << 3 | wire type), or 0 at the end. */
  tag(): number {
    if (this.#position === this.#bytes.length) return 0;
    const tag = this.#varint32();
    if (tag >>> 3 === 0) throw new WireError("field number 0");
    return tag;
  }

  uint32(): number {
    return this.#varint32();
  }

  int32(): number {
    return this.#varint32() | 0;
  }

  bool(): boolean {
    return this.uint64() !== 0n;
  }

  uint64(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.#byte();
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asUintN(64, value);
    }
    throw new WireError("varint longer than 10 bytes");
  }

  int64(): bigint {
    return BigInt.asIntN(64, this.uint64());
  }

  double(): number {
    const at = this.#skip(8);
    return this.#view.getFloat64(at, true);
  }

  /** A view into the message, not a copy. */
  bytes(): Uint8Array {
    const length = this.#varint32();
    const at = this.#skip(length);
    return this.#bytes.subarray(at, at + length);
  }

  string(): string {
    const bytes = this.bytes();
    try {
      return utf8Decoder.decode(bytes);
    } catch (cause) {
      throw new WireError("text is not UTF-8", { cause });
    }
  }

  message<T>(codec: Codec<T>): T {
    return codec.read(new WireReader(this.bytes(), this.#depth + 1));
  }

  /** One entry of a map<string, string>. */
  stringEntry(map: Map<string, string>): void {
    const entry = new WireReader(this.bytes(), this.#depth + 1);
    let key = "";
    let value = "";
    for (let tag = entry.tag(); tag !== 0; tag = entry.tag()) {
      if (tag === ((1 << 3) | LENGTH)) key = entry.string();
      else if (tag === ((2 << 3) | LENGTH)) value = entry.string();
      else entry.skipField(tag);
    }
    map.set(key, value);
  }

  /** Passes over a field this version does not know. */
  skipField(tag: number): void {
    switch (tag & 7) {
      case VARINT:
        this.uint64();
        return;
      case FIXED64:
        this.#skip(8);
        return;
      case LENGTH:
        this.#skip(this.#varint32());
        return;
      case FIXED32:
        this.#skip(4);
        return;
      default:
        throw new WireError(`wire type ${tag & 7} of field ${tag >>> 3}`);
    }
  }

  /** The low 32 bits of a varint: negative int32 values come as ten bytes. */
  #varint32(): number {
    let value = 0;
    for (let index = 0; index < 10; index++) {
      const byte = this.#byte();
      if (index < 5) value |= (byte & 0x7f) << (index * 7);
      if (byte < 0x80) return value >>> 0;
    }
    throw new WireError("varint longer than 10 bytes");
  }

  #byte(): number {
    return this.#bytes[this.#skip(1)] as number;
  }

  /** Moves on by `length` bytes that must be there and returns where they begin. */
  #skip(length: number): number {
    const at = this.#position;
    if (length > this.#bytes.length - at) throw new WireError("message is cut short");
    this.#position = at + length;
    return at;
  }
}

export class WireWriter {
  #bytes = new Uint8Array(256);
  #length = 0;

  finish(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  tag(tag: number): this {
    return this.uint32(tag);
  }

  uint32(value: number): this {
    let rest = value >>> 0;
    this.#reserve(5);
    while (rest > 0x7f) {
      this.#bytes[this.#length++] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    this.#bytes[this.#length++] = rest;
    return this;
  }

  int32(value: number): this {
    return value < 0 ? this.uint64(BigInt.asUintN(64, BigInt(value | 0))) : this.uint32(value);
  }

  bool(value: boolean): this {
    return this.uint32(value ? 1 : 0);
  }

  uint64(value: bigint): this {
    let rest = BigInt.asUintN(64, value);
    this.#reserve(10);
    while (rest > 0x7fn) {
      this.#bytes[this.#length++] = Number(rest & 0x7fn) | 0x80;
      rest >>= 7n;
    }
    this.#bytes[this.#length++] = Number(rest);
    return this;
  }

  int64(value: bigint): this {
    return this.uint64(value);
  }

  double(value: number): this {
    this.#reserve(8);
    new DataView(this.#bytes.buffer).setFloat64(this.#length, value, true);
    this.#length += 8;
    return this;
  }

  bytes(value: Uint8Array): this {
    this.uint32(value.length);
    this.#reserve(value.length);
    this.#bytes.set(value, this.#length);
    this.#length += value.length;
    return this;
  }

  string(value: string): this {
    return this.bytes(utf8Encoder.encode(value));
  }

  message<T>(codec: Codec<T>, message: T): this {
    return this.bytes(codec.encode(message));
  }

  /** One field a map entry, as repeated messages {1: key, 2: value}. */
  stringMap(tag: number, map: ReadonlyMap<string, string>): this {
    for (const [key, value] of map) {
      const entry = new WireWriter();
      entry.tag((1 << 3) | LENGTH).string(key);
      entry.tag((2 << 3) | LENGTH).string(value);
      this.tag(tag).bytes(entry.finish());
    }
    return this;
  }

  #reserve(count: number): void {
    if (this.#length + count <= this.#bytes.length) return;
    const larger = new Uint8Array(Math.max(this.#bytes.length * 2, this.#length + count));
    larger.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = larger;
  }
}

/** What a generated codec is built from: its two directions over the wire primitives. */
export function defineCodec<T>(name: string, write: (message: Partial<T>, writer: WireWriter) => void, read: (reader: WireReader) => T): Codec<T> {
  return {
    name,
    write,
    read,
    encode(message) {
      const writer = new WireWriter();
      write(message, writer);
      return writer.finish();
    },
    decode(bytes) {
      return read(new WireReader(bytes));
    },
  };
}
