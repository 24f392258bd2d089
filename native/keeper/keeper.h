// The keeper of handles (protocol.h): a process of its own, the only one of a pod with CAP_DAC_READ_SEARCH.
#pragma once

namespace tskata::keeper {

// Serves the other end of the socket until it closes.
void keep_handles(int socket);

}  // namespace tskata::keeper
