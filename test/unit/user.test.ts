/** agent/container/user.ts: users of a container by name and number, in files that the container owns. */
import { mkdirSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { type ExecutionContext } from "ava";
import fc from "fast-check";
import { UserDatabase } from "../../agent/container/user.ts";
import { TskataError } from "../../src/base/errors.ts";
import { failure, runProgram, temporaryFolder } from "./helpers.ts";

const PASSWD = `root:x:0:0:root:/root:/bin/sh
# bob:x:1:1::/comment:/bin/sh

bob:x:1000:100:Bob:/home/bob:/bin/sh
1001:x:2000:200::/home/odd:
nogroup:x:1500
nohome:x:1600:160
empty:x::100::/:
wide:x:4294967296:0::/:
cut`;
const GROUP = `root:x:0:
users:x:100:
wheel:x:10:root,bob
audio:x:63:bob
bobs:x:64:bobby,notbob
bad:x::bob
worse:x:-1:bob
alone:x:77`;

function database(t: ExecutionContext, passwd: string | undefined = PASSWD, group: string | undefined = GROUP): UserDatabase {
  const root = temporaryFolder(t);
  mkdirSync(join(root, "etc"));
  writeFileSync(join(root, "etc/passwd"), passwd);
  writeFileSync(join(root, "etc/group"), group);
  return new UserDatabase(root);
}

test("numbers are taken as they are, whatever the files say", (t) => {
  const users = database(t);
  t.deepEqual(users.resolve({}), { uid: 0, gid: 0, groups: [] });
  t.deepEqual(users.resolve({ uid: 1000, gid: 5, additionalGids: [7, 8] }), { uid: 1000, gid: 5, groups: [7, 8] });
  t.deepEqual(users.resolve({ uid: 1000, username: "" }), { uid: 1000, gid: 0, groups: [] });
  t.deepEqual(users.resolve({ uid: 7, gid: 8, username: "bob" }), { uid: 7, gid: 8, groups: [] });
  t.deepEqual(users.resolve({ uid: 0, username: "nobody-has-it" }), { uid: 0, gid: 0, groups: [] });
});

test("a name gives uid, gid and the groups it is in", (t) => {
  const users = database(t);
  t.deepEqual(users.resolve({ username: "bob" }), { uid: 1000, gid: 100, groups: [10, 63] });
  t.deepEqual(users.resolve({ username: "root" }), { uid: 0, gid: 0, groups: [10] });
  t.deepEqual(users.resolve({ username: "bob", additionalGids: [5, 63] }), { uid: 1000, gid: 100, groups: [5, 63, 10] });
});

test("a group in the name is the only one, besides those asked for", (t) => {
  const users = database(t);
  t.deepEqual(users.resolve({ username: "bob:audio" }), { uid: 1000, gid: 63, groups: [] });
  t.deepEqual(users.resolve({ username: "bob:4242", additionalGids: [1] }), { uid: 1000, gid: 4242, groups: [1] });
  t.deepEqual(users.resolve({ username: "4242:wheel" }), { uid: 4242, gid: 10, groups: [] });
  t.deepEqual(users.resolve({ username: "bob:" }), { uid: 1000, gid: 100, groups: [] });
});

test("a number in the name: an entry of that name, then of that uid, then the number itself", (t) => {
  const users = database(t);
  t.deepEqual(users.resolve({ username: "1001" }), { uid: 2000, gid: 200, groups: [] });
  t.deepEqual(users.resolve({ username: "1000" }), { uid: 1000, gid: 100, groups: [10, 63] });
  t.deepEqual(users.resolve({ username: "31337", gid: 9 }), { uid: 31337, gid: 9, groups: [] });
});

test("who is not there", (t) => {
  const users = database(t);
  for (const name of ["alice", "bo", "cut", "#", "x"])
    t.throws(() => users.resolve({ username: name }), failure("invalid", `unable to find user ${name}: no matching entries in passwd file`));
  t.throws(() => users.resolve({ username: "bob:nogroup" }), failure("invalid", "unable to find group nogroup: no matching entries in group file"));
  t.throws(() => users.resolve({ username: ":root" }), failure("invalid", /^unable to find user :/));
});

test("nothing but digits is a number: no odd spelling and no empty field becomes root", (t) => {
  const users = database(t);
  for (const name of [" ", "\t0", "0x0", "0x10", "-0", "-1", "+0", "1e3", "0.0", "4294967296", "2147483648", "empty", "wide"])
    t.throws(() => users.resolve({ username: name }), failure("invalid", /^unable to find user/), name);
  for (const group of [" ", "0x0", "-1", "4294967296", "bad", "worse"])
    t.throws(() => users.resolve({ username: `bob:${group}` }), failure("invalid", /^unable to find group/), group);
});

test("entries that are cut short", (t) => {
  const users = database(t);
  t.deepEqual(users.resolve({ username: "nogroup", gid: 8 }), { uid: 1500, gid: 8, groups: [] });
  t.deepEqual(users.resolve({ username: "nohome:alone" }), { uid: 1600, gid: 77, groups: [] });
  t.is(users.home(1600), "/");
});

test("HOME is the first entry's of that uid, or /", (t) => {
  const users = database(t, `${PASSWD}\ntoor:x:0:0::/second:/bin/sh\nhomeless:x:3000:1:::`);
  t.is(users.home(0), "/root");
  t.is(users.home(1000), "/home/bob");
  t.is(users.home(3000), "/");
  t.is(users.home(9999), "/");
});

test("no files, no folder, a folder in a file's place", (t) => {
  const root = temporaryFolder(t);
  for (const users of [new UserDatabase(root), new UserDatabase("/no/such")]) {
    t.deepEqual(users.resolve({ username: "12:34" }), { uid: 12, gid: 34, groups: [] });
    t.is(users.home(0), "/");
    t.throws(() => users.resolve({ username: "root" }), failure("invalid", /^unable to find user root/));
  }
  mkdirSync(join(root, "etc/passwd"), { recursive: true });
  t.is(new UserDatabase(root).home(0), "/");
});

test("a FIFO holds nobody up, a huge file is not read, a link is not followed", async (t) => {
  const root = temporaryFolder(t);
  mkdirSync(join(root, "etc"));
  await runProgram("mkfifo", [join(root, "etc/passwd")]);
  writeFileSync(join(root, "etc/group"), GROUP);
  truncateSync(join(root, "etc/group"), 2 ** 40);
  const users = new UserDatabase(root);
  t.is(users.home(0), "/");
  t.deepEqual(users.resolve({ username: "5" }), { uid: 5, gid: 0, groups: [] });
  t.throws(() => users.resolve({ username: "5:wheel" }), failure("invalid", /^unable to find group wheel/));

  const linked = temporaryFolder(t);
  mkdirSync(join(linked, "etc"));
  symlinkSync("/etc/passwd", join(linked, "etc/passwd"));
  t.throws(() => new UserDatabase(linked).resolve({ username: "root" }), failure("invalid", /^unable to find user root/));
});

test("whatever is in the files and in the name: numbers of a user, or our error", (t) => {
  const field = fc.constantFrom("", "bob", "root", "0", "7", "-1", "x,bob", "bob,root", "99999999999", " ");
  const file = fc
    .array(
      fc.array(field, { maxLength: 6 }).map((fields) => fields.join(":")),
      { maxLength: 4 },
    )
    .map((lines) => lines.join("\n"));
  const valid = (id: number): boolean => Number.isInteger(id) && id >= 0 && id < 2 ** 31;
  const root = temporaryFolder(t);
  mkdirSync(join(root, "etc"));
  fc.assert(
    fc.property(
      file,
      file,
      fc.oneof(
        field,
        fc.tuple(field, field).map((parts) => parts.join(":")),
        fc.string(),
      ),
      (passwd, group, username) => {
        writeFileSync(join(root, "etc/passwd"), passwd);
        writeFileSync(join(root, "etc/group"), group);
        try {
          const { uid, gid, groups } = new UserDatabase(root).resolve({ username });
          t.true([uid, gid, ...groups].every(valid));
        } catch (error) {
          t.true(error instanceof TskataError && error.code === "invalid", String(error));
        }
      },
    ),
    { numRuns: 500 },
  );
});
