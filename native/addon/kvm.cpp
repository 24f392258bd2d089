// The addon's door to /dev/kvm: the system, machines, their vCPUs' state, and the slots that attach devices.
#include <fcntl.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <climits>
#include <cmath>

#include "addon/devices.h"
#include "addon/exports.h"
#include "addon/napi.h"
#include "devices/console/console_log.h"
#include "devices/console/uart.h"
#include "kvm/machine.h"
#include "kvm/platform.h"

namespace tskata::addon {

namespace {

using os::checked;
using os::Descriptor;

// A number of JavaScript's that is whole and in range; its own conversions would make something of everything else, too.
uint64_t whole(const Napi::Value& value, double largest, const char* what) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : NAN;
  if (!(number >= 0 && number <= largest) || number != std::floor(number)) throw std::invalid_argument(std::string("not ") + what);
  return static_cast<uint64_t>(number);
}

// Guest addresses and sizes are JavaScript numbers: whole up to 2^53, more than any guest has.
uint64_t address_of(const Napi::Value& value) { return whole(value, 9007199254740991.0, "an address or size"); }
uint32_t index_of(const Napi::Value& value, const char* what) { return static_cast<uint32_t>(whole(value, UINT32_MAX, what)); }
uint16_t port_of(const Napi::Value& value) { return static_cast<uint16_t>(whole(value, UINT16_MAX, "a port")); }

std::string text_of(const Napi::Value& value) {
  if (!value.IsString()) throw std::invalid_argument("expected a string");
  std::string out = value.As<Napi::String>();
  // The kernel would see a name that ends there.
  if (out.find('\0') != std::string::npos) throw std::invalid_argument("string with a NUL");
  return out;
}

template <typename T>
Napi::Value buffer_of(Napi::Env env, const std::vector<T>& items) {
  return Napi::Buffer<uint8_t>::Copy(env, reinterpret_cast<const uint8_t*>(items.data()), items.size() * sizeof(T));
}

// The kernel's structures, one after the other.
template <typename T>
std::vector<T> items_of(const Napi::Value& value) {
  const std::span<const std::byte> bytes = bytes_of(value);
  if (bytes.size() % sizeof(T) != 0) throw std::invalid_argument("bytes are not a whole number of entries");
  std::vector<T> out(bytes.size() / sizeof(T));
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

Napi::Object counters_of(Napi::Env env, const std::map<std::string, uint64_t>& counters) {
  const Napi::Object out = Napi::Object::New(env);
  for (const auto& [name, count] : counters) out.Set(name, Napi::Number::New(env, static_cast<double>(count)));
  return out;
}

// What lives as long as the machine, in the order in which it may go: vCPU threads end first, then the slots stop their devices' queues,
// then memory is unmapped.
struct Pod {
  std::unique_ptr<kvm::Machine> machine;
  struct Slot {
    uint64_t address;
    std::unique_ptr<transport::VirtioMmio> transport;
    std::shared_ptr<virtio::Device> device;
  };
  std::vector<Slot> slots;
  std::unique_ptr<devices::console::ConsoleLog> console;
  std::unique_ptr<devices::console::Uart> uart;

  ~Pod() {
    if (machine != nullptr) machine->stop();
    slots.clear();
  }
};

class MachineHandle : public Napi::ObjectWrap<MachineHandle> {
 public:
  static Napi::FunctionReference& constructor() {
    static Napi::FunctionReference reference;
    return reference;
  }

  static void define(Napi::Env env) {
    const Napi::Function type = DefineClass(env, "KvmMachine",
                                            {
                                                InstanceAccessor<&MachineHandle::ended>("ended"),
                                                InstanceMethod<&MachineHandle::add_memory>("addMemory"),
                                                InstanceMethod<&MachineHandle::add_file>("addFile"),
                                                InstanceMethod<&MachineHandle::create_irqchip>("createIrqchip"),
                                                InstanceMethod<&MachineHandle::create_vcpu>("createVcpu"),
                                                InstanceMethod<&MachineHandle::add_reset_port>("addResetPort"),
                                                InstanceMethod<&MachineHandle::add_uart>("addUart"),
                                                InstanceMethod<&MachineHandle::add_slot>("addSlot"),
                                                InstanceMethod<&MachineHandle::attach>("attach"),
                                                InstanceMethod<&MachineHandle::write>("write"),
                                                InstanceMethod<&MachineHandle::read>("read"),
                                                InstanceMethod<&MachineHandle::load>("load"),
                                                InstanceMethod<&MachineHandle::dirty_log>("dirtyLog"),
                                                InstanceMethod<&MachineHandle::vcpu_state>("vcpuState"),
                                                InstanceMethod<&MachineHandle::set_vcpu_state>("setVcpuState"),
                                                InstanceMethod<&MachineHandle::set_cpuid>("setCpuid"),
                                                InstanceMethod<&MachineHandle::msrs>("msrs"),
                                                InstanceMethod<&MachineHandle::set_msrs>("setMsrs"),
                                                InstanceMethod<&MachineHandle::state>("state"),
                                                InstanceMethod<&MachineHandle::set_state>("setState"),
                                                InstanceMethod<&MachineHandle::start>("start"),
                                                InstanceMethod<&MachineHandle::pause>("pause"),
                                                InstanceMethod<&MachineHandle::resume>("resume"),
                                                InstanceMethod<&MachineHandle::exits>("exits"),
                                                InstanceMethod<&MachineHandle::statistics>("statistics"),
                                                InstanceMethod<&MachineHandle::close>("close"),
                                            });
    constructor() = Napi::Persistent(type);
    constructor().SuppressDestruct();
  }

  static Napi::Object make(Napi::Env env, const kvm::System& system) {
    const Napi::Object object = constructor().New({});
    MachineHandle* const handle = Unwrap(object);
    const Settler settler(env, false);
    handle->ended_ = Napi::Persistent(settler.promise().As<Napi::Object>());
    handle->pod_ = std::make_unique<Pod>();
    handle->pod_->machine = std::make_unique<kvm::Machine>(system, [settler](const kvm::Ending& why) {
      settler.resolve([why](Napi::Env at) -> Napi::Value {
        const Napi::Object out = Napi::Object::New(at);
        out.Set("kind", why.kind);
        out.Set("vcpu", why.vcpu);
        out.Set("detail", Napi::BigInt::New(at, why.detail));
        out.Set("instruction", Napi::BigInt::New(at, why.instruction));
        return out;
      });
    });
    return object;
  }

  explicit MachineHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<MachineHandle>(info) {}

 private:
  Pod& pod() const {
    if (pod_ == nullptr) throw std::runtime_error("the machine is closed");
    return *pod_;
  }
  kvm::Machine& machine() const { return *pod().machine; }
  kvm::Vcpu& vcpu(const Napi::Value& id) const { return machine().vcpu(index_of(id, "a vCPU")); }

  // A method of no result.
  template <typename Body>
  static void done(const Napi::CallbackInfo& info, Body&& body) {
    guarded(info, [&](Napi::Env env) {
      body();
      return env.Undefined();
    });
  }

  Napi::Value ended(const Napi::CallbackInfo&) { return ended_.Value(); }

  void add_memory(const Napi::CallbackInfo& info) {
    done(info, [&] { machine().add_memory(address_of(info[0]), address_of(info[1])); });
  }

  void add_file(const Napi::CallbackInfo& info) {
    done(info, [&] {
      const std::string path = text_of(info[1]);
      const Descriptor fd(checked(::open(path.c_str(), O_RDONLY | O_CLOEXEC), ("open " + path).c_str()));
      machine().add_file(address_of(info[0]), fd.get(), address_of(info[2]));
    });
  }

  void create_irqchip(const Napi::CallbackInfo& info) {
    done(info, [&] { machine().create_irqchip(); });
  }

  Napi::Value create_vcpu(const Napi::CallbackInfo& info) {
    return guarded(info, [&](Napi::Env env) { return Napi::Number::New(env, machine().create_vcpu()); });
  }

  void add_reset_port(const Napi::CallbackInfo& info) {
    done(info, [&] {
      kvm::Machine& it = machine();
      it.ports().add(kvm::reset_port(port_of(info[0]), [&it] { it.end({"reset"}); }));
    });
  }

  void add_uart(const Napi::CallbackInfo& info) {
    done(info, [&] {
      const uint16_t port = port_of(info[0]);
      const std::string path = text_of(info[2]);
      Pod& it = pod();
      if (it.uart != nullptr) throw std::logic_error("the machine has a serial port");
      const std::shared_ptr<Descriptor> interrupt = interrupt_line(info[1]);
      Descriptor file = devices::console::open_log(path);
      it.console = std::make_unique<devices::console::ConsoleLog>(std::move(file));
      devices::console::ConsoleLog& log = *it.console;
      // The line is an edge of the interrupt controller's: only its rise is told.
      it.uart = std::make_unique<devices::console::Uart>([&log](uint8_t byte) { log.put(byte); },
                                                         [interrupt](bool level) {
                                                           if (level) signal(*interrupt);
                                                         });
      machine().ports().add(kvm::serial_port(port, *it.uart));
    });
  }

  static void signal(const Descriptor& event) {
    const uint64_t one = 1;
    (void)!::write(event.get(), &one, sizeof one);
  }

  // An eventfd that raises the line.
  std::shared_ptr<Descriptor> interrupt_line(const Napi::Value& line) const {
    auto out = std::make_shared<Descriptor>(checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd"));
    machine().add_irqfd(out->get(), index_of(line, "an interrupt line"));
    return out;
  }

  Napi::Value add_slot(const Napi::CallbackInfo& info) {
    return guarded(info, [&](Napi::Env env) {
      const uint64_t address = address_of(info[0]);
      const std::shared_ptr<Descriptor> interrupt = interrupt_line(info[1]);
      kvm::Starter& starter = machine().starter();
      const auto start = [&starter](const std::function<void()>& work) { starter.run(work); };
      auto transport = std::make_unique<transport::VirtioMmio>(
          machine().memory(), [interrupt] { signal(*interrupt); }, start);
      machine().mmio().add(kvm::device_slot(address, *transport));
      pod().slots.push_back({address, std::move(transport), nullptr});
      return Napi::Number::New(env, static_cast<double>(pod().slots.size() - 1));
    });
  }

  void attach(const Napi::CallbackInfo& info) {
    done(info, [&] {
      const uint32_t number = index_of(info[0], "a slot");
      std::vector<Pod::Slot>& slots = pod().slots;
      if (number >= slots.size()) throw std::out_of_range("no such slot");
      std::shared_ptr<virtio::Device> device = device_of(info[1]);
      // A device serves one driver.
      const auto has_it = [&](const Pod::Slot& other) { return other.device == device; };
      if (std::ranges::any_of(slots, has_it)) throw std::logic_error("the device is in a slot already");
      Pod::Slot& slot = slots[number];
      slot.transport->attach(device, [&](std::span<const int> notifiers) {
        machine().add_ioeventfds(notifiers, slot.address + transport::VirtioMmio::notify_register);
      });
      slot.device = std::move(device);
    });
  }

  void write(const Napi::CallbackInfo& info) {
    done(info, [&] {
      const std::span<const std::byte> from = bytes_of(info[1]);
      std::ranges::copy(from, machine().slice(address_of(info[0]), from.size()).begin());
    });
  }

  Napi::Value read(const Napi::CallbackInfo& info) {
    return guarded(info, [&](Napi::Env env) {
      const std::span<const std::byte> from = machine().slice(address_of(info[0]), address_of(info[1]));
      return Napi::Buffer<uint8_t>::Copy(env, reinterpret_cast<const uint8_t*>(from.data()), from.size());
    });
  }

  void load(const Napi::CallbackInfo& info) {
    done(info, [&] {
      std::span<std::byte> to = machine().slice(address_of(info[0]), address_of(info[3]));
      const auto fd = static_cast<int>(whole(info[1], INT_MAX, "a descriptor"));
      auto from = static_cast<off_t>(address_of(info[2]));
      while (!to.empty()) {
        const ssize_t got = ::pread(fd, to.data(), to.size(), from);
        if (got < 0) throw std::system_error(errno, std::generic_category(), "pread");
        if (got == 0) throw std::runtime_error("the file ends early");
        to = to.subspan(static_cast<size_t>(got));
        from += got;
      }
    });
  }

  Napi::Value dirty_log(const Napi::CallbackInfo& info) {
    return guarded(info, [&](Napi::Env env) { return buffer_of(env, machine().dirty_log(address_of(info[0]))); });
  }

  Napi::Value vcpu_state(const Napi::CallbackInfo& info) {
    return guarded(info, [&](Napi::Env env) { return buffer_of(env, vcpu(info[0]).state(text_of(info[1]))); });
  }

  void set_vcpu_state(const Napi::CallbackInfo& info) {
    done(info, [&] { vcpu(info[0]).set_state(text_of(info[1]), bytes_of(info[2])); });
  }

  void set_cpuid(const Napi::CallbackInfo& info) {
    done(info, [&] { vcpu(info[0]).set_cpuid(items_of<kvm_cpuid_entry2>(info[1])); });
  }

  Napi::Value msrs(const Napi::CallbackInfo& info) {
    return guarded(info, [&](Napi::Env env) {
      std::vector<kvm_msr_entry> entries = items_of<kvm_msr_entry>(info[1]);
      entries.resize(vcpu(info[0]).msrs(entries));
      return buffer_of(env, entries);
    });
  }

  Napi::Value set_msrs(const Napi::CallbackInfo& info) {
    return guarded(
        info, [&](Napi::Env env) { return Napi::Number::New(env, static_cast<double>(vcpu(info[0]).set_msrs(items_of<kvm_msr_entry>(info[1])))); });
  }

  Napi::Value state(const Napi::CallbackInfo& info) {
    return guarded(info, [&](Napi::Env env) { return buffer_of(env, machine().state(text_of(info[0]))); });
  }

  void set_state(const Napi::CallbackInfo& info) {
    done(info, [&] { machine().set_state(text_of(info[0]), bytes_of(info[1])); });
  }

  void start(const Napi::CallbackInfo& info) {
    done(info, [&] {
      kvm::Machine& it = machine();
      it.require_not_started();
      if (pod().console != nullptr) pod().console->start();
      it.start();
    });
  }

  void pause(const Napi::CallbackInfo& info) {
    done(info, [&] { machine().pause(); });
  }

  void resume(const Napi::CallbackInfo& info) {
    done(info, [&] { machine().resume(); });
  }

  Napi::Value exits(const Napi::CallbackInfo& info) {
    return each_vcpu(info, [](const kvm::Vcpu& it) { return it.exits(); });
  }

  Napi::Value statistics(const Napi::CallbackInfo& info) {
    return each_vcpu(info, [](const kvm::Vcpu& it) { return it.statistics(); });
  }

  template <typename Counters>
  Napi::Value each_vcpu(const Napi::CallbackInfo& info, Counters&& counters) {
    return guarded(info, [&](Napi::Env env) {
      const Napi::Array out = Napi::Array::New(env);
      for (unsigned id = 0; id < machine().vcpu_count(); ++id) out.Set(id, counters_of(env, counters(machine().vcpu(id))));
      return out;
    });
  }

  void close(const Napi::CallbackInfo& info) {
    done(info, [&] { pod_.reset(); });
  }

  std::unique_ptr<Pod> pod_;
  Napi::ObjectReference ended_;
};

class SystemHandle : public Napi::ObjectWrap<SystemHandle> {
 public:
  static Napi::FunctionReference& constructor() {
    static Napi::FunctionReference reference;
    return reference;
  }

  static void define(Napi::Env env) {
    const Napi::Function type = DefineClass(env, "KvmSystem",
                                            {
                                                InstanceAccessor<&SystemHandle::api_version>("apiVersion"),
                                                InstanceMethod<&SystemHandle::capability>("capability"),
                                                InstanceMethod<&SystemHandle::supported_cpuid>("supportedCpuid"),
                                                InstanceMethod<&SystemHandle::msr_indices>("msrIndices"),
                                                InstanceMethod<&SystemHandle::create_machine>("createMachine"),
                                                InstanceMethod<&SystemHandle::close>("close"),
                                            });
    constructor() = Napi::Persistent(type);
    constructor().SuppressDestruct();
  }

  static Napi::Object make(const std::string& path) {
    auto system = std::make_unique<kvm::System>(path);
    const Napi::Object object = constructor().New({});
    Unwrap(object)->system_ = std::move(system);
    return object;
  }

  explicit SystemHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<SystemHandle>(info) {}

 private:
  const kvm::System& system() const {
    if (system_ == nullptr) throw std::runtime_error("/dev/kvm is closed");
    return *system_;
  }

  Napi::Value api_version(const Napi::CallbackInfo& info) {
    return guarded(info, [&](Napi::Env env) { return Napi::Number::New(env, system().api_version()); });
  }

  Napi::Value capability(const Napi::CallbackInfo& info) {
    return guarded(
        info, [&](Napi::Env env) { return Napi::Number::New(env, system().capability(static_cast<int>(whole(info[0], INT_MAX, "a capability")))); });
  }

  Napi::Value supported_cpuid(const Napi::CallbackInfo& info) {
    return guarded(info, [&](Napi::Env env) { return buffer_of(env, system().supported_cpuid()); });
  }

  Napi::Value msr_indices(const Napi::CallbackInfo& info) {
    return guarded(info, [&](Napi::Env env) {
      const Napi::Array out = Napi::Array::New(env);
      uint32_t i = 0;
      for (const uint32_t index : system().msr_indices()) out.Set(i++, Napi::Number::New(env, index));
      return out;
    });
  }

  Napi::Value create_machine(const Napi::CallbackInfo& info) {
    return guarded(info, [&](Napi::Env env) { return MachineHandle::make(env, system()); });
  }

  void close(const Napi::CallbackInfo&) { system_.reset(); }

  std::unique_ptr<kvm::System> system_;
};

Napi::Value open_kvm(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env) { return SystemHandle::make(text_of(info[0])); });
}

}  // namespace

void export_kvm(Napi::Env env, Napi::Object exports) {
  MachineHandle::define(env);
  SystemHandle::define(env);
  exports.Set("openKvm", Napi::Function::New<open_kvm>(env, "openKvm"));
}

}  // namespace tskata::addon
