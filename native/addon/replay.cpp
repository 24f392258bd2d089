// The addon's replay subject: changes of the host's as JavaScript gives them, done in the guest.
#include <fcntl.h>

#include "addon/exports.h"
#include "addon/napi.h"
#include "devices/fs/guest_replay.h"

namespace tskata::addon {

namespace {

std::string name_of(const Napi::Value& value) {
  const std::span<const std::byte> bytes = bytes_of(value);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

devices::fs::Change change_of(const Napi::Object& from) {
  const uint32_t kind = from.Get("kind").As<Napi::Number>().Uint32Value();
  if (kind > static_cast<uint32_t>(devices::fs::ChangeKind::close_write)) throw std::invalid_argument("no such kind of change");
  devices::fs::Change out;
  out.kind = static_cast<devices::fs::ChangeKind>(kind);
  out.directory = from.Get("directory").As<Napi::Boolean>();
  out.folder = to_uint64(from.Get("folder"), "folder");
  out.name = name_of(from.Get("name"));
  out.new_folder = to_uint64(from.Get("newFolder"), "newFolder");
  out.new_name = name_of(from.Get("newName"));
  return out;
}

Napi::Value replay_changes(const Napi::CallbackInfo& info) {
  return guarded(info, [&](Napi::Env env) {
    const std::string path = info[0].As<Napi::String>();
    const Napi::Array from = info[1].As<Napi::Array>();
    std::vector<devices::fs::Change> changes;
    for (uint32_t i = 0; i < from.Length(); ++i) changes.push_back(change_of(from.Get(i).As<Napi::Object>()));
    const os::Descriptor root(os::checked(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), "open the shared tree"));
    return Napi::Number::New(env, devices::fs::replay(root.get(), changes));
  });
}

}  // namespace

void export_replay(Napi::Env env, Napi::Object exports) { exports.Set("replayChanges", Napi::Function::New<replay_changes>(env, "replayChanges")); }

}  // namespace tskata::addon
