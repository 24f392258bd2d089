// The addon's jail: TypeScript says when, native/jail does it.
#include "jail/jail.h"

#include "addon/exports.h"
#include "addon/napi.h"

namespace tskata::addon {

namespace {

jail::Mode mode_of(const std::string& word) {
  if (word == "enforce") return jail::Mode::enforce;
  if (word == "log") return jail::Mode::log;
  if (word == "off") return jail::Mode::off;
  throw std::invalid_argument("closeJail: \"" + word + "\" is none of enforce, log, off");
}

Napi::Value plan_jail(const Napi::CallbackInfo& info) {
  return guarded(info, [](Napi::Env env) {
    jail::plan();
    return env.Undefined();
  });
}

Napi::Value close_jail(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    jail::close(mode_of(info[0].As<Napi::String>()));
    return env.Undefined();
  });
}

}  // namespace

void export_jail(Napi::Env env, Napi::Object exports) {
  exports.Set("planJail", Napi::Function::New<plan_jail>(env, "planJail"));
  exports.Set("closeJail", Napi::Function::New<close_jail>(env, "closeJail"));
}

}  // namespace tskata::addon
