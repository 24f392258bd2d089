// The guest's side of `npm run bench -- fs`: does one piece of work and prints its seconds.
//
//   fs-work read|write seq|rand BLOCK THREADS MIB FOLDER   each thread a file of its own, <FOLDER>/data.<n>; MIB is of all of them.
//                                                          What is written is synced within the time.
//   fs-work stat THREADS ROUNDS LIST                       lstat(2) of every path of the file LIST
//   fs-work run COMMAND [ARG]…                             a command, its output to /dev/null
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { most_threads = 64 };

static void fail(const char* what) {
  fprintf(stderr, "fs-work: %s: %s\n", what, strerror(errno));
  exit(1);
}

static double now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

// -- data -------------------------------------------------------------------------------------------------------------------------

struct data {
  int fd, writes, random;
  size_t block, blocks;
};

// Every block once, in an order that no readahead guesses: a permutation by a step that has no factor in common with the count.
static size_t block_at(const struct data* data, size_t i) {
  if (!data->random) return i;
  size_t step = data->blocks * 5 / 8 | 1;
  for (;; step += 2) {
    size_t a = step, b = data->blocks;
    while (b != 0) {
      const size_t rest = a % b;
      a = b;
      b = rest;
    }
    if (a == 1) break;
  }
  return i * step % data->blocks;
}

static void* move_data(void* argument) {
  const struct data* data = argument;
  char* const buffer = aligned_alloc(4096, data->block);
  if (buffer == NULL) fail("aligned_alloc");
  memset(buffer, 'x', data->block);
  for (size_t i = 0; i < data->blocks; ++i) {
    const off_t at = (off_t)(block_at(data, i) * data->block);
    const ssize_t moved = data->writes ? pwrite(data->fd, buffer, data->block, at) : pread(data->fd, buffer, data->block, at);
    if (moved != (ssize_t)data->block) fail(data->writes ? "pwrite" : "pread");
  }
  if (data->writes && fsync(data->fd) != 0) fail("fsync");
  free(buffer);
  return NULL;
}

static double move_all(char** words) {
  const int writes = strcmp(words[0], "write") == 0;
  const int random = strcmp(words[1], "rand") == 0;
  const size_t block = strtoul(words[2], NULL, 10), threads = strtoul(words[3], NULL, 10), mib = strtoul(words[4], NULL, 10);
  struct data data[most_threads];
  pthread_t ids[most_threads];
  if (threads < 1 || threads > most_threads || block == 0) fail("arguments");
  const double start = now();
  for (size_t i = 0; i < threads; ++i) {
    char path[4096];
    snprintf(path, sizeof path, "%s/data.%zu", words[5], i);
    data[i] = (struct data){open(path, writes ? O_WRONLY | O_CREAT : O_RDONLY, 0644), writes, random, block, (mib << 20) / threads / block};
    if (data[i].fd < 0) fail(path);
    if (pthread_create(&ids[i], NULL, move_data, &data[i]) != 0) fail("pthread_create");
  }
  for (size_t i = 0; i < threads; ++i) pthread_join(ids[i], NULL);
  for (size_t i = 0; i < threads; ++i) close(data[i].fd);
  return now() - start;
}

// -- names ------------------------------------------------------------------------------------------------------------------------

static char** paths;
static size_t path_count, rounds;

static void* stat_paths(void* unused) {
  for (size_t round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < path_count; ++i) {
      struct stat facts;
      if (lstat(paths[i], &facts) != 0) fail(paths[i]);
    }
  }
  return unused;
}

static double stat_all(char** words) {
  const size_t threads = strtoul(words[0], NULL, 10);
  rounds = strtoul(words[1], NULL, 10);
  FILE* const list = fopen(words[2], "r");
  if (list == NULL) fail(words[2]);
  char* line = NULL;
  size_t room = 0;
  for (ssize_t length; (length = getline(&line, &room, list)) > 0;) {
    if (line[length - 1] == '\n') line[length - 1] = '\0';
    paths = realloc(paths, (path_count + 1) * sizeof *paths);
    if (paths == NULL) fail("realloc");
    paths[path_count++] = strdup(line);
  }
  pthread_t ids[most_threads];
  if (threads < 1 || threads > most_threads) fail("arguments");
  const double start = now();
  for (size_t i = 0; i < threads; ++i) {
    if (pthread_create(&ids[i], NULL, stat_paths, NULL) != 0) fail("pthread_create");
  }
  for (size_t i = 0; i < threads; ++i) pthread_join(ids[i], NULL);
  return now() - start;
}

static double run(char** words) {
  const double start = now();
  const pid_t child = fork();
  if (child < 0) fail("fork");
  if (child == 0) {
    const int nowhere = open("/dev/null", O_WRONLY);
    if (nowhere < 0 || dup2(nowhere, 1) < 0) fail("/dev/null");
    execvp(words[0], words);
    fail(words[0]);
  }
  int status = 0;
  if (waitpid(child, &status, 0) < 0) fail("waitpid");
  const double took = now() - start;
  if (status != 0) {
    fprintf(stderr, "fs-work: %s ended with %d\n", words[0], status);
    exit(1);
  }
  return took;
}

int main(int count, char** words) {
  double took;
  if (count == 7 && (strcmp(words[1], "read") == 0 || strcmp(words[1], "write") == 0)) took = move_all(words + 1);
  else if (count == 5 && strcmp(words[1], "stat") == 0) took = stat_all(words + 2);
  else if (count > 2 && strcmp(words[1], "run") == 0) took = run(words + 2);
  else {
    fputs("fs-work: see its source\n", stderr);
    return 2;
  }
  printf("%.6f\n", took);
  return 0;
}
