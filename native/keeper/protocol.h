// Between a file server and the keeper of its handles, over a seqpacket socket.
//
// The kernel re-opens a file by its handle (open_by_handle_at(2)) for whoever has CAP_DAC_READ_SEARCH, wherever on the filesystem it is: a
// handle that somebody made up opens a file outside the tree he was given. So the process that has the capability makes the handles itself, of
// descriptors it is sent, and gives out numbers for them: by a number nothing is opened that the other side had not held open before. It believes
// nothing else: a mount's number is the server's own name for it.
//
//   server                                keeper
//   anchor mount, an open folder of it ─► keeps the folder: handles are opened by way of it
//   keep mount, an O_PATH descriptor   ─► makes a handle, opens it for a trial, tells its number
//   open number                        ─► an O_PATH descriptor
//   same number, an O_PATH descriptor  ─► whether the handle is that file's
//   drop number · leave mount · clear     no answer
#pragma once
#include <cstddef>
#include <cstdint>

namespace tskata::keeper {

enum class Call : uint32_t { anchor, keep, open, same, drop, leave, clear };

struct Request {
  Call call;
  uint32_t number;
  uint64_t mount;
};

struct Answer {
  int32_t error;  // an errno
  uint32_t number;
};

// Handles that are kept at once: as many as a file server may know nodes.
constexpr size_t most_handles = 1'000'000;

}  // namespace tskata::keeper
