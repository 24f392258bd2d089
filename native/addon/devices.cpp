// The addon's devices: virtio backends and the vhost-user servers that attach them.
#include "addon/devices.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "addon/exports.h"
#include "addon/napi.h"
#include "devices/balloon/balloon.h"
#include "devices/blk/blk.h"
#include "devices/fs/fs.h"
#include "devices/net/net.h"
#include "devices/pmem/pmem.h"
#include "devices/rng/rng.h"
#include "devices/vsock/vsock.h"
#include "linux/tsc.h"
#include "linux/unix_socket.h"
#include "transport/vhost_user.h"

namespace tskata::addon {

namespace {

// A device as JavaScript holds it. Servers share the device, so closing one while QEMU still speaks to it is safe.
class DeviceHandle : public Napi::ObjectWrap<DeviceHandle> {
 public:
  static Napi::FunctionReference& constructor() {
    static Napi::FunctionReference reference;
    return reference;
  }

  static void define(Napi::Env env) {
    const Napi::Function type =
        DefineClass(env, "VirtioDevice", {InstanceAccessor<&DeviceHandle::kind>("kind"), InstanceMethod<&DeviceHandle::close>("close")});
    constructor() = Napi::Persistent(type);
    constructor().SuppressDestruct();
  }

  static Napi::Object make(std::string kind, std::shared_ptr<virtio::Device> device) {
    const Napi::Object object = constructor().New({});
    DeviceHandle* const handle = Unwrap(object);
    handle->kind_ = std::move(kind);
    handle->device_ = std::move(device);
    return object;
  }

  explicit DeviceHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<DeviceHandle>(info) {}

  const std::shared_ptr<virtio::Device>& device() const {
    if (!device_) throw std::runtime_error("the device is closed");
    return device_;
  }

 private:
  Napi::Value kind(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), kind_); }
  void close(const Napi::CallbackInfo&) { device_.reset(); }

  std::string kind_;
  std::shared_ptr<virtio::Device> device_;
};

class ServerHandle : public Napi::ObjectWrap<ServerHandle> {
 public:
  static Napi::FunctionReference& constructor() {
    static Napi::FunctionReference reference;
    return reference;
  }

  static void define(Napi::Env env) {
    const Napi::Function type =
        DefineClass(env, "VhostUserServer", {InstanceAccessor<&ServerHandle::ended>("ended"), InstanceMethod<&ServerHandle::close>("close")});
    constructor() = Napi::Persistent(type);
    constructor().SuppressDestruct();
  }

  static Napi::Object make(Napi::Env env, std::shared_ptr<virtio::Device> device, const std::string& path) {
    const Napi::Object object = constructor().New({});
    ServerHandle* const handle = Unwrap(object);
    const Settler settler(env, false);
    handle->ended_ = Napi::Persistent(settler.promise().As<Napi::Object>());
    handle->server_ = std::make_unique<transport::VhostUserServer>(std::move(device), path, [settler](const std::string& reason) {
      settler.resolve([reason](Napi::Env at) { return reason.empty() ? at.Null() : Napi::Value(Napi::String::New(at, reason)); });
    });
    handle->Ref();  // until close(): it serves though nothing holds it
    return object;
  }

  explicit ServerHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ServerHandle>(info) {}

 private:
  Napi::Value ended(const Napi::CallbackInfo&) { return ended_.Value(); }
  void close(const Napi::CallbackInfo&) {
    if (server_) Unref();
    server_.reset();
  }

  std::unique_ptr<transport::VhostUserServer> server_;
  Napi::ObjectReference ended_;
};

Napi::Value create_vsock(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env) {
    const Napi::Object from = info[0].As<Napi::Object>();
    devices::vsock::VsockOptions options;
    options.guest_cid = from.Get("guestCid").As<Napi::Number>().Uint32Value();
    options.path = from.Get("path").As<Napi::String>();
    const Napi::Array ports = from.Get("guestPorts").As<Napi::Array>();
    for (uint32_t i = 0; i < ports.Length(); ++i) {
      options.guest_ports.push_back(ports.Get(i).As<Napi::Number>().Uint32Value());
    }
    return DeviceHandle::make("vsock", std::make_shared<devices::vsock::VsockDevice>(std::move(options)));
  });
}

Napi::Value create_fs(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env) {
    const Napi::Object from = info[0].As<Napi::Object>();
    devices::fs::FsOptions options;
    options.root = from.Get("root").As<Napi::String>();
    options.tag = from.Get("tag").As<Napi::String>();
    options.threads = from.Get("threads").As<Napi::Number>().Uint32Value();
    if (const Napi::Value patience = from.Get("patienceUs"); patience.IsNumber()) {
      options.patience = std::chrono::microseconds(patience.As<Napi::Number>().Uint32Value());
    }
    if (const Napi::Value writeback = from.Get("writeback"); writeback.IsBoolean()) options.writeback = writeback.As<Napi::Boolean>();
    if (const Napi::Value share = from.Get("share"); share.IsNumber()) options.share = share.As<Napi::Number>().DoubleValue();
    if (const Napi::Value keeper = from.Get("keeperFd"); keeper.IsNumber()) {
      options.keeper.reset(keeper.As<Napi::Number>().Int32Value());
      os::checked(::fcntl(options.keeper.get(), F_SETFD, FD_CLOEXEC), "fcntl");  // it came by execve, and goes no further
    }
    return DeviceHandle::make("fs", std::make_shared<devices::fs::FsDevice>(std::move(options)));
  });
}

// A device owns its descriptors; the caller's stays the caller's, as everywhere in the addon.
os::Descriptor duplicate(const Napi::Value& fd) {
  return os::Descriptor(os::checked(::fcntl(fd.As<Napi::Number>().Int32Value(), F_DUPFD_CLOEXEC, 3), "dup"));
}

Napi::Value create_blk(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env) {
    const Napi::Object from = info[0].As<Napi::Object>();
    devices::blk::BlkOptions options;
    options.readonly = from.Get("readonly").As<Napi::Boolean>();
    options.id = from.Get("id").As<Napi::String>();
    options.file = from.Has("fd") ? duplicate(from.Get("fd")) : devices::blk::open_disk(from.Get("path").As<Napi::String>(), options.readonly);
    return DeviceHandle::make("blk", std::make_shared<devices::blk::BlkDevice>(std::move(options)));
  });
}

Napi::Value create_rng(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env) { return DeviceHandle::make("rng", std::make_shared<devices::rng::RngDevice>()); });
}

Napi::Value create_pmem(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env) {
    const Napi::Object from = info[0].As<Napi::Object>();
    devices::pmem::PmemOptions options;
    options.guest_address = to_uint64(from.Get("guestAddress"), "guestAddress");
    options.size = to_uint64(from.Get("size"), "size");
    if (from.Has("fd")) options.file = duplicate(from.Get("fd"));
    return DeviceHandle::make("pmem", std::make_shared<devices::pmem::PmemDevice>(std::move(options)));
  });
}

Napi::Value create_net(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env) {
    const Napi::Object from = info[0].As<Napi::Object>();
    devices::net::NetOptions options;
    const Napi::Array taps = from.Get("taps").As<Napi::Array>();
    for (uint32_t i = 0; i < taps.Length(); ++i) options.taps.push_back(duplicate(taps.Get(i)));
    const auto mac = from.Get("mac").As<Napi::Uint8Array>();
    if (mac.ByteLength() != options.mac.size()) throw std::runtime_error("mac must have 6 bytes");
    std::memcpy(options.mac.data(), mac.Data(), options.mac.size());
    const uint32_t mtu = from.Get("mtu").As<Napi::Number>().Uint32Value();
    if (mtu > UINT16_MAX) throw std::runtime_error("mtu must be at most 65535");
    options.mtu = static_cast<uint16_t>(mtu);
    return DeviceHandle::make("net", std::make_shared<devices::net::NetDevice>(std::move(options)));
  });
}

Napi::Value create_balloon(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env) { return DeviceHandle::make("balloon", std::make_shared<devices::balloon::BalloonDevice>()); });
}

// The device of a handle as what it is; `kind` is for the error.
template <typename Device>
std::shared_ptr<Device> device_as(const Napi::Value& handle, const char* kind) {
  auto out = std::dynamic_pointer_cast<Device>(device_of(handle));
  if (!out) throw std::runtime_error(std::string("not a ") + kind + " device");
  return out;
}

std::shared_ptr<devices::balloon::BalloonDevice> balloon_of(const Napi::Value& handle) {
  return device_as<devices::balloon::BalloonDevice>(handle, "balloon");
}

Napi::Value set_balloon_target(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    balloon_of(info[0])->set_target(info[1].As<Napi::Number>().Uint32Value());
    return env.Undefined();
  });
}

Napi::Value balloon_actual(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) { return Napi::Number::New(env, balloon_of(info[0])->actual()); });
}

Napi::Value connect_vsock(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    const auto device = device_as<devices::vsock::VsockDevice>(info[0], "vsock");
    const uint32_t port = info[1].As<Napi::Number>().Uint32Value();
    int pair[2];
    os::checked(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), "socketpair");
    const auto ours = std::make_shared<os::Descriptor>(pair[0]);
    const Settler settler(env, true);
    device->connect(port, os::Descriptor(pair[1]), [settler, ours](int error, uint32_t) {
      if (error != 0) {
        return settler.reject([error](Napi::Env at) { return errno_error(at, error, "connect to guest port"); });
      }
      const int fd = ours->release();
      settler.resolve([fd](Napi::Env at) { return Napi::Number::New(at, fd); });
    });
    return settler.promise();
  });
}

Napi::Value guest_has_gone(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    device_as<devices::vsock::VsockDevice>(info[0], "vsock")->guest_has_gone();
    return env.Undefined();
  });
}

Napi::Value change_value(Napi::Env env, const devices::fs::Change& change) {
  const auto name = [env](const std::string& text) { return Napi::Buffer<char>::Copy(env, text.data(), text.size()); };
  const Napi::Object out = Napi::Object::New(env);
  out.Set("kind", Napi::Number::New(env, static_cast<uint32_t>(change.kind)));
  out.Set("directory", Napi::Boolean::New(env, change.directory));
  out.Set("folder", Napi::BigInt::New(env, change.folder));
  out.Set("name", name(change.name));
  out.Set("newFolder", Napi::BigInt::New(env, change.new_folder));
  out.Set("newName", name(change.new_name));
  return out;
}

Napi::Value host_changes(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    const auto device = device_as<devices::fs::FsDevice>(info[0], "fs");
    const Settler settler(env, false);
    device->next_changes(info[1].As<Napi::Number>().Uint32Value(), [settler](std::vector<devices::fs::Change> changes) {
      settler.resolve([changes = std::move(changes)](Napi::Env at) {
        const Napi::Array out = Napi::Array::New(at, changes.size());
        for (uint32_t i = 0; i < changes.size(); ++i) out.Set(i, change_value(at, changes[i]));
        return out;
      });
    });
    return settler.promise();
  });
}

Napi::Value serve_vhost_user(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) { return ServerHandle::make(env, device_of(info[0]), info[1].As<Napi::String>()); });
}

Napi::Value tsc_khz(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), os::tsc_khz()); }

}  // namespace

std::shared_ptr<virtio::Device> device_of(const Napi::Value& handle) {
  if (!handle.IsObject() || !handle.As<Napi::Object>().InstanceOf(DeviceHandle::constructor().Value())) throw std::invalid_argument("not a device");
  return DeviceHandle::Unwrap(handle.As<Napi::Object>())->device();
}

void export_devices(Napi::Env env, Napi::Object exports) {
  DeviceHandle::define(env);
  ServerHandle::define(env);
  exports.Set("createVsock", Napi::Function::New<create_vsock>(env, "createVsock"));
  exports.Set("createFs", Napi::Function::New<create_fs>(env, "createFs"));
  exports.Set("hostChanges", Napi::Function::New<host_changes>(env, "hostChanges"));
  exports.Set("createBlk", Napi::Function::New<create_blk>(env, "createBlk"));
  exports.Set("createRng", Napi::Function::New<create_rng>(env, "createRng"));
  exports.Set("createPmem", Napi::Function::New<create_pmem>(env, "createPmem"));
  exports.Set("createNet", Napi::Function::New<create_net>(env, "createNet"));
  exports.Set("createBalloon", Napi::Function::New<create_balloon>(env, "createBalloon"));
  exports.Set("setBalloonTarget", Napi::Function::New<set_balloon_target>(env, "setBalloonTarget"));
  exports.Set("balloonActual", Napi::Function::New<balloon_actual>(env, "balloonActual"));
  exports.Set("connectVsock", Napi::Function::New<connect_vsock>(env, "connectVsock"));
  exports.Set("guestHasGone", Napi::Function::New<guest_has_gone>(env, "guestHasGone"));
  exports.Set("tscKhz", Napi::Function::New<tsc_khz>(env, "tscKhz"));
  exports.Set("serveVhostUser", Napi::Function::New<serve_vhost_user>(env, "serveVhostUser"));
}

}  // namespace tskata::addon
