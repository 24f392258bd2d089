// The addon's mounts: detached trees and where they go.
#include "linux/mounts.h"

#include <sys/mount.h>

#include "addon/exports.h"
#include "addon/napi.h"

namespace tskata::addon {

namespace {

Napi::Value open_tree(const Napi::CallbackInfo& info) {
  return guarded(
      info, [&](Napi::Env env) { return Napi::Number::New(env, os::open_tree(info[0].As<Napi::String>(), info[1].As<Napi::Boolean>()).release()); });
}

uint64_t propagation(const Napi::Value& name) {
  if (name.IsUndefined()) return 0;
  return name.As<Napi::String>().Utf8Value() == "slave" ? MS_SLAVE : MS_PRIVATE;
}

Napi::Value set_tree_attributes(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    const Napi::Object from = info[1].As<Napi::Object>();
    const auto flag = [&](const char* name) { return from.Get(name).ToBoolean().Value(); };
    os::set_tree_attributes(info[0].As<Napi::Number>(),
                            {flag("readonly"), flag("nodev"), flag("nosuid"), flag("recursive"), propagation(from.Get("propagation"))});
    return env.Undefined();
  });
}

// The calls below wait for another thread; they do so off the JavaScript thread.
class MountWork : public Napi::AsyncWorker {
 public:
  MountWork(Napi::Env env, std::function<void()> body)
      : Napi::AsyncWorker(env), deferred_(Napi::Promise::Deferred::New(env)), body_(std::move(body)) {}
  Napi::Promise promise() const { return deferred_.Promise(); }

 private:
  void Execute() override {
    try {
      body_();
    } catch (...) {
      failure_ = std::current_exception();
    }
  }
  void OnOK() override {
    if (!failure_) return deferred_.Resolve(Env().Undefined());
    try {
      std::rethrow_exception(failure_);
    } catch (const std::exception& error) {
      deferred_.Reject(as_js_error(Env(), error).Value());
    }
  }

  Napi::Promise::Deferred deferred_;
  std::function<void()> body_;
  std::exception_ptr failure_;
};

Napi::Value start(Napi::Env env, std::function<void()> body) {
  auto* const work = new MountWork(env, std::move(body));  // deletes itself when done
  const Napi::Promise promise = work->promise();
  work->Queue();
  return promise;
}

Napi::Value place_tree(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    const os::Place place{info[2].As<Napi::String>(), info[3].As<Napi::String>(), info[4].As<Napi::String>().Utf8Value() == "directory",
                          info[5].As<Napi::String>().Utf8Value() == "if-empty"};
    return start(env, [tree = info[0].As<Napi::Number>().Int32Value(), pid = info[1].As<Napi::Number>().Int32Value(), place] {
      os::place_tree(tree, pid, place);
    });
  });
}

Napi::Value remove_tree(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    return start(env, [pid = info[0].As<Napi::Number>().Int32Value(), root = info[1].As<Napi::String>().Utf8Value(),
                       target = info[2].As<Napi::String>().Utf8Value()] { os::remove_tree(pid, root, target); });
  });
}

}  // namespace

void export_mounts(Napi::Env env, Napi::Object exports) {
  exports.Set("openTree", Napi::Function::New<open_tree>(env, "openTree"));
  exports.Set("setTreeAttributes", Napi::Function::New<set_tree_attributes>(env, "setTreeAttributes"));
  exports.Set("placeTree", Napi::Function::New<place_tree>(env, "placeTree"));
  exports.Set("removeTree", Napi::Function::New<remove_tree>(env, "removeTree"));
}

}  // namespace tskata::addon
