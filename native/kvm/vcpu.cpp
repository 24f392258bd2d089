// The vCPU loop.
#include "kvm/vcpu.h"

#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <array>
#include <cstring>
#include <stdexcept>

#include "jail/jail.h"
#include "kvm/flexible.h"
#include "kvm/system.h"

namespace tskata::kvm {

namespace {

// Interrupts KVM_RUN. Any real-time signal that nobody else uses: glibc keeps the first ones for itself.
int kick_signal() { return SIGRTMIN + 1; }

void install_kick_handler() {
  static const bool installed = [] {
    struct sigaction action {};
    action.sa_handler = [](int) {};  // its arrival is all that matters
    os::checked(::sigaction(kick_signal(), &action, nullptr), "sigaction");
    return true;
  }();
  (void)installed;
}

struct StatePart {
  std::string_view name;
  size_t bytes;
  unsigned long get;
  unsigned long set;
};

// Structures of <linux/kvm.h>; what a snapshot saves and sets again.
constexpr std::array<StatePart, 9> state_parts{{
    {"regs", sizeof(kvm_regs), KVM_GET_REGS, KVM_SET_REGS},
    {"sregs", sizeof(kvm_sregs), KVM_GET_SREGS, KVM_SET_SREGS},
    {"fpu", sizeof(kvm_fpu), KVM_GET_FPU, KVM_SET_FPU},
    {"xsave", sizeof(Xsave), get_xsave, set_xsave},
    {"xcrs", sizeof(kvm_xcrs), KVM_GET_XCRS, KVM_SET_XCRS},
    {"lapic", sizeof(kvm_lapic_state), KVM_GET_LAPIC, KVM_SET_LAPIC},
    {"events", sizeof(kvm_vcpu_events), KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS},
    {"debugregs", sizeof(kvm_debugregs), KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS},
    {"mp_state", sizeof(kvm_mp_state), KVM_GET_MP_STATE, KVM_SET_MP_STATE},
}};

const StatePart& state_part(std::string_view name) {
  for (const StatePart& part : state_parts) {
    if (part.name == name) return part;
  }
  throw std::invalid_argument("no such part of a vCPU's state: " + std::string(name));
}

// The kernel's structure: how many, then the entries.
template <typename Entry>
std::vector<std::byte> with_entries(std::span<const Entry> entries) {
  const EntriesHead head{static_cast<uint32_t>(entries.size()), 0};
  std::vector<std::byte> memory(sizeof head + entries.size_bytes());
  std::memcpy(memory.data(), &head, sizeof head);
  std::memcpy(memory.data() + sizeof head, entries.data(), entries.size_bytes());
  return memory;
}

kvm_run* map_run(int fd, size_t bytes) {
  void* const address = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (address == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mmap kvm_run");
  return static_cast<kvm_run*>(address);
}

}  // namespace

Vcpu::Vcpu(int vm, unsigned id, size_t run_bytes, const Bus& ports, const Bus& memory, std::function<void(Ending)> ended)
    : id_(id),
      fd_(KVM_IOCTL(vm, KVM_CREATE_VCPU, id)),
      run_bytes_(run_bytes),
      run_(map_run(fd_.get(), run_bytes)),
      ports_(ports),
      memory_(memory),
      ended_(std::move(ended)) {
  install_kick_handler();
}

Vcpu::~Vcpu() {
  stop();
  ::munmap(run_, run_bytes_);
}

std::vector<std::byte> Vcpu::state(std::string_view name) const {
  const StatePart& part = state_part(name);
  std::vector<std::byte> out(part.bytes);
  call(fd_.get(), part.get, reinterpret_cast<uintptr_t>(out.data()), ("KVM_GET " + std::string(name)).c_str());
  return out;
}

void Vcpu::set_state(std::string_view name, std::span<const std::byte> bytes) {
  const StatePart& part = state_part(name);
  if (bytes.size() != part.bytes) throw std::invalid_argument("vCPU state " + std::string(name) + " of a wrong size");
  call(fd_.get(), part.set, reinterpret_cast<uintptr_t>(bytes.data()), ("KVM_SET " + std::string(name)).c_str());
}

void Vcpu::set_cpuid(std::span<const kvm_cpuid_entry2> entries) {
  const std::vector<std::byte> memory = with_entries(entries);
  call(fd_.get(), kvm::set_cpuid, reinterpret_cast<uintptr_t>(memory.data()), "KVM_SET_CPUID2");
}

size_t Vcpu::msrs(std::span<kvm_msr_entry> entries) const {
  std::vector<std::byte> memory = with_entries<kvm_msr_entry>(entries);
  const int read = call(fd_.get(), get_msrs, reinterpret_cast<uintptr_t>(memory.data()), "KVM_GET_MSRS");
  std::memcpy(entries.data(), memory.data() + sizeof(EntriesHead), entries.size_bytes());
  return static_cast<size_t>(read);
}

size_t Vcpu::set_msrs(std::span<const kvm_msr_entry> entries) {
  const std::vector<std::byte> memory = with_entries(entries);
  return static_cast<size_t>(call(fd_.get(), kvm::set_msrs, reinterpret_cast<uintptr_t>(memory.data()), "KVM_SET_MSRS"));
}

void Vcpu::clear_guest_debug() {
  kvm_guest_debug none{};
  KVM_IOCTL(fd_.get(), KVM_SET_GUEST_DEBUG, &none);
}

void Vcpu::start() {
  if (thread_.joinable()) throw std::logic_error("the vCPU runs already");
  thread_ = std::thread([this] { run(); });
}

// The flag first: a thread on its way into KVM_RUN, where the signal alone would be lost, comes back at once (KVM API §5,
// immediate_exit). The thread clears it before it looks at what is wished, so a wish made after that look finds the flag still set.
void Vcpu::kick() {
  *const_cast<volatile uint8_t*>(&run_->immediate_exit) = 1;
  ::pthread_kill(thread_.native_handle(), kick_signal());
}

void Vcpu::pause() {
  std::unique_lock lock(mutex_);
  if (wish_ != Wish::run) return;
  wish_ = Wish::pause;
  if (!thread_.joinable()) return;
  kick();
  changed_.wait(lock, [this] { return parked_ || over_; });
}

void Vcpu::resume() {
  const std::lock_guard lock(mutex_);
  if (wish_ != Wish::pause) return;
  wish_ = Wish::run;
  changed_.notify_all();
}

void Vcpu::stop() {
  {
    const std::lock_guard lock(mutex_);
    wish_ = Wish::stop;
    if (thread_.joinable() && !over_) kick();
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void Vcpu::run() {
  // Waits there until the jail has closed: not an instruction of the guest's runs before.
  jail::enter_thread(jail::Role::vcpu);
  ::pthread_setname_np(::pthread_self(), ("vcpu " + std::to_string(id_)).c_str());
  if (wait_for_wish()) {
    while (enter()) {
    }
  }
  const std::lock_guard lock(mutex_);
  over_ = true;
  changed_.notify_all();
}

// False: the thread is to end.
bool Vcpu::wait_for_wish() {
  std::unique_lock lock(mutex_);
  parked_ = true;
  changed_.notify_all();
  changed_.wait(lock, [this] { return wish_ != Wish::pause; });
  parked_ = false;
  return wish_ == Wish::run;
}

bool Vcpu::enter() {
  if (::ioctl(fd_.get(), KVM_RUN, 0) == 0) return handle_exit();
  if (errno != EINTR && errno != EAGAIN) return end("error", static_cast<uint64_t>(errno));
  // Only here is the state whole: an access whose answer was given is completed by the next KVM_RUN, and this one was that.
  *const_cast<volatile uint8_t*>(&run_->immediate_exit) = 0;
  count("interrupted", 0);
  return wait_for_wish();
}

bool Vcpu::handle_exit() {
  switch (run_->exit_reason) {
    case KVM_EXIT_IO: answer_port(); return true;
    case KVM_EXIT_MMIO: answer_memory(); return true;
    case KVM_EXIT_INTR: return true;
    case KVM_EXIT_HLT: return end("halt", 0);
    case KVM_EXIT_SHUTDOWN: return end("shutdown", 0);
    case KVM_EXIT_INTERNAL_ERROR: return end("internal-error", run_->internal.suberror);
    case KVM_EXIT_FAIL_ENTRY: return end("entry-failure", run_->fail_entry.hardware_entry_failure_reason);
    case KVM_EXIT_SYSTEM_EVENT: return end("system-event", run_->system_event.type);
    default: return end("unknown-exit", run_->exit_reason);
  }
}

void Vcpu::answer_port() {
  const auto& io = run_->io;
  count("io", io.port);
  // A string instruction gives several elements at once.
  std::byte* at = reinterpret_cast<std::byte*>(run_) + io.data_offset;
  for (uint32_t i = 0; i < io.count; ++i, at += io.size) {
    if (io.direction == KVM_EXIT_IO_IN) ports_.read(io.port, {at, io.size});
    else ports_.write(io.port, {at, io.size});
  }
}

void Vcpu::answer_memory() {
  auto& mmio = run_->mmio;
  count("mmio", mmio.phys_addr & ~uint64_t{0xfff});
  const std::span<std::byte> data(reinterpret_cast<std::byte*>(mmio.data), std::min<size_t>(mmio.len, sizeof mmio.data));
  if (mmio.is_write != 0) memory_.write(mmio.phys_addr, data);
  else memory_.read(mmio.phys_addr, data);
}

void Vcpu::count(const char* kind, uint64_t address) {
  const std::lock_guard lock(mutex_);
  ++exits_[{kind, address}];
}

bool Vcpu::end(const char* kind, uint64_t detail) {
  kvm_regs regs{};
  const bool known = ::ioctl(fd_.get(), KVM_GET_REGS, &regs) == 0;
  ended_({kind, id_, detail, known ? regs.rip : 0});
  return false;
}

std::map<std::string, uint64_t> Vcpu::exits() const {
  const std::lock_guard lock(mutex_);
  std::map<std::string, uint64_t> out;
  for (const auto& [cause, times] : exits_) {
    std::array<char, 32> address{};
    std::snprintf(address.data(), address.size(), " 0x%llx", static_cast<unsigned long long>(cause.second));
    out[cause.second == 0 ? std::string(cause.first) : cause.first + std::string(address.data())] += times;
  }
  return out;
}

std::map<std::string, uint64_t> Vcpu::statistics() const {
  const int raw = ::ioctl(fd_.get(), KVM_GET_STATS_FD, 0);
  if (raw < 0) return {};
  const os::Descriptor fd(raw);
  kvm_stats_header header{};
  if (::pread(fd.get(), &header, sizeof header, 0) != sizeof header) return {};
  const size_t stride = sizeof(StatisticHead) + header.name_size;
  std::vector<char> descriptors(stride * header.num_desc);
  if (::pread(fd.get(), descriptors.data(), descriptors.size(), header.desc_offset) != static_cast<ssize_t>(descriptors.size())) return {};
  std::map<std::string, uint64_t> out;
  for (size_t i = 0; i < header.num_desc; ++i) {
    StatisticHead descriptor;
    std::memcpy(&descriptor, descriptors.data() + i * stride, sizeof descriptor);
    if (descriptor.size != 1) continue;  // histograms
    uint64_t value = 0;
    if (::pread(fd.get(), &value, sizeof value, header.data_offset + descriptor.offset) != sizeof value) continue;
    out[descriptors.data() + i * stride + sizeof descriptor] = value;
  }
  return out;
}

}  // namespace tskata::kvm
