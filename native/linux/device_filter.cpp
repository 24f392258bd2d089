// bpf(2): load, attach, detach what was there.
#include "linux/device_filter.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <sys/syscall.h>

#include <array>
#include <cstring>

#include "linux/descriptor.h"

namespace tskata::os {

namespace {

int bpf(bpf_cmd command, bpf_attr& attributes) { return static_cast<int>(::syscall(SYS_bpf, command, &attributes, sizeof attributes)); }

Descriptor load(std::span<const std::byte> instructions) {
  bpf_attr attributes{};
  attributes.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
  attributes.insns = reinterpret_cast<uint64_t>(instructions.data());
  attributes.insn_cnt = static_cast<uint32_t>(instructions.size() / sizeof(bpf_insn));
  attributes.license = reinterpret_cast<uint64_t>("Apache-2.0");
  return Descriptor(checked(bpf(BPF_PROG_LOAD, attributes), "bpf(BPF_PROG_LOAD)"));
}

// ALLOW_MULTI: a program below (Docker inside the container) may add its own filter, and both must agree.
void attach(int cgroup, int program) {
  bpf_attr attributes{};
  attributes.target_fd = static_cast<uint32_t>(cgroup);
  attributes.attach_bpf_fd = static_cast<uint32_t>(program);
  attributes.attach_type = BPF_CGROUP_DEVICE;
  attributes.attach_flags = BPF_F_ALLOW_MULTI;
  checked(bpf(BPF_PROG_ATTACH, attributes), "bpf(BPF_PROG_ATTACH)");
}

void detach(int cgroup, uint32_t id) {
  bpf_attr by_id{};
  by_id.prog_id = id;
  const Descriptor program(checked(bpf(BPF_PROG_GET_FD_BY_ID, by_id), "bpf(BPF_PROG_GET_FD_BY_ID)"));
  bpf_attr attributes{};
  attributes.target_fd = static_cast<uint32_t>(cgroup);
  attributes.attach_bpf_fd = static_cast<uint32_t>(program.get());
  attributes.attach_type = BPF_CGROUP_DEVICE;
  checked(bpf(BPF_PROG_DETACH, attributes), "bpf(BPF_PROG_DETACH)");
}

struct Attached {
  std::array<uint32_t, 64> ids{};
  uint32_t count = 0;
};

Attached attached(int cgroup) {
  Attached out;
  bpf_attr attributes{};
  attributes.query.target_fd = static_cast<uint32_t>(cgroup);
  attributes.query.attach_type = BPF_CGROUP_DEVICE;
  attributes.query.prog_ids = reinterpret_cast<uint64_t>(out.ids.data());
  attributes.query.prog_cnt = static_cast<uint32_t>(out.ids.size());
  checked(bpf(BPF_PROG_QUERY, attributes), "bpf(BPF_PROG_QUERY)");
  out.count = attributes.query.prog_cnt;
  return out;
}

}  // namespace

void set_device_filter(const std::string& cgroup, std::span<const std::byte> instructions) {
  const Descriptor folder(checked(::open(cgroup.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), "open the cgroup"));
  const Descriptor program = load(instructions);
  const Attached before = attached(folder.get());
  attach(folder.get(), program.get());
  for (uint32_t i = 0; i < before.count; ++i) detach(folder.get(), before.ids[i]);
}

}  // namespace tskata::os
