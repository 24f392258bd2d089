// The console of a hypervisor that is another process.
#include <fcntl.h>

#include "addon/exports.h"
#include "addon/napi.h"
#include "devices/console/console_log.h"
#include "devices/console/console_pipe.h"

namespace tskata::addon {

namespace {

Napi::Value log_console(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    os::Descriptor source(info[0].As<Napi::Number>().Int32Value());
    os::checked(::fcntl(source.get(), F_GETFD), "fcntl");
    const std::string path = info[1].As<Napi::String>();
    os::Descriptor file = devices::console::open_log(path);
    const Settler settler(env, true);
    devices::console::log_pipe(std::move(source), std::move(file), [settler] { settler.resolve([](Napi::Env at) { return at.Undefined(); }); });
    return settler.promise();
  });
}

}  // namespace

void export_console(Napi::Env env, Napi::Object exports) { exports.Set("logConsole", Napi::Function::New<log_console>(env, "logConsole")); }

}  // namespace tskata::addon
