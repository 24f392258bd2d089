/** All cells, and the few of them that every test run does. */
import { type Cell, killCells } from "./cell.ts";
import { specialCells } from "./special.ts";

export function allCells(): Cell[] {
  return [...killCells(), ...specialCells()];
}

/** One of each kind, and what was found to leak or hang before. */
const SHORT = [
  'create: kill -9 cli at cli "make the cgroup" end, then delete',
  'create: kill -9 cli at cli "start sandbox process" end, then gc',
  'create: kill -9 sandbox at sandbox "close the jail" end, then gc',
  'create: kill -9 hypervisor at sandbox "boot until the agent listens" begin, then delete',
  'create: kill -9 proxy at cli "create in the guest" begin, then delete',
  'exec: kill -9 cli at cli "exec in the guest" begin, then delete',
  'delete: kill -9 cli at cli "remove the cgroups" end, then gc',
  'delete: kill -9 sandbox at sandbox "stop the virtual machine" begin, then delete',
  "full disk: --root with size=12k, then delete",
  "full disk: --root with nr_inodes=12, then gc",
  "no memory: 64 MiB for command and pod, then delete",
  "no descriptors: 12 for command and pod, then gc",
  "no descriptors: 24 for command and pod, then delete",
  "no descriptors: 56 for command and pod, then gc",
  "no descriptors: 64 for command and pod, then delete",
  "no descriptors: 96 for command and pod, then delete",
  "reboot: of a running container only the state is left, and its pids are others', then gc",
  "race: create and create, 60 ms apart, then delete",
  "race: exec and delete --force, 0 ms apart, then delete",
  "clock: commands in a time namespace that was booted later",
];

export function shortCells(): Cell[] {
  const all = new Map(allCells().map((cell) => [cell.name, cell]));
  return SHORT.flatMap((name) => {
    const cell = all.get(name);
    // The kvm driver has no hypervisor process.
    if (cell === undefined && !name.includes("kill -9 hypervisor")) throw new Error(`the matrix has no cell "${name}"`);
    return cell ?? [];
  });
}
