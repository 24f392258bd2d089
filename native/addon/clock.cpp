// The wall clock.
#include "linux/clock.h"

#include "addon/exports.h"
#include "addon/napi.h"

namespace tskata::addon {

namespace {

Napi::Value wall_clock(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) { return Napi::BigInt::New(env, os::read_wall_clock()); });
}

Napi::Value adjust_wall_clock(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    bool lossless = false;
    const int64_t by = info[0].As<Napi::BigInt>().Int64Value(&lossless);
    if (!lossless) throw std::runtime_error("an offset must have 64 bits");
    os::adjust_wall_clock(std::chrono::nanoseconds(by), info[1].ToBoolean());
    return env.Undefined();
  });
}

Napi::Value watch_wall_clock(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    const auto callback = std::make_shared<Callback>(env, info[0].As<Napi::Function>(), "clock", false);
    auto watch = std::make_shared<os::ClockWatch>([callback] { callback->call([](Napi::Env, Napi::Function on_set) { on_set.Call({}); }); });
    return Closable<os::ClockWatch>::make(env, std::move(watch));
  });
}

}  // namespace

void export_clock(Napi::Env env, Napi::Object exports) {
  exports.Set("wallClock", Napi::Function::New<wall_clock>(env, "wallClock"));
  exports.Set("adjustWallClock", Napi::Function::New<adjust_wall_clock>(env, "adjustWallClock"));
  exports.Set("watchWallClock", Napi::Function::New<watch_wall_clock>(env, "watchWallClock"));
}

}  // namespace tskata::addon
