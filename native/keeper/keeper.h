// The keeper of handles (protocol.h): a process of its own, the only one of a pod with CAP_DAC_READ_SEARCH.
#pragma once
#include <span>

namespace tskata::keeper {

// Serves a file server at the other end of each socket until all have closed. Each has its own handles. Takes the sockets over.
void keep_handles(std::span<const int> sockets);

}  // namespace tskata::keeper
