// The addon's "locks" subject: flock for TypeScript.
#include <cstring>
#include <system_error>

#include "addon/exports.h"
#include "linux/file_lock.h"

namespace tskata::addon {

static Napi::Value try_lock_file(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 1 || !info[0].IsString()) throw Napi::TypeError::New(env, "tryLockFile: expected a path");
  try {
    const auto fd = linux_calls::try_lock_file(info[0].As<Napi::String>().Utf8Value());
    return fd ? Napi::Number::New(env, *fd) : env.Null();
  } catch (const std::system_error& failure) {
    auto error = Napi::Error::New(env, failure.what());
    const char* name = strerrorname_np(failure.code().value());
    error.Set("code", Napi::String::New(env, name != nullptr ? name : "EUNKNOWN"));
    error.Set("syscall", Napi::String::New(env, "flock"));
    throw error;
  }
}

void export_locks(Napi::Env env, Napi::Object exports) { exports.Set("tryLockFile", Napi::Function::New(env, try_lock_file, "tryLockFile")); }

}  // namespace tskata::addon
