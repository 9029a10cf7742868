// SPDX-License-Identifier: Apache-2.0
//
// Runs a command whose processes do not preempt each other when they are woken
// (SCHED_BATCH): server and client of ./kev bench vm share one processor, and
// each shall find what has gathered for it as it would on one of its own.
//
//   batch COMMAND ARGUMENTS...
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char** argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: batch COMMAND ARGUMENTS...\n");
    return 2;
  }
  const sched_param parameters = {};
  if (sched_setscheduler(0, SCHED_BATCH, &parameters) < 0) {
    perror("batch: sched_setscheduler");
    return 1;
  }
  execvp(argv[1], argv + 1);
  perror("batch: execvp");
  return 1;
}
