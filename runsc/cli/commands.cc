#include "runsc/cli/command.h"

namespace moat {

std::span<const Command> Commands() {
  static const Command kCommands[] = {
      {"do", "run a command of this host in a sandbox", RunDo},
      {"run", "create and start a container from a bundle and wait for it", RunRun},
      {"create", "create a container from a bundle; start runs its program", RunCreate},
      {"start", "run the program of a created container", RunStart},
      {"state", "print the state of a container as JSON", RunState},
      {"kill", "send a signal to a container's init process", RunKill},
      {"delete", "remove a stopped container", RunDelete},
      {"list", "list the containers under --root", RunList},
      {"exec", "run another process in a container", RunExec, 255},
      {"ps", "list the processes of a container", RunPs},
      {"wait", "wait for a container to end and print its exit status", RunWait},
      {"spec", "write a config.json to begin with", RunSpec},
      {"syscalls", "print which system calls guests have", RunSyscalls},
      {"host-syscalls", "print the host calls that our own processes may make", RunHostSyscalls},
      {"features", "print what this runtime supports as JSON", RunFeatures},
  };
  return kCommands;
}

}  // namespace moat
