// The addon's export table: one init function a subject, nothing else.
#include "addon/exports.h"

namespace tskata::addon {

static Napi::Object init(Napi::Env env, Napi::Object exports) {
  export_fds(env, exports);
  export_mounts(env, exports);
  export_clock(env, exports);
  export_locks(env, exports);
  export_guest(env, exports);
  export_relay(env, exports);
  export_replay(env, exports);
  export_launch(env, exports);
  export_devices(env, exports);
  export_console(env, exports);
  export_kvm(env, exports);
  export_jail(env, exports);
  return exports;
}

NODE_API_MODULE(tskata, init)

}  // namespace tskata::addon
