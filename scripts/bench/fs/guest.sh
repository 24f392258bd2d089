# The guest's side of `npm run bench -- fs`: mounts the contestants and runs each row's work on one after the other, turn by turn, each turn with
# another as the first. A line on stdout for each: "row|contestant|seconds". From the environment: WORK (work.c), FOLDER (what the host has
# prepared), TURNS, ROWS (an extended regular expression), CONTESTANTS, NODE, NPM.
set -euo pipefail

local_folder=/run/bench # in the guest's memory
mkdir -p "$local_folder"
cp "$WORK" "$FOLDER/kernel.tar" "$local_folder"
work=$local_folder/$(basename "$WORK")

# -- contestants ------------------------------------------------------------------------------------------------------------------

folder_of() { echo "/bench/$1"; }

# The file system, then the folder as a container sees it: a pod's agent binds that, so that no path goes through the folders above.
mount_it() {
  local at=/mnt/$1
  mkdir -p "$at" "$(folder_of "$1")"
  case $1 in
    ours | through | volume | before)
      mount -t virtiofs "$1" "$at"
      # As the agent does (agent/init/mounts.ts).
      [ "$1" = before ] || echo 1024 >"/sys/class/bdi/$(mountpoint -d "$at")/read_ahead_kb"
      [ "$1" != ours ] || echo 100 >"/sys/class/bdi/$(mountpoint -d "$at")/max_ratio"
      if [ "$1" = volume ]; then at+=/bench/mounts/0; else at+=/bench/rootfs; fi
      ;;
    9p) mount -t 9p -o trans=virtio,version=9p2000.L,msize=1048576,cache=mmap 9p "$at" ;;
    *) mount -t virtiofs "$1" "$at" ;;
  esac
  mount --bind "$at" "$(folder_of "$1")"
}

# What is written may wait: as the agent has it, and so for all.
echo 50 >/proc/sys/vm/dirty_expire_centisecs
echo 50 >/proc/sys/vm/dirty_writeback_centisecs
echo $((16 << 20)) >/proc/sys/vm/dirty_bytes
echo $((4 << 20)) >/proc/sys/vm/dirty_background_bytes

unmount_it() { umount "$(folder_of "$1")" "/mnt/$1"; }

# Neither names nor data in the guest's caches.
cold() {
  unmount_it "$1"
  mount_it "$1"
}

# -- rows -------------------------------------------------------------------------------------------------------------------------

small=16 # MiB by 4 KiB
large=64

data() { # contestant, read|write, seq|rand, block, threads, MiB
  local at
  at=$(folder_of "$1")/data
  [[ $2 = write && $3 = seq ]] && at=$(folder_of "$1")/written
  mkdir -p "$at"
  rm -f "$(folder_of "$1")"/written/data.*
  cold "$1"
  "$work" "$2" "$3" "$4" "$5" "$6" "$at"
}

untar() {
  local at
  at=$(folder_of "$1")/untarred
  rm -rf "$at"
  mkdir "$at"
  cold "$1"
  "$work" run sh -c "tar -xf $local_folder/kernel.tar -C $at && sync -f $at"
}

remove() {
  local at
  at=$(folder_of "$1")/untarred
  [ -d "$at" ] || untar "$1" >/dev/null
  cold "$1"
  "$work" run rm -r "$at"
}

npm_ci() {
  local at
  at=$(folder_of "$1")/project
  rm -rf "$at/node_modules"
  cold "$1"
  cd "$at"
  "$work" run "$NODE" "$NPM" ci --offline --ignore-scripts --no-audit --no-fund --cache "$(folder_of "$1")/npm"
  cd /
}

git_status() {
  # What 9p shows has other inode numbers than the index was made with.
  local index=$local_folder/index.$1
  [ -e "$index" ] || git -C "$(folder_of "$1")/tree" status >/dev/null
  touch "$index"
  cold "$1"
  "$work" run git -C "$(folder_of "$1")/tree" status
}

git_status_again() {
  git -C "$(folder_of "$1")/tree" status >/dev/null
  "$work" run git -C "$(folder_of "$1")/tree" status
}

find_names() {
  cold "$1"
  "$work" run find "$(folder_of "$1")/tree" -type f
}

find_sizes() {
  cold "$1"
  "$work" run find "$(folder_of "$1")/tree" -size +100k
}

list_of() {
  local list=$local_folder/list.$1
  [ -e "$list" ] || find "$(folder_of "$1")/tree" -path "*/.git" -prune -o -print >"$list"
  echo "$list"
}

stat_first() {
  local list
  list=$(list_of "$1")
  cold "$1"
  "$work" stat "$2" 1 "$list"
}

stat_again() {
  local list
  list=$(list_of "$1")
  "$work" stat "$2" 1 "$list" >/dev/null
  "$work" stat "$2" 5 "$list"
}

read_all() {
  cold "$1"
  "$work" run sh -c "find $(folder_of "$1")/tree -type f -print0 | xargs -0 cat"
}

rows() {
  local block threads
  for threads in 1 4; do
    for block in 4 1024; do
      local mib=$small
      [ $block = 4 ] || mib=$large
      local size="$block KiB"
      [ $block = 4 ] || size="1 MiB"
      local by="$size, $threads thread"
      [ $threads = 1 ] || by+=s
      echo "sequential read, $by|data|read seq $((block * 1024)) $threads $mib"
      echo "random read, $by|data|read rand $((block * 1024)) $threads $mib"
      echo "sequential write, $by|data|write seq $((block * 1024)) $threads $mib"
      echo "random write, $by|data|write rand $((block * 1024)) $threads $mib"
    done
  done
  echo "untar of kernel source|untar|"
  echo "read every file of it|read_all|"
  echo "rm -r of it|remove|"
  echo "npm ci, offline|npm_ci|"
  echo "git status|git_status|"
  echo "git status again|git_status_again|"
  echo "find -type f|find_names|"
  echo "find -size|find_sizes|"
  echo "stat of every file, 1 thread|stat_first|1"
  echo "stat of every file, 4 threads|stat_first|4"
  echo "stat of every file again, 4 threads|stat_again|4"
}

cd /
read -ra contestants <<<"$CONTESTANTS"
for contestant in "${contestants[@]}"; do mount_it "$contestant"; done
for ((turn = 1; turn <= TURNS; ++turn)); do
  while IFS='|' read -r row function words; do
    [[ $row =~ $ROWS ]] || continue
    for contestant in "${contestants[@]}"; do
      # shellcheck disable=SC2086 # words of the row
      seconds=$($function "$contestant" $words </dev/null)
      echo "$row|$contestant|$seconds"
    done
  done < <(rows)
  # The first of a row pays for what the work needs anew of the guest and of TCG: each in its turn.
  contestants=("${contestants[@]:1}" "${contestants[0]}")
done
for contestant in "${contestants[@]}"; do unmount_it "$contestant"; done
