// The addon's devices: virtio backends and the vhost-user servers that attach them.
#include <sys/socket.h>

#include "addon/exports.h"
#include "addon/napi.h"
#include "devices/fs/fs.h"
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
    return object;
  }

  explicit ServerHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ServerHandle>(info) {}

 private:
  Napi::Value ended(const Napi::CallbackInfo&) { return ended_.Value(); }
  void close(const Napi::CallbackInfo&) { server_.reset(); }

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
    return DeviceHandle::make("fs", std::make_shared<devices::fs::FsDevice>(std::move(options)));
  });
}

Napi::Value connect_vsock(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    DeviceHandle* const handle = DeviceHandle::Unwrap(info[0].As<Napi::Object>());
    const auto device = std::dynamic_pointer_cast<devices::vsock::VsockDevice>(handle->device());
    if (!device) throw std::runtime_error("not a vsock device");
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

Napi::Value serve_vhost_user(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    DeviceHandle* const handle = DeviceHandle::Unwrap(info[0].As<Napi::Object>());
    return ServerHandle::make(env, handle->device(), info[1].As<Napi::String>());
  });
}

Napi::Value tsc_khz(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), os::tsc_khz()); }

}  // namespace

void export_devices(Napi::Env env, Napi::Object exports) {
  DeviceHandle::define(env);
  ServerHandle::define(env);
  exports.Set("createVsock", Napi::Function::New<create_vsock>(env, "createVsock"));
  exports.Set("createFs", Napi::Function::New<create_fs>(env, "createFs"));
  exports.Set("connectVsock", Napi::Function::New<connect_vsock>(env, "connectVsock"));
  exports.Set("tscKhz", Napi::Function::New<tsc_khz>(env, "tscKhz"));
  exports.Set("serveVhostUser", Napi::Function::New<serve_vhost_user>(env, "serveVhostUser"));
}

}  // namespace tskata::addon
