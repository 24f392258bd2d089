// Reads a plan. It comes from the agent, but is checked as if it did not: a wrong length must not become a wild read in a root process.
#include "launcher/plan.h"

#include <cstring>

#include "launcher/step.h"

namespace tskata::launcher {

namespace {

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <typename Integer>
  Integer integer() {
    Integer value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  uint32_t u32() { return integer<uint32_t>(); }
  uint64_t u64() { return integer<uint64_t>(); }
  int32_t i32() { return integer<int32_t>(); }
  bool boolean() { return u32() != 0; }

  std::string text() {
    const auto part = take(u32());
    return {reinterpret_cast<const char*>(part.data()), part.size()};
  }

  template <typename Item>
  std::vector<Item> list(Item (*read)(Reader&)) {
    const uint32_t count = u32();
    if (count > bytes_.size()) fail();  // every item has at least one byte
    std::vector<Item> out;
    out.reserve(count);
    for (uint32_t i = 0; i < count; ++i) out.push_back(read(*this));
    return out;
  }

  void end() const {
    if (!bytes_.empty()) fail();
  }

  [[noreturn]] static void fail() { throw StepError("read the launch plan", EBADMSG); }

 private:
  std::span<const std::byte> take(size_t length) {
    if (length > bytes_.size()) fail();
    const auto part = bytes_.first(length);
    bytes_ = bytes_.subspan(length);
    return part;
  }

  std::span<const std::byte> bytes_;
};

std::string read_text(Reader& in) { return in.text(); }
uint32_t read_u32(Reader& in) { return in.u32(); }
uint64_t read_u64(Reader& in) { return in.u64(); }

// Braced initialisers are evaluated left to right ([dcl.init.list]), which is the order of the fields.
NamespaceJoin read_join(Reader& in) { return {in.u32(), in.text()}; }
std::pair<std::string, std::string> read_pair(Reader& in) { return {in.text(), in.text()}; }
Device read_device(Reader& in) { return {in.text(), in.u32(), in.u32(), in.u32(), in.u32(), in.u32()}; }
Rlimit read_rlimit(Reader& in) { return {in.u32(), in.u64(), in.u64()}; }
SeccompArgument read_argument(Reader& in) { return {in.u32(), in.u32(), in.u64(), in.u64()}; }
SeccompRule read_rule(Reader& in) { return {in.u32(), in.list(read_text), in.list(read_argument)}; }
Hook read_hook(Reader& in) { return {in.text(), in.list(read_text), in.list(read_text), in.u32()}; }

Mount read_mount(Reader& in) {
  return {in.text(), in.text(), in.text(), in.text(), in.u64(), in.u64(), in.u64(), in.u64(), in.u64(), in.list(read_u64), in.u32()};
}

Scheduler read_scheduler(Reader& in) { return {in.boolean(), in.u32(), in.i32(), in.u32(), in.u64(), in.u64(), in.u64(), in.u64()}; }

Capabilities read_capabilities(Reader& in) { return {in.boolean(), in.u64(), in.u64(), in.u64(), in.u64(), in.u64()}; }

Seccomp read_seccomp(Reader& in) { return {in.boolean(), in.u32(), in.u32(), in.list(read_u32), in.list(read_rule)}; }

}  // namespace

Plan parse_plan(std::span<const std::byte> bytes) {
  Reader in(bytes);
  if (in.u32() != 0x504b5354 /* "TSKP" */ || in.u32() != plan_version) Reader::fail();
  Plan plan{.flags = in.u32(),
            .new_namespaces = in.u32(),
            .cgroup = in.text(),
            .cgroup_of = in.u32(),
            .initial_cpus = in.list(read_u32),
            .final_cpus = in.list(read_u32),
            .joins = in.list(read_join),
            .uid_map = in.text(),
            .gid_map = in.text(),
            .time_offsets = in.text(),
            .hostname = in.text(),
            .domainname = in.text(),
            .rootfs = in.text(),
            .rootfs_propagation = in.u64(),
            .mounts = in.list(read_mount),
            .devices = in.list(read_device),
            .links = in.list(read_pair),
            .sysctls = in.list(read_pair),
            .masked_paths = in.list(read_text),
            .readonly_paths = in.list(read_text),
            .rows = in.u32(),
            .columns = in.u32(),
            .rlimits = in.list(read_rlimit),
            .oom_score_adj = in.i32(),
            .io_priority = in.i32(),
            .scheduler = read_scheduler(in),
            .personality = in.integer<int64_t>(),
            .umask = in.i32(),
            .uid = in.u32(),
            .gid = in.u32(),
            .groups = in.list(read_u32),
            .capabilities = read_capabilities(in),
            .cwd = in.text(),
            .args = in.list(read_text),
            .env = in.list(read_text),
            .seccomp = read_seccomp(in),
            .start_hooks = in.list(read_hook),
            .hook_state = in.text()};
  in.end();
  return plan;
}

}  // namespace tskata::launcher
