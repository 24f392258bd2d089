// The addon's guest subject: AF_VSOCK listeners and what only PID 1 of a machine does.
#include <fcntl.h>
#include <linux/random.h>
#include <net/if.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <unistd.h>

#include <span>
#include <vector>

#include "addon/exports.h"
#include "addon/napi.h"
#include "linux/device_filter.h"
#include "linux/reaper.h"
#include "linux/stream_listener.h"
#include "linux/unix_socket.h"

namespace tskata::addon {

namespace {

using os::checked;

os::Descriptor listen_at(const Napi::Object& address) {
  if (address.Has("unixPath")) return os::listen_unix(address.Get("unixPath").As<Napi::String>(), SOCK_STREAM, 128);
  const uint64_t receive_bytes = address.Has("receiveBytes") ? address.Get("receiveBytes").As<Napi::Number>().Uint32Value() : 0;
  return os::listen_vsock(address.Get("vsockPort").As<Napi::Number>().Uint32Value(), receive_bytes);
}

Napi::Value listen(const Napi::CallbackInfo& info, bool tagged) {
  return guarded(info, [&](Napi::Env env) {
    const Napi::Object address = info[0].As<Napi::Object>();
    const auto callback = std::make_shared<Callback>(env, info[1].As<Napi::Function>(), "listen", true);
    auto listener = std::make_shared<os::StreamListener>(listen_at(address), tagged, [callback, tagged](os::Descriptor stream, uint64_t id) {
      const int fd = stream.release();
      callback->call([fd, id, tagged](Napi::Env at, Napi::Function function) {
        if (tagged) function.Call({Napi::Number::New(at, fd), Napi::BigInt::New(at, id)});
        else function.Call({Napi::Number::New(at, fd)});
      });
    });
    return Closable<os::StreamListener>::make(env, std::move(listener));
  });
}

Napi::Value listen_stream(const Napi::CallbackInfo& info) { return listen(info, false); }
Napi::Value listen_tagged(const Napi::CallbackInfo& info) { return listen(info, true); }

Napi::Value connect_vsock_host(const Napi::CallbackInfo& info) {
  return guarded(info,
                 [&](Napi::Env env) { return Napi::Number::New(env, os::connect_vsock_host(info[0].As<Napi::Number>().Uint32Value()).release()); });
}

Napi::Value start_reaper(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    const auto callback = std::make_shared<Callback>(env, info[0].As<Napi::Function>(), "reaper", true);
    os::start_reaper([callback](int pid, int status) {
      callback->call([pid, status](Napi::Env at, Napi::Function function) {
        function.Call({Napi::Number::New(at, pid), Napi::Number::New(at, status)});
      });
    });
    return env.Undefined();
  });
}

Napi::Value do_mount(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    const std::string source = info[0].As<Napi::String>(), target = info[1].As<Napi::String>(), type = info[2].As<Napi::String>();
    const std::string data = info[4].As<Napi::String>();
    const auto flags = static_cast<unsigned long>(info[3].As<Napi::Number>().Int64Value());
    checked(::mount(source.c_str(), target.c_str(), type.c_str(), flags, data.c_str()), ("mount " + target).c_str());
    return env.Undefined();
  });
}

Napi::Value do_umount(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    const std::string target = info[0].As<Napi::String>();
    checked(::umount2(target.c_str(), info[1].As<Napi::Number>().Int32Value()), ("umount " + target).c_str());
    return env.Undefined();
  });
}

// On the calling thread, so that the file server sees the agent's own process ask (devices/fs/server.cpp).
Napi::Value do_syncfs(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    const std::string path = info[0].As<Napi::String>();
    const os::Descriptor folder(checked(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), ("open " + path).c_str()));
    checked(::syncfs(folder.get()), ("syncfs " + path).c_str());
    return env.Undefined();
  });
}

Napi::Value set_hostname(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    const std::string name = info[0].As<Napi::String>();
    checked(::sethostname(name.data(), name.size()), "sethostname");
    return env.Undefined();
  });
}

// random(4): RNDADDENTROPY credits what it is given, which writing to the device does not.
Napi::Value add_entropy(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    const Napi::Uint8Array bytes = info[0].As<Napi::Uint8Array>();
    const size_t length = std::min<size_t>(bytes.ByteLength(), 4096);
    std::vector<char> request(sizeof(rand_pool_info) + length);
    auto* const pool = reinterpret_cast<rand_pool_info*>(request.data());
    pool->entropy_count = static_cast<int>(length * 8);
    pool->buf_size = static_cast<int>(length);
    std::memcpy(request.data() + sizeof(rand_pool_info), bytes.Data(), length);
    const os::Descriptor device(checked(::open("/dev/urandom", O_WRONLY | O_CLOEXEC), "open /dev/urandom"));
    checked(::ioctl(device.get(), RNDADDENTROPY, pool), "RNDADDENTROPY");
    return env.Undefined();
  });
}

Napi::Value do_reboot(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    ::sync();
    checked(::reboot(info[0].As<Napi::String>().Utf8Value() == "poweroff" ? RB_POWER_OFF : RB_AUTOBOOT), "reboot");
    return env.Undefined();
  });
}

Napi::Value set_link_up(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    const os::Descriptor socket(checked(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket"));
    ifreq request{};
    const std::string name = info[0].As<Napi::String>();
    name.copy(request.ifr_name, IFNAMSIZ - 1);
    checked(::ioctl(socket.get(), SIOCGIFFLAGS, &request), "SIOCGIFFLAGS");
    request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
    checked(::ioctl(socket.get(), SIOCSIFFLAGS, &request), "SIOCSIFFLAGS");
    return env.Undefined();
  });
}

// process.kill() of node knows no real-time signals by name and takes 0 for "all of the group" as kill(2) does; this refuses it.
Napi::Value send_signal(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    const int pid = info[0].As<Napi::Number>().Int32Value();
    if (pid <= 1) throw std::system_error(EPERM, std::generic_category(), "kill");
    checked(::kill(pid, info[1].As<Napi::Number>().Int32Value()), "kill");
    return env.Undefined();
  });
}

Napi::Value set_device_filter(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    const Napi::Uint8Array program = info[1].As<Napi::Uint8Array>();
    os::set_device_filter(info[0].As<Napi::String>(), std::as_bytes(std::span(program.Data(), program.ByteLength())));
    return env.Undefined();
  });
}

}  // namespace

void export_guest(Napi::Env env, Napi::Object exports) {
  exports.Set("listenStream", Napi::Function::New<listen_stream>(env, "listenStream"));
  exports.Set("listenTagged", Napi::Function::New<listen_tagged>(env, "listenTagged"));
  exports.Set("connectVsockHost", Napi::Function::New<connect_vsock_host>(env, "connectVsockHost"));
  exports.Set("startReaper", Napi::Function::New<start_reaper>(env, "startReaper"));
  exports.Set("mount", Napi::Function::New<do_mount>(env, "mount"));
  exports.Set("umount", Napi::Function::New<do_umount>(env, "umount"));
  exports.Set("syncfs", Napi::Function::New<do_syncfs>(env, "syncfs"));
  exports.Set("sethostname", Napi::Function::New<set_hostname>(env, "sethostname"));
  exports.Set("addEntropy", Napi::Function::New<add_entropy>(env, "addEntropy"));
  exports.Set("reboot", Napi::Function::New<do_reboot>(env, "reboot"));
  exports.Set("setLinkUp", Napi::Function::New<set_link_up>(env, "setLinkUp"));
  exports.Set("kill", Napi::Function::New<send_signal>(env, "kill"));
  exports.Set("setDeviceFilter", Napi::Function::New<set_device_filter>(env, "setDeviceFilter"));
}

}  // namespace tskata::addon
