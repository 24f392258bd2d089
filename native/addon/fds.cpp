// The addon's descriptors: pairs, pipes, passing, ptys.
#include <fcntl.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>

#include <array>

#include "addon/exports.h"
#include "addon/napi.h"
#include "linux/packet_socket.h"
#include "linux/unix_socket.h"

namespace tskata::addon {

namespace {

using os::checked;

int fd_of(const Napi::Value& value) { return value.As<Napi::Number>().Int32Value(); }

int socket_type(const Napi::Value& value) { return value.As<Napi::String>().Utf8Value() == "seqpacket" ? SOCK_SEQPACKET : SOCK_STREAM; }

Napi::Array pair_of(Napi::Env env, const std::array<int, 2>& fds) {
  const Napi::Array out = Napi::Array::New(env, 2);
  out.Set(0u, Napi::Number::New(env, fds[0]));
  out.Set(1u, Napi::Number::New(env, fds[1]));
  return out;
}

Napi::Value close_fd(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    checked(::close(fd_of(info[0])), "close");
    return env.Undefined();
  });
}

Napi::Value socket_pair(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    std::array<int, 2> fds;
    checked(::socketpair(AF_UNIX, socket_type(info[0]) | SOCK_CLOEXEC, 0, fds.data()), "socketpair");
    return pair_of(env, fds);
  });
}

Napi::Value make_pipe(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    std::array<int, 2> fds;
    checked(::pipe2(fds.data(), O_CLOEXEC), "pipe2");
    // Its size is a wish: the kernel has a limit on what one user's pipes hold.
    if (info[0].IsNumber()) (void)::fcntl(fds[0], F_SETPIPE_SZ, info[0].As<Napi::Number>().Int32Value());
    return pair_of(env, fds);
  });
}

Napi::Value dup_fd(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) { return Napi::Number::New(env, checked(::fcntl(fd_of(info[0]), F_DUPFD_CLOEXEC, 3), "fcntl")); });
}

Napi::Value send_fds(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    const Napi::Array from = info[2].As<Napi::Array>();
    std::vector<int> fds;
    for (uint32_t i = 0; i < from.Length(); ++i) fds.push_back(fd_of(from.Get(i)));
    os::send_packet(fd_of(info[0]), bytes_of(info[1]), fds);
    return env.Undefined();
  });
}

Napi::Value connect_unix(const Napi::CallbackInfo& info) {
  return guarded(info,
                 [&](Napi::Env env) { return Napi::Number::New(env, os::connect_unix(info[0].As<Napi::String>(), socket_type(info[1])).release()); });
}

Napi::Value receive_fds(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    const auto callback = std::make_shared<Callback>(env, info[1].As<Napi::Function>(), "receiveFds", false);
    auto receiver = std::make_shared<os::FdReceiver>(info[0].As<Napi::String>(), [callback](os::Packet packet) {
      const auto shared = std::make_shared<os::Packet>(std::move(packet));
      callback->call([shared](Napi::Env at, Napi::Function function) {
        const Napi::Array fds = Napi::Array::New(at, shared->fds.size());
        for (uint32_t i = 0; i < shared->fds.size(); ++i) fds.Set(i, Napi::Number::New(at, shared->fds[i].release()));
        const auto* const data = reinterpret_cast<const char*>(shared->bytes.data());
        function.Call({Napi::Buffer<char>::Copy(at, data, shared->bytes.size()), fds});
      });
    });
    return Closable<os::FdReceiver>::make(env, std::move(receiver));
  });
}

Napi::Value packet_socket(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    const auto callback = std::make_shared<Callback>(env, info[1].As<Napi::Function>(), "packetSocket", false);
    auto socket = std::make_shared<os::PacketSocket>(os::Descriptor(fd_of(info[0])), [callback](std::vector<std::byte> message) {
      callback->call([message = std::move(message)](Napi::Env at, Napi::Function function) {
        if (message.empty()) return (void)function.Call({at.Null()});
        function.Call({Napi::Buffer<char>::Copy(at, reinterpret_cast<const char*>(message.data()), message.size())});
      });
    });
    const std::weak_ptr<os::PacketSocket> open = socket;
    const Napi::Object out = Closable<os::PacketSocket>::make(env, std::move(socket));
    out.Set("send", Napi::Function::New(
                        env,
                        [open](const Napi::CallbackInfo& call) {
                          guarded(call, [&](Napi::Env at) {
                            const auto peer = open.lock();
                            if (!peer) throw std::system_error(EPIPE, std::generic_category(), "send");
                            peer->send(bytes_of(call[0]));
                            return at.Undefined();
                          });
                        },
                        "send"));
    return out;
  });
}

Napi::Value open_host_pty(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    os::Descriptor master(checked(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), "posix_openpt"));
    checked(::grantpt(master.get()), "grantpt");
    checked(::unlockpt(master.get()), "unlockpt");
    os::Descriptor slave(checked(::ioctl(master.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC), "TIOCGPTPEER"));
    termios settings{};
    checked(::tcgetattr(slave.get(), &settings), "tcgetattr");
    ::cfmakeraw(&settings);
    checked(::tcsetattr(slave.get(), TCSANOW, &settings), "tcsetattr");
    const Napi::Object out = Napi::Object::New(env);
    out.Set("master", Napi::Number::New(env, master.release()));
    out.Set("slave", Napi::Number::New(env, slave.release()));
    return out;
  });
}

Napi::Value get_window_size(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    winsize size{};
    checked(::ioctl(fd_of(info[0]), TIOCGWINSZ, &size), "TIOCGWINSZ");
    const Napi::Object out = Napi::Object::New(env);
    out.Set("rows", Napi::Number::New(env, size.ws_row));
    out.Set("columns", Napi::Number::New(env, size.ws_col));
    return out;
  });
}

Napi::Value set_window_size(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    winsize size{};
    size.ws_row = static_cast<uint16_t>(info[1].As<Napi::Number>().Uint32Value());
    size.ws_col = static_cast<uint16_t>(info[2].As<Napi::Number>().Uint32Value());
    checked(::ioctl(fd_of(info[0]), TIOCSWINSZ, &size), "TIOCSWINSZ");
    return env.Undefined();
  });
}

Napi::Value is_a_tty(const Napi::CallbackInfo& info) { return Napi::Boolean::New(info.Env(), ::isatty(fd_of(info[0])) == 1); }

Napi::Value make_raw(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    const int fd = fd_of(info[0]);
    termios before{};
    checked(::tcgetattr(fd, &before), "tcgetattr");
    termios raw = before;
    ::cfmakeraw(&raw);
    checked(::tcsetattr(fd, TCSADRAIN, &raw), "tcsetattr");
    return Napi::Function::New(
        env, [fd, before](const Napi::CallbackInfo&) { (void)::tcsetattr(fd, TCSADRAIN, &before); }, "restore");
  });
}

}  // namespace

void export_fds(Napi::Env env, Napi::Object exports) {
  exports.Set("closeFd", Napi::Function::New<close_fd>(env, "closeFd"));
  exports.Set("socketpair", Napi::Function::New<socket_pair>(env, "socketpair"));
  exports.Set("pipe", Napi::Function::New<make_pipe>(env, "pipe"));
  exports.Set("dupFd", Napi::Function::New<dup_fd>(env, "dupFd"));
  exports.Set("sendFds", Napi::Function::New<send_fds>(env, "sendFds"));
  exports.Set("connectUnix", Napi::Function::New<connect_unix>(env, "connectUnix"));
  exports.Set("receiveFds", Napi::Function::New<receive_fds>(env, "receiveFds"));
  exports.Set("packetSocket", Napi::Function::New<packet_socket>(env, "packetSocket"));
  exports.Set("openHostPty", Napi::Function::New<open_host_pty>(env, "openHostPty"));
  exports.Set("getWindowSize", Napi::Function::New<get_window_size>(env, "getWindowSize"));
  exports.Set("setWindowSize", Napi::Function::New<set_window_size>(env, "setWindowSize"));
  exports.Set("isatty", Napi::Function::New<is_a_tty>(env, "isatty"));
  exports.Set("makeRaw", Napi::Function::New<make_raw>(env, "makeRaw"));
}

}  // namespace tskata::addon
