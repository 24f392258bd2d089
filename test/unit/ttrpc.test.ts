/** src/control/ttrpc.ts: frames cut out of a byte stream, messages with their fields, error codes there and back. */
import test from "ava";
import fc from "fast-check";
import { TskataError } from "../../src/base/errors.ts";
import { encodeFrame, errorOf, type Frame, FrameReader, REQUEST, RESPONSE, Request, Response, statusOf } from "../../src/control/ttrpc.ts";
import { WireError } from "../../src/protocols/wire.ts";
import { failure } from "./helpers.ts";

const MAX_DATA = 4 * 1024 * 1024;

const anyFrame = fc.record<Frame>({
  stream: fc.integer({ min: 0, max: 0xffff_ffff }),
  type: fc.integer({ min: 0, max: 255 }),
  data: fc.uint8Array({ maxLength: 40 }),
});

function plain(frames: readonly Frame[]): unknown {
  return frames.map(({ stream, type, data }) => ({ stream, type, data: [...data] }));
}

test("a frame is length, stream, type and flags, big-endian", (t) => {
  t.is(encodeFrame({ stream: 0x01020304, type: REQUEST, data: Buffer.from("ab") }).toString("hex"), "00000002010203040100" + "6162");
  t.is(encodeFrame({ stream: 0xffff_ffff, type: RESPONSE, data: Buffer.alloc(0) }).toString("hex"), "00000000ffffffff0200");
});

test("however the bytes are split, the same frames come out", (t) => {
  fc.assert(
    fc.property(fc.array(anyFrame, { maxLength: 6 }), fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1 }), (frames, steps) => {
      const bytes = Buffer.concat(frames.map(encodeFrame));
      const reader = new FrameReader();
      const found: Frame[] = [];
      for (let at = 0, turn = 0; at < bytes.length; turn++) {
        const step = steps[turn % steps.length] ?? 1;
        found.push(...reader.push(bytes.subarray(at, at + step)));
        at += step;
      }
      t.deepEqual(plain(found), plain(frames));
    }),
  );
});

test("the largest frame passes, one byte more is refused on either side", (t) => {
  const data = Buffer.alloc(MAX_DATA, 7);
  const bytes = encodeFrame({ stream: 1, type: REQUEST, data });
  const [frame] = new FrameReader().push(bytes);
  t.is(frame?.data.length, MAX_DATA);
  t.throws(
    () => encodeFrame({ stream: 1, type: REQUEST, data: Buffer.alloc(MAX_DATA + 1) }),
    failure("limit", "a message of 4194305 bytes is larger than 4194304"),
  );
  const header = Buffer.from("00400001000000010100", "hex");
  t.throws(() => new FrameReader().push(header), failure("invalid", "a frame of 4194305 bytes is larger than 4194304"));
  t.deepEqual(new FrameReader().push(header.subarray(0, 9)), []);
});

test("requests and responses keep their fields", (t) => {
  const anyRequest = fc.record<Request>({
    service: fc.string(),
    method: fc.string(),
    payload: fc.uint8Array(),
    timeoutNano: fc.bigInt({ min: -(1n << 63n), max: (1n << 63n) - 1n }),
  });
  const anyStatus = fc.record({ code: fc.integer(), message: fc.string() });
  const anyResponse = fc.record<Response>({ status: fc.option(anyStatus, { nil: undefined }), payload: fc.uint8Array() });
  fc.assert(fc.property(anyRequest, (request) => void t.deepEqual(Request.decode(Request.encode(request)), request)));
  fc.assert(fc.property(anyResponse, (response) => void t.deepEqual(Response.decode(Response.encode(response)), response)));
});

test("fields of newer peers are passed over", (t) => {
  const metadata = Buffer.from("2a040a0261622001", "hex"); // field 5, a message, then timeoutNano
  t.deepEqual(Request.decode(Buffer.concat([Request.encode({ service: "s", method: "m" }), metadata])), {
    service: "s",
    method: "m",
    payload: new Uint8Array(0),
    timeoutNano: 1n,
  });
});

test("random bytes are a message or a WireError", (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), fc.constantFrom(Request, Response), (bytes, codec) => {
      try {
        codec.decode(bytes);
      } catch (error) {
        t.true(error instanceof WireError, String(error));
      }
    }),
    { numRuns: 2000 },
  );
  t.pass();
});

test("every error code survives the way; a foreign one is internal", (t) => {
  for (const code of ["invalid", "not-found", "exists", "limit", "wrong-state", "launch", "unsupported", "internal", "unavailable"] as const) {
    const error = errorOf(statusOf(code, "what happened"));
    t.true(error instanceof TskataError);
    t.deepEqual([error.code, error.message], [code, "what happened"]);
  }
  t.is(errorOf({ code: 16, message: "unauthenticated" }).code, "internal");
});
