// Messages to the agent.
#include "launcher/report.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstring>

namespace tskata::launcher {

namespace {

void send_message(const std::string& message) { (void)!::send(report_fd, message.data(), message.size(), MSG_NOSIGNAL); }

template <typename Integer>
std::string bytes_of(Integer value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

}  // namespace

void report_pid(int pid) { send_message("P" + bytes_of(static_cast<uint32_t>(pid))); }

void report_terminal(int master) {
  char tag = 'T';
  iovec data{&tag, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &master, sizeof master);
  attempt(::sendmsg(report_fd, &message, MSG_NOSIGNAL), "send the terminal");
}

void report_ready() { send_message("R"); }

void report_failure(const StepError& error) { send_message("E" + bytes_of(static_cast<int32_t>(error.error())) + error.step()); }

bool wait_for_go() {
  for (;;) {
    char message = 0;
    const ssize_t length = ::recv(report_fd, &message, 1, 0);
    if (length < 0 && errno == EINTR) continue;
    return length == 1 && message == 'G';
  }
}

}  // namespace tskata::launcher
