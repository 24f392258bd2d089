// ioctls of a virtual machine.
#include "kvm/machine.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>

namespace tskata::kvm {

namespace {

// Three pages that Intel's hardware needs for itself, where neither memory nor devices are (KVM API §4.9x, KVM_SET_TSS_ADDR).
constexpr uint64_t identity_map_address = 0xfffb'c000;
constexpr uint64_t tss_address = identity_map_address + 0x1000;

constexpr std::array<std::string_view, 3> irqchips{"pic-master", "pic-slave", "ioapic"};  // KVM_IRQCHIP_* in this order

}  // namespace

Machine::Machine(const System& system, std::function<void(Ending)> ended)
    : fd_(KVM_IOCTL(system.fd(), KVM_CREATE_VM, 0)),
      run_bytes_(static_cast<size_t>(KVM_IOCTL(system.fd(), KVM_GET_VCPU_MMAP_SIZE, 0))),
      ended_(std::move(ended)) {}

Machine::~Machine() { stop(); }

void Machine::add_slot(Mapping mapping, uint64_t guest_address, uint32_t flags) {
  require_not_started();
  if (memory_->view != nullptr) throw std::logic_error("memory is added before devices see it");
  const std::span<std::byte> bytes = mapping.bytes();
  const kvm_userspace_memory_region region{static_cast<uint32_t>(slots_.size()), flags, guest_address, bytes.size(),
                                           reinterpret_cast<uint64_t>(bytes.data())};
  KVM_IOCTL(fd_.get(), KVM_SET_USER_MEMORY_REGION, &region);
  slots_.push_back(region);
  memory_->mappings.push_back(std::move(mapping));
}

// What vCPU threads look at without a lock stays as it is.
void Machine::require_not_started() const {
  if (started_) throw std::logic_error("the machine runs already");
}

void Machine::add_memory(uint64_t guest_address, size_t bytes) { add_slot(Mapping(bytes), guest_address, 0); }

void Machine::add_file(uint64_t guest_address, int fd, size_t bytes) { add_slot(Mapping(fd, bytes), guest_address, KVM_MEM_READONLY); }

void Machine::create_irqchip() {
  uint64_t identity = identity_map_address;
  KVM_IOCTL(fd_.get(), KVM_SET_IDENTITY_MAP_ADDR, &identity);
  KVM_IOCTL(fd_.get(), KVM_SET_TSS_ADDR, tss_address);
  KVM_IOCTL(fd_.get(), KVM_CREATE_IRQCHIP, 0);
}

unsigned Machine::create_vcpu() {
  require_not_started();
  const auto id = static_cast<unsigned>(vcpus_.size());
  vcpus_.push_back(std::make_unique<Vcpu>(fd_.get(), id, run_bytes_, ports_, mmio_, [this](Ending reason) { end(std::move(reason)); }));
  return id;
}

void Machine::add_irqfd(int fd, uint32_t line) {
  kvm_irqfd request{};
  request.fd = static_cast<uint32_t>(fd);
  request.gsi = line;
  KVM_IOCTL(fd_.get(), KVM_IRQFD, &request);
}

void Machine::set_ioeventfd(int fd, uint64_t address, uint32_t value, uint32_t flags) {
  kvm_ioeventfd request{};
  request.datamatch = value;
  request.addr = address;
  request.len = 4;
  request.fd = fd;
  request.flags = KVM_IOEVENTFD_FLAG_DATAMATCH | flags;
  KVM_IOCTL(fd_.get(), KVM_IOEVENTFD, &request);
}

void Machine::add_ioeventfds(std::span<const int> fds, uint64_t address) {
  uint32_t added = 0;
  try {
    for (const int fd : fds) {
      set_ioeventfd(fd, address, added, 0);
      ++added;
    }
  } catch (...) {
    // KVM keeps what it was given when the descriptor is closed, and would refuse the next device at this address.
    while (added-- > 0) set_ioeventfd(fds[added], address, added, KVM_IOEVENTFD_FLAG_DEASSIGN);
    throw;
  }
}

std::vector<virtio::MemoryRegion> Machine::regions() const {
  std::vector<virtio::MemoryRegion> out;
  for (size_t i = 0; i < slots_.size(); ++i) out.push_back({slots_[i].guest_phys_addr, memory_->mappings[i].bytes()});
  return out;
}

std::shared_ptr<const virtio::GuestMemory> Machine::memory() {
  if (memory_->view == nullptr) memory_->view = std::make_unique<virtio::GuestMemory>(regions());
  return {memory_, memory_->view.get()};
}

// Not by memory(): that is complete from then on, and this may come before.
std::span<std::byte> Machine::slice(uint64_t guest_address, uint64_t bytes) const {
  const auto found = virtio::GuestMemory(regions()).slice(guest_address, bytes);
  if (!found) throw std::out_of_range("no such range of guest memory");
  return *found;
}

std::vector<uint64_t> Machine::dirty_log(uint64_t guest_address) {
  for (kvm_userspace_memory_region& slot : slots_) {
    if (slot.guest_phys_addr != guest_address) continue;
    std::vector<uint64_t> bitmap((slot.memory_size / 4096 + 63) / 64);
    if ((slot.flags & KVM_MEM_LOG_DIRTY_PAGES) == 0) {
      kvm_userspace_memory_region logged = slot;
      logged.flags |= KVM_MEM_LOG_DIRTY_PAGES;
      KVM_IOCTL(fd_.get(), KVM_SET_USER_MEMORY_REGION, &logged);
      slot = logged;
      return bitmap;
    }
    kvm_dirty_log request{};
    request.slot = slot.slot;
    request.dirty_bitmap = bitmap.data();
    KVM_IOCTL(fd_.get(), KVM_GET_DIRTY_LOG, &request);
    return bitmap;
  }
  throw std::out_of_range("no memory slot begins there");
}

Vcpu& Machine::vcpu(unsigned id) {
  if (id >= vcpus_.size()) throw std::out_of_range("no such vCPU");
  return *vcpus_[id];
}

void Machine::start() {
  require_not_started();
  started_ = true;
  ports_.close();
  mmio_.close();
  for (const auto& it : vcpus_) it->clear_guest_debug();
  starter_.start();
  for (const auto& it : vcpus_) it->start();
}

void Machine::pause() {
  for (const auto& it : vcpus_) it->request_pause();  // all leave the guest at the same time
  for (const auto& it : vcpus_) it->pause();
}

void Machine::resume() {
  for (const auto& it : vcpus_) it->resume();
}

void Machine::stop() {
  for (const auto& it : vcpus_) it->request_stop();
  for (const auto& it : vcpus_) it->stop();
  starter_.stop();
}

void Machine::end(Ending reason) {
  {
    const std::lock_guard lock(end_mutex_);
    if (std::exchange(over_, true)) return;
  }
  for (const auto& it : vcpus_) it->request_stop();
  ended_(std::move(reason));
}

std::vector<std::byte> Machine::state(std::string_view part) const {
  if (part == "clock") {
    std::vector<std::byte> out(sizeof(kvm_clock_data));
    KVM_IOCTL(fd_.get(), KVM_GET_CLOCK, out.data());
    return out;
  }
  for (size_t id = 0; id < irqchips.size(); ++id) {
    if (irqchips[id] != part) continue;
    kvm_irqchip chip{};
    chip.chip_id = static_cast<uint32_t>(id);
    KVM_IOCTL(fd_.get(), KVM_GET_IRQCHIP, &chip);
    std::vector<std::byte> out(sizeof chip);
    std::memcpy(out.data(), &chip, sizeof chip);
    return out;
  }
  throw std::invalid_argument("no such part of a machine's state: " + std::string(part));
}

void Machine::set_state(std::string_view part, std::span<const std::byte> bytes) {
  const auto chip = std::ranges::find(irqchips, part);
  if (part != "clock" && chip == irqchips.end()) throw std::invalid_argument("no such part of a machine's state: " + std::string(part));
  const size_t size = part == "clock" ? sizeof(kvm_clock_data) : sizeof(kvm_irqchip);
  if (bytes.size() != size) throw std::invalid_argument("machine state " + std::string(part) + " of a wrong size");
  if (part == "clock") {
    KVM_IOCTL(fd_.get(), KVM_SET_CLOCK, bytes.data());
    return;
  }
  kvm_irqchip state;
  std::memcpy(&state, bytes.data(), sizeof state);
  if (state.chip_id != static_cast<uint32_t>(chip - irqchips.begin())) throw std::invalid_argument("the state is another interrupt controller's");
  KVM_IOCTL(fd_.get(), KVM_SET_IRQCHIP, &state);
}

}  // namespace tskata::kvm
