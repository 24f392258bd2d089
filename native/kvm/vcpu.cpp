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

#define STATE_PART(name, bytes, get, set) \
  { name, bytes, get, set, #get, #set }

// Structures of <linux/kvm.h>; what a snapshot saves and sets again.
constexpr std::array<StatePart, 9> state_parts{{
    STATE_PART("regs", sizeof(kvm_regs), KVM_GET_REGS, KVM_SET_REGS),
    STATE_PART("sregs", sizeof(kvm_sregs), KVM_GET_SREGS, KVM_SET_SREGS),
    STATE_PART("fpu", sizeof(kvm_fpu), KVM_GET_FPU, KVM_SET_FPU),
    {"xsave", sizeof(Xsave), get_xsave, set_xsave, "KVM_GET_XSAVE", "KVM_SET_XSAVE"},
    STATE_PART("xcrs", sizeof(kvm_xcrs), KVM_GET_XCRS, KVM_SET_XCRS),
    STATE_PART("lapic", sizeof(kvm_lapic_state), KVM_GET_LAPIC, KVM_SET_LAPIC),
    STATE_PART("events", sizeof(kvm_vcpu_events), KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS),
    STATE_PART("debugregs", sizeof(kvm_debugregs), KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS),
    STATE_PART("mp_state", sizeof(kvm_mp_state), KVM_GET_MP_STATE, KVM_SET_MP_STATE),
}};
#undef STATE_PART

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
      statistics_(::ioctl(fd_.get(), KVM_GET_STATS_FD, 0)),  // now: while the vCPU runs this request would wait; old kernels have none
      xsave_bytes_(static_cast<size_t>(KVM_IOCTL(vm, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2))),
      exits_(ports, memory),
      ended_(std::move(ended)) {
  install_kick_handler();
}

Vcpu::~Vcpu() {
  stop();
  ::munmap(run_, run_bytes_);
}

void Vcpu::require_still() const {
  std::unique_lock lock(mutex_);
  if (!thread_.joinable()) return;
  if (wish_ == Wish::run) throw std::logic_error("the vCPU runs: the machine must be paused first");
  changed_.wait(lock, [this] { return parked_ || over_; });
}

// KVM_SET_XSAVE reads as many bytes as KVM_GET_XSAVE2 writes (KVM API §4.43): not the size that its number names.
StatePart Vcpu::part(std::string_view name) const {
  if (name == "xsave" && xsave_bytes_ > 0) return {name, xsave_bytes_, get_xsave2, set_xsave, "KVM_GET_XSAVE2", "KVM_SET_XSAVE"};
  return state_part(name);
}

std::vector<std::byte> Vcpu::state(std::string_view name) const {
  const StatePart it = part(name);
  require_still();
  std::vector<std::byte> out(it.bytes);
  call(fd_.get(), it.get, reinterpret_cast<uintptr_t>(out.data()), it.get_name);
  return out;
}

void Vcpu::set_state(std::string_view name, std::span<const std::byte> bytes) {
  const StatePart it = part(name);
  if (bytes.size() != it.bytes) throw std::invalid_argument("vCPU state " + std::string(name) + " of a wrong size");
  require_still();
  call(fd_.get(), it.set, reinterpret_cast<uintptr_t>(bytes.data()), it.set_name);
}

void Vcpu::set_cpuid(std::span<const kvm_cpuid_entry2> entries) {
  require_still();
  const std::vector<std::byte> memory = with_entries(entries);
  call(fd_.get(), kvm::set_cpuid, reinterpret_cast<uintptr_t>(memory.data()), "KVM_SET_CPUID2");
}

size_t Vcpu::msrs(std::span<kvm_msr_entry> entries) const {
  require_still();
  std::vector<std::byte> memory = with_entries<kvm_msr_entry>(entries);
  const int read = call(fd_.get(), get_msrs, reinterpret_cast<uintptr_t>(memory.data()), "KVM_GET_MSRS");
  std::memcpy(entries.data(), memory.data() + sizeof(EntriesHead), entries.size_bytes());
  return static_cast<size_t>(read);
}

size_t Vcpu::set_msrs(std::span<const kvm_msr_entry> entries) {
  require_still();
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

// With the lock held. The flag first: a thread on its way into KVM_RUN, where the signal alone would be lost, comes back at once (KVM
// API §5, immediate_exit). The thread clears it with the lock held, when it has looked at what is wished, so a wish made after that look
// is not lost. A thread that has not begun, or has ended, looks by itself.
void Vcpu::kick() {
  if (!self_) return;
  *const_cast<volatile uint8_t*>(&run_->immediate_exit) = 1;
  ::pthread_kill(*self_, kick_signal());
}

void Vcpu::request_pause() {
  const std::lock_guard lock(mutex_);
  if (wish_ != Wish::run) return;
  wish_ = Wish::pause;
  kick();
}

void Vcpu::pause() {
  request_pause();
  if (!thread_.joinable()) return;
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return parked_ || over_; });
}

void Vcpu::resume() {
  const std::lock_guard lock(mutex_);
  if (wish_ != Wish::pause) return;
  wish_ = Wish::run;
  changed_.notify_all();
}

void Vcpu::request_stop() {
  const std::lock_guard lock(mutex_);
  wish_ = Wish::stop;
  kick();
  changed_.notify_all();
}

void Vcpu::stop() {
  request_stop();
  if (thread_.joinable()) thread_.join();
}

void Vcpu::run() {
  // Waits there until the jail has closed: not an instruction of the guest's runs before.
  jail::enter_thread(jail::Role::vcpu);
  ::pthread_setname_np(::pthread_self(), ("vcpu " + std::to_string(id_)).c_str());
  {
    const std::lock_guard lock(mutex_);
    self_ = ::pthread_self();
  }
  if (wait_for_wish()) {
    while (enter()) {
    }
  }
  const std::lock_guard lock(mutex_);
  self_.reset();
  over_ = true;
  changed_.notify_all();
}

// False: the thread is to end.
bool Vcpu::wait_for_wish() {
  std::unique_lock lock(mutex_);
  parked_ = wish_ == Wish::pause;
  changed_.notify_all();
  changed_.wait(lock, [this] { return wish_ != Wish::pause; });
  parked_ = false;
  *const_cast<volatile uint8_t*>(&run_->immediate_exit) = 0;
  return wish_ == Wish::run;
}

bool Vcpu::enter() {
  if (::ioctl(fd_.get(), KVM_RUN, 0) == 0) {
    std::optional<Ending> over = exits_.handle({reinterpret_cast<std::byte*>(run_), run_bytes_});
    return !over || end(std::move(*over));
  }
  if (errno != EINTR && errno != EAGAIN) return end({"error", 0, static_cast<uint64_t>(errno), 0});
  // Only here is the state whole: an access whose answer was given is completed by the next KVM_RUN, and this one was that.
  exits_.counters().add(ExitCounters::Kind::interrupted);
  return wait_for_wish();
}

bool Vcpu::end(Ending why) {
  kvm_regs regs{};
  const bool known = ::ioctl(fd_.get(), KVM_GET_REGS, &regs) == 0;
  why.vcpu = id_;
  why.instruction = known ? regs.rip : 0;
  ended_(std::move(why));
  return false;
}

std::map<std::string, uint64_t> Vcpu::statistics() const {
  const os::Descriptor& fd = statistics_;
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
