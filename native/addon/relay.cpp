// The addon's relays.
#include "linux/relay.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "addon/exports.h"
#include "addon/napi.h"

namespace tskata::addon {

namespace {

using os::Relay;

Napi::Value error_name(Napi::Env env, int error) {
  if (error == 0) return env.Null();
  const char* const name = ::strerrorname_np(error);
  return Napi::String::New(env, name == nullptr ? "EUNKNOWN" : name);
}

// The relay as JavaScript holds it. Its thread keeps it alive: letting go of the object does not end it.
class RelayHandle : public Napi::ObjectWrap<RelayHandle> {
 public:
  static Napi::FunctionReference& constructor() {
    static Napi::FunctionReference reference;
    return reference;
  }

  static void define(Napi::Env env) {
    const Napi::Function type = DefineClass(env, "Relay",
                                            {InstanceAccessor<&RelayHandle::moved>("moved"), InstanceAccessor<&RelayHandle::ended>("ended"),
                                             InstanceMethod<&RelayHandle::drained>("drained"), InstanceMethod<&RelayHandle::reached>("reached"),
                                             InstanceMethod<&RelayHandle::stop>("stop")});
    constructor() = Napi::Persistent(type);
    constructor().SuppressDestruct();
  }

  static Napi::Object make(Napi::Env env, int source, int destination, bool patient) {
    const Napi::Object object = constructor().New({});
    RelayHandle* const handle = Unwrap(object);
    const Settler settler(env, true);
    handle->ended_ = Napi::Persistent(settler.promise().As<Napi::Object>());
    handle->relay_ = Relay::start(os::Descriptor(source), os::Descriptor(destination), {.half_close = false, .patient = patient},
                                  [settler](int error) { settler.resolve([error](Napi::Env at) { return error_name(at, error); }); });
    return object;
  }

  explicit RelayHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<RelayHandle>(info) {}

 private:
  Napi::Value moved(const Napi::CallbackInfo& info) { return Napi::BigInt::New(info.Env(), relay_->moved()); }
  Napi::Value ended(const Napi::CallbackInfo&) { return ended_.Value(); }
  void stop(const Napi::CallbackInfo&) { relay_->stop(); }

  Napi::Value drained(const Napi::CallbackInfo& info) {
    const Settler settler(info.Env(), true);
    relay_->when_drained([settler](uint64_t read) { settler.resolve([read](Napi::Env at) { return Napi::BigInt::New(at, read); }); });
    return settler.promise();
  }

  Napi::Value reached(const Napi::CallbackInfo& info) {
    return guarded(info, [&](Napi::Env env) {
      bool lossless = false;
      const uint64_t bytes = info[0].As<Napi::BigInt>().Uint64Value(&lossless);
      const Settler settler(env, true);
      relay_->when_reached(bytes, [settler] { settler.resolve([](Napi::Env at) { return at.Undefined(); }); });
      return settler.promise();
    });
  }

  std::shared_ptr<Relay> relay_;
  Napi::ObjectReference ended_;
};

// A descriptor that is none would never become readable or writable, and so never end. Checked before anything is taken over.
int open_descriptor(const Napi::Value& value) {
  const int fd = value.As<Napi::Number>().Int32Value();
  os::checked(::fcntl(fd, F_GETFD), "fcntl");
  return fd;
}

Napi::Value make_relay(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    const int source = open_descriptor(info[0]);
    return RelayHandle::make(env, source, open_descriptor(info[1]), info[2].ToBoolean());
  });
}

// Both directions of `fd` relayed to one end of a socket pair; the other end is the answer.
Napi::Value bridge(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    os::Descriptor stream(open_descriptor(info[0]));
    int pair[2];
    os::checked(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), "socketpair");
    os::Descriptor ours(pair[0]);
    os::Descriptor theirs(pair[1]);
    os::Descriptor stream_again(os::checked(::fcntl(stream.get(), F_DUPFD_CLOEXEC, 3), "fcntl"));
    os::Descriptor ours_again(os::checked(::fcntl(ours.get(), F_DUPFD_CLOEXEC, 3), "fcntl"));
    Relay::start(std::move(stream), std::move(ours), {.half_close = true}, [](int) {});
    Relay::start(std::move(ours_again), std::move(stream_again), {.half_close = true}, [](int) {});
    return Napi::Number::New(env, theirs.release());
  });
}

}  // namespace

void export_relay(Napi::Env env, Napi::Object exports) {
  RelayHandle::define(env);
  exports.Set("relay", Napi::Function::New<make_relay>(env, "relay"));
  exports.Set("bridge", Napi::Function::New<bridge>(env, "bridge"));
}

}  // namespace tskata::addon
