// The addon's door to /dev/kvm: the system, machines, their vCPUs' state, and the slots that attach devices.
#include <fcntl.h>
#include <sys/eventfd.h>

#include <algorithm>

#include "addon/devices.h"
#include "addon/exports.h"
#include "addon/napi.h"
#include "devices/console/console_log.h"
#include "devices/console/uart.h"
#include "kvm/machine.h"
#include "transport/virtio_mmio.h"

namespace tskata::addon {

namespace {

using os::checked;
using os::Descriptor;

// Guest addresses and sizes are JavaScript numbers: whole up to 2^53, more than any guest has.
uint64_t address_of(const Napi::Value& value) {
  const double number = value.As<Napi::Number>().DoubleValue();
  if (!(number >= 0) || number > 9007199254740991.0) throw std::invalid_argument("not an address");
  return static_cast<uint64_t>(number);
}

std::span<const std::byte> bytes_of(const Napi::Value& value) {
  if (!value.IsTypedArray()) throw std::invalid_argument("expected bytes");
  const auto array = value.As<Napi::Uint8Array>();
  return {reinterpret_cast<const std::byte*>(array.Data()), array.ByteLength()};
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
  kvm::Vcpu& vcpu(const Napi::Value& id) const { return machine().vcpu(id.As<Napi::Number>().Uint32Value()); }

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
      const std::string path = info[1].As<Napi::String>();
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

  // The one thing of a PC's keyboard controller that is needed: its status is empty, and the pulse on its reset line ends the machine.
  void add_reset_port(const Napi::CallbackInfo& info) {
    done(info, [&] {
      constexpr auto pulse_reset_line = std::byte{0xfe};
      kvm::Machine& it = machine();
      it.ports().add({info[0].As<Napi::Number>().Uint32Value(), 1, [](uint64_t, std::span<std::byte> out) { std::ranges::fill(out, std::byte{0}); },
                      [&it](uint64_t, std::span<const std::byte> in) {
                        if (in.front() == pulse_reset_line) it.end({"reset"});
                      }});
    });
  }

  void add_uart(const Napi::CallbackInfo& info) {
    done(info, [&] {
      const std::string path = info[2].As<Napi::String>();
      Descriptor file(checked(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600), ("open " + path).c_str()));
      const std::shared_ptr<Descriptor> interrupt = interrupt_line(info[1]);
      Pod& it = pod();
      it.console = std::make_unique<devices::console::ConsoleLog>(std::move(file));
      devices::console::ConsoleLog& log = *it.console;
      // The line is an edge of the interrupt controller's: only its rise is told.
      it.uart = std::make_unique<devices::console::Uart>([&log](uint8_t byte) { log.put(byte); },
                                                         [interrupt](bool level) {
                                                           if (level) signal(*interrupt);
                                                         });
      devices::console::Uart& uart = *it.uart;
      constexpr uint64_t ports = 8;
      machine().ports().add({info[0].As<Napi::Number>().Uint32Value(), ports,
                             [&uart](uint64_t offset, std::span<std::byte> out) {
                               for (std::byte& byte : out) byte = static_cast<std::byte>(uart.read(static_cast<unsigned>(offset++)));
                             },
                             [&uart](uint64_t offset, std::span<const std::byte> in) {
                               for (const std::byte byte : in) uart.write(static_cast<unsigned>(offset++), static_cast<uint8_t>(byte));
                             }});
    });
  }

  static void signal(const Descriptor& event) {
    const uint64_t one = 1;
    (void)!::write(event.get(), &one, sizeof one);
  }

  // An eventfd that raises the line.
  std::shared_ptr<Descriptor> interrupt_line(const Napi::Value& line) const {
    auto out = std::make_shared<Descriptor>(checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd"));
    machine().add_irqfd(out->get(), line.As<Napi::Number>().Uint32Value());
    return out;
  }

  Napi::Value add_slot(const Napi::CallbackInfo& info) {
    return guarded(info, [&](Napi::Env env) {
      const uint64_t address = address_of(info[0]);
      const std::shared_ptr<Descriptor> interrupt = interrupt_line(info[1]);
      auto transport = std::make_unique<transport::VirtioMmio>(machine().memory(), [interrupt] { signal(*interrupt); });
      transport::VirtioMmio* const slot = transport.get();
      machine().mmio().add({address, transport::VirtioMmio::size, [slot](uint64_t offset, std::span<std::byte> out) { slot->read(offset, out); },
                            [slot](uint64_t offset, std::span<const std::byte> in) { slot->write(offset, in); }});
      pod().slots.push_back({address, std::move(transport)});
      return Napi::Number::New(env, static_cast<double>(pod().slots.size() - 1));
    });
  }

  void attach(const Napi::CallbackInfo& info) {
    done(info, [&] {
      Pod::Slot& slot = pod().slots.at(info[0].As<Napi::Number>().Uint32Value());
      slot.transport->attach(device_of(info[1]));
      uint32_t index = 0;
      for (const int fd : slot.transport->notifiers()) {
        machine().add_ioeventfd(fd, slot.address + transport::VirtioMmio::notify_register, index++);
      }
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
      const int fd = info[1].As<Napi::Number>().Int32Value();
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
    return guarded(info, [&](Napi::Env env) { return buffer_of(env, vcpu(info[0]).state(std::string(info[1].As<Napi::String>()))); });
  }

  void set_vcpu_state(const Napi::CallbackInfo& info) {
    done(info, [&] { vcpu(info[0]).set_state(std::string(info[1].As<Napi::String>()), bytes_of(info[2])); });
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
    return guarded(info, [&](Napi::Env env) { return buffer_of(env, machine().state(std::string(info[0].As<Napi::String>()))); });
  }

  void set_state(const Napi::CallbackInfo& info) {
    done(info, [&] { machine().set_state(std::string(info[0].As<Napi::String>()), bytes_of(info[1])); });
  }

  void start(const Napi::CallbackInfo& info) {
    done(info, [&] {
      for (unsigned id = 0; id < machine().vcpu_count(); ++id) machine().vcpu(id).clear_guest_debug();
      machine().start();
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
    return guarded(info, [&](Napi::Env env) { return Napi::Number::New(env, system().capability(info[0].As<Napi::Number>().Int32Value())); });
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
  return guarded(info, [&](Napi::Env) { return SystemHandle::make(std::string(info[0].As<Napi::String>())); });
}

}  // namespace

void export_kvm(Napi::Env env, Napi::Object exports) {
  MachineHandle::define(env);
  SystemHandle::define(env);
  exports.Set("openKvm", Napi::Function::New<open_kvm>(env, "openKvm"));
}

}  // namespace tskata::addon
