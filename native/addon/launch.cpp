// The addon's launches: the launcher runs on a thread of the pool, its failure becomes a LaunchFailure.
#include "linux/launch.h"

#include <cstring>
#include <optional>

#include "addon/exports.h"
#include "addon/napi.h"

namespace tskata::addon {

namespace {

Napi::Error launch_error(Napi::Env env, const os::LaunchFailure& failure) {
  const char* const name = failure.error == 0 ? "" : ::strerrorname_np(failure.error);
  const std::string code = name == nullptr ? "EUNKNOWN" : name;
  Napi::Error out = Napi::Error::New(env, code.empty() ? failure.step : failure.step + ": " + code);
  out.Set("step", Napi::String::New(env, failure.step));
  out.Set("code", Napi::String::New(env, code));
  return out;
}

class Work : public Napi::AsyncWorker {
 public:
  explicit Work(Napi::Env env) : Napi::AsyncWorker(env), deferred_(Napi::Promise::Deferred::New(env)) {}
  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  virtual void work() = 0;
  virtual Napi::Value result() = 0;

 private:
  void Execute() override {
    try {
      work();
    } catch (const os::LaunchFailure& failure) {
      failure_ = failure;
    } catch (const std::exception& error) {
      failure_ = os::LaunchFailure{error.what(), 0};
    }
  }
  void OnOK() override {
    if (failure_) deferred_.Reject(launch_error(Env(), *failure_).Value());
    else deferred_.Resolve(result());
  }

  Napi::Promise::Deferred deferred_;
  std::optional<os::LaunchFailure> failure_;
};

class ReleaseWork final : public Work {
 public:
  ReleaseWork(Napi::Env env, std::shared_ptr<os::Launched> process) : Work(env), process_(std::move(process)) {}

 private:
  void work() override {
    if (!*process_->socket) throw os::LaunchFailure{"the process was released already", 0};
    os::release(*process_);
  }
  Napi::Value result() override { return Env().Undefined(); }
  std::shared_ptr<os::Launched> process_;
};

class LaunchWork final : public Work {
 public:
  LaunchWork(Napi::Env env, std::string launcher, std::vector<std::byte> plan, std::array<int, 3> stdio, bool goes)
      : Work(env), launcher_(std::move(launcher)), plan_(std::move(plan)), stdio_(stdio), goes_(goes) {}

 private:
  void work() override { *process_ = os::launch(launcher_, plan_, stdio_, goes_); }

  Napi::Value result() override {
    const Napi::Env env = Env();
    const Napi::Object out = Napi::Object::New(env);
    out.Set("pid", Napi::Number::New(env, process_->pid));
    out.Set("terminal", process_->terminal ? Napi::Value(Napi::Number::New(env, process_->terminal.release())) : env.Null());
    out.Set("release", Napi::Function::New(
                           env,
                           [process = process_](const Napi::CallbackInfo& info) -> Napi::Value {
                             auto* const work = new ReleaseWork(info.Env(), process);  // deletes itself when done
                             const Napi::Promise promise = work->promise();
                             work->Queue();
                             return promise;
                           },
                           "release"));
    return out;
  }

  std::string launcher_;
  std::vector<std::byte> plan_;
  std::array<int, 3> stdio_;
  bool goes_;
  std::shared_ptr<os::Launched> process_ = std::make_shared<os::Launched>();
};

Napi::Value launch(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    const Napi::Object options = info[0].As<Napi::Object>();
    const Napi::Uint8Array bytes = options.Get("plan").As<Napi::Uint8Array>();
    const auto* const data = reinterpret_cast<const std::byte*>(bytes.Data());
    const Napi::Array fds = options.Get("stdio").As<Napi::Array>();
    std::array<int, 3> stdio;
    for (uint32_t i = 0; i < 3; ++i) stdio[i] = fds.Get(i).As<Napi::Number>().Int32Value();
    auto* const work =
        new LaunchWork(env, options.Get("launcher").As<Napi::String>(), {data, data + bytes.ByteLength()}, stdio, options.Get("goes").ToBoolean());
    const Napi::Promise promise = work->promise();
    work->Queue();
    return promise;
  });
}

}  // namespace

void export_launch(Napi::Env env, Napi::Object exports) { exports.Set("launch", Napi::Function::New<launch>(env, "launch")); }

}  // namespace tskata::addon
