// What the addon's subjects share: errno as a JavaScript error with code and syscall, promises settled from other threads.
#pragma once
#include <napi.h>

#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>

namespace tskata::addon {

inline Napi::Error errno_error(Napi::Env env, int error, const std::string& syscall) {
  const char* const name = ::strerrorname_np(error);
  const std::string code = name == nullptr ? "E" + std::to_string(error) : name;
  Napi::Error out = Napi::Error::New(env, (syscall.empty() ? "" : syscall + ": ") + code + " (" + std::strerror(error) + ")");
  out.Set("code", Napi::String::New(env, code));
  out.Set("syscall", Napi::String::New(env, syscall));
  return out;
}

// what() of a std::system_error is "call: text"; the call alone is wanted.
inline std::string syscall_of(const std::system_error& error) {
  const std::string what = error.what();
  const std::string text = ": " + error.code().message();
  return what.ends_with(text) ? what.substr(0, what.size() - text.size()) : what;
}

inline Napi::Error as_js_error(Napi::Env env, const std::exception& error) {
  if (const auto* const system = dynamic_cast<const std::system_error*>(&error)) {
    return errno_error(env, system->code().value(), syscall_of(*system));
  }
  return Napi::Error::New(env, error.what());
}

// Runs `body`; what it throws becomes a JavaScript exception.
template <typename Body>
Napi::Value guarded(const Napi::CallbackInfo& info, Body&& body) {
  try {
    return body(info.Env());
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& error) {
    throw as_js_error(info.Env(), error);
  }
}

inline std::span<const std::byte> bytes_of(const Napi::Value& value) {
  if (!value.IsTypedArray()) throw std::invalid_argument("expected bytes");
  const auto array = value.As<Napi::Uint8Array>();
  return {reinterpret_cast<const std::byte*>(array.Data()), array.ByteLength()};
}

inline uint64_t to_uint64(const Napi::Value& value, const char* name) {
  bool lossless = false;
  const uint64_t out = value.As<Napi::BigInt>().Uint64Value(&lossless);
  if (!lossless) throw std::runtime_error(std::string(name) + " must have 64 bits");
  return out;
}

// Calls into JavaScript from other threads. Keeps the process alive only while `referenced`.
//
// A thread-safe function goes with its environment, whoever still holds it, and an answer of napi_closing is the last that may be asked of
// it: whoever touched it after that would wait for a mutex in freed memory. Its finalizer comes before, so that is where it is let go.
class Callback {
 public:
  Callback(Napi::Env env, Napi::Function function, const char* name, bool referenced) {
    const auto finalize = [state = state_](Napi::Env) {
      const std::lock_guard lock(state->mutex);
      state->gone = true;
    };
    state_->function = Napi::ThreadSafeFunction::New(env, function, name, 0, 1, finalize);
    if (!referenced) state_->function.Unref(env);
  }
  ~Callback() {
    const std::lock_guard lock(state_->mutex);
    if (!state_->gone) state_->function.Release();
  }
  Callback(const Callback&) = delete;
  Callback& operator=(const Callback&) = delete;

  // `make` runs on the JavaScript thread, or not at all when the environment is going down.
  void call(std::function<void(Napi::Env, Napi::Function)> make) const {
    auto boxed = std::make_unique<Body>(std::move(make));
    const std::lock_guard lock(state_->mutex);
    if (state_->gone) return;
    const napi_status status = state_->function.NonBlockingCall(boxed.get(), [](Napi::Env env, Napi::Function function, Body* body) {
      const std::unique_ptr<Body> owned(body);
      if (env != nullptr) (*owned)(env, function);
    });
    if (status == napi_ok) (void)boxed.release();
    else state_->gone = true;
  }

 private:
  using Body = std::function<void(Napi::Env, Napi::Function)>;
  struct State {
    std::mutex mutex;
    Napi::ThreadSafeFunction function;
    bool gone = false;
  };

  std::shared_ptr<State> state_ = std::make_shared<State>();
};

// A promise that any thread may settle, once.
class Settler {
 public:
  Settler(Napi::Env env, bool referenced)
      : deferred_(std::make_shared<Napi::Promise::Deferred>(env)),
        callback_(std::make_shared<Callback>(env, Napi::Function::New(env, [](const Napi::CallbackInfo&) {}), "settle", referenced)) {}

  Napi::Promise promise() const { return deferred_->Promise(); }
  void resolve(std::function<Napi::Value(Napi::Env)> value) const {
    callback_->call([deferred = deferred_, value = std::move(value), keep = callback_](Napi::Env env, Napi::Function) {
      const Napi::HandleScope scope(env);
      deferred->Resolve(value(env));
    });
  }
  void reject(std::function<Napi::Error(Napi::Env)> error) const {
    callback_->call([deferred = deferred_, error = std::move(error), keep = callback_](Napi::Env env, Napi::Function) {
      const Napi::HandleScope scope(env);
      deferred->Reject(error(env).Value());
    });
  }

 private:
  std::shared_ptr<Napi::Promise::Deferred> deferred_;
  std::shared_ptr<Callback> callback_;
};

// What works by itself (on a thread, by calling back) as JavaScript holds it: an object with a close() that ends it. The object lives until
// then, held or not: its work must not end when a garbage collector happens to come by.
template <typename T>
class Closable {
 public:
  static Napi::Object make(Napi::Env env, std::shared_ptr<T> owned) {
    const auto state = std::make_shared<State>(State{std::move(owned), {}});
    const Napi::Object out = Napi::Object::New(env);
    state->self = Napi::Persistent(out);
    out.Set("close", Napi::Function::New(
                         env,
                         [state](const Napi::CallbackInfo&) {
                           state->owned.reset();
                           state->self.Reset();
                         },
                         "close"));
    return out;
  }

 private:
  struct State {
    std::shared_ptr<T> owned;
    Napi::ObjectReference self;
  };
};

}  // namespace tskata::addon
