// A step that failed: what was tried, in words for people, and the errno.
#pragma once
#include <cerrno>
#include <exception>
#include <string>
#include <utility>

namespace tskata::launcher {

class StepError : public std::exception {
 public:
  // `error` 0: the step is the whole message.
  StepError(std::string step, int error) : step_(std::move(step)), error_(error) {}
  const char* what() const noexcept override { return step_.c_str(); }
  const std::string& step() const { return step_; }
  int error() const { return error_; }

 private:
  std::string step_;
  int error_;
};

// Throws with errno when `result` is negative.
template <typename Result>
Result attempt(Result result, const std::string& step) {
  if (result < 0) throw StepError(step, errno);
  return result;
}

}  // namespace tskata::launcher
