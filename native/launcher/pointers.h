// Texts as execve takes them.
#pragma once
#include <string>
#include <vector>

namespace tskata::launcher {

// Valid for as long as the texts are.
inline std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (const std::string& text : texts) out.push_back(const_cast<char*>(text.c_str()));
  out.push_back(nullptr);
  return out;
}

}  // namespace tskata::launcher
