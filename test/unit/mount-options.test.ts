/** agent/container/mount-options.ts: options of config.json as flags of mount(2) and mount_setattr(2). */
import test from "ava";
import { knownOptions, planMount, rootPropagation } from "../../agent/container/mount-options.ts";
import { MOUNT_BIND, MOUNT_CGROUP, MOUNT_COPY_UP, MOUNT_RECURSIVE_BIND, MOUNT_REMOUNT, type PlanMount } from "../../agent/container/plan.ts";
import { failure } from "./helpers.ts";

function plan(options: string[], type = "tmpfs"): PlanMount {
  return planMount({ destination: "/x", source: "from", type, options });
}

test("a filesystem: flags, attributes, and the rest as its data", (t) => {
  t.deepEqual(plan(["nosuid", "noexec", "size=64k", "mode=755", "ro"]), {
    source: "from",
    target: "/x",
    type: "tmpfs",
    data: "size=64k,mode=755",
    flags: 2 | 8 | 1,
    attrSet: 2 | 8 | 1,
    attrClear: 0,
    recursiveAttrSet: 0,
    recursiveAttrClear: 0,
    propagation: [],
    options: 0,
  });
  const { source, data, flags } = planMount({ destination: "/x" });
  t.deepEqual([source, data, flags], ["", "", 0]);
});

test("the later of two options that contradict each other wins", (t) => {
  t.like(plan(["ro", "rw"]), { flags: 0, attrSet: 0, attrClear: 1 });
  t.like(plan(["rw", "ro"]), { flags: 1, attrSet: 1, attrClear: 0 });
  t.like(plan(["nodev", "dev", "nodev"]), { flags: 4, attrSet: 4, attrClear: 0 });
  t.like(plan(["sync", "async", "dirsync", "mand", "nomand"]), { flags: 128, data: "" });
});

test("access times are one field of several bits: it is cleared whole before it is set", (t) => {
  for (const [option, set] of [
    ["noatime", 0x10],
    ["strictatime", 0x20],
    ["relatime", 0],
  ] as const) {
    const { attrSet, attrClear } = plan([option]);
    t.deepEqual([attrSet, attrClear], [set, 0x70], option);
    t.like(plan(["noatime", option]), { attrSet: set, attrClear: 0x70 }, option);
    t.like(plan([`r${option}`]), { recursiveAttrSet: set, recursiveAttrClear: 0x70, flags: 0, attrSet: 0 }, option);
  }
  t.like(plan(["nodiratime"]), { attrSet: 0x80, attrClear: 0 });
});

test("recursive options are the mounts' below, too", (t) => {
  t.like(plan(["rro", "rnosuid", "rnosymfollow"], "bind"), { recursiveAttrSet: 1 | 2 | 0x200000, recursiveAttrClear: 0, attrSet: 0, data: "" });
  t.like(plan(["rro", "rrw"], "bind"), { recursiveAttrSet: 0, recursiveAttrClear: 1 });
});

test("binds, remounts, cgroups, copies", (t) => {
  t.is(plan([], "bind").options, MOUNT_BIND);
  t.is(plan(["bind"], "none").options, MOUNT_BIND);
  t.is(plan(["rbind", "ro"], "").options, MOUNT_BIND | MOUNT_RECURSIVE_BIND);
  t.is(plan(["bind", "remount", "ro"], "").options, MOUNT_BIND | MOUNT_REMOUNT);
  for (const type of ["cgroup", "cgroup2"]) t.is(plan([], type).options, MOUNT_CGROUP);
  t.is(plan(["tmpcopyup"]).options, MOUNT_COPY_UP);
  t.throws(() => plan(["tmpcopyup"], "bind"), failure("invalid", 'mount at "/x": tmpcopyup is for tmpfs only'));
});

test("propagation is kept in its order", (t) => {
  t.deepEqual(plan(["rslave", "shared"]).propagation, [(1 << 19) | 16_384, 1 << 20]);
  t.is(rootPropagation("rprivate"), (1 << 18) | 16_384);
  t.is(rootPropagation("unbindable"), 1 << 17);
  for (const name of [undefined, "", "toString"]) t.is(rootPropagation(name), 0);
});

test("words that Object has are data like any others", (t) => {
  const words = ["constructor", "toString", "__proto__", "rconstructor", "hasOwnProperty"];
  t.like(plan(words), { data: words.join(","), flags: 0, options: 0, propagation: [] });
});

test("every known option is understood: none of them is data", (t) => {
  const known = knownOptions();
  t.deepEqual(known, [...new Set(known)].sort());
  for (const name of ["ro", "rro", "bind", "rbind", "rprivate", "tmpcopyup", "defaults", "nosymfollow"]) t.true(known.includes(name), name);
  for (const option of known) t.is(plan([option]).data, "", option);
});
