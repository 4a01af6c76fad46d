/* Runs single steps of the kernel table for a test on another machine.
 *
 *   kernel_replay table     lists features and rows
 *   kernel_replay serve     reads requests, answers each with the arena as the kernel left it
 *
 * A request is a `request`, then the constants (a bf_step first, then what it points to), the
 * places of pointers within the constants, and the arena. Both machines are little-endian with
 * 64-bit pointers.
 */
#define _DEFAULT_SOURCE /* mmap, in strict C11 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bitfold_kernels.h"

enum { ALIGNMENT = 64 };

typedef struct request {
  char symbol[64];
  uint64_t share_index, share_count;
  uint64_t constant_bytes, num_pointers, arena_bytes;
} request;

/* The pointer at byte `at` of the constants leads to their byte `to`. */
typedef struct pointer_place {
  uint64_t at, to;
} pointer_place;

static void fail(const char *why, const char *what) {
  fprintf(stderr, "kernel_replay: %s %s\n", why, what);
  exit(2);
}

static void list_table(void) {
  const uint64_t bits = bf_host_isa();
  printf("step %zu\n", bf_step_bytes());
  for (size_t bit = 0; bf_feature_name(bit); bit++) {
    if (bits >> bit & 1) {
      printf("feature %s\n", bf_feature_name(bit));
    }
  }
  for (const bf_row *row = bf_kernel_table(); row->op; row++) {
    printf("row %s %s %s %s %s\n", row->op, row->layout, row->isa, row->symbol, row->needs);
  }
}

static bf_kernel kernel_called(const char *symbol) {
  for (const bf_row *row = bf_kernel_table(); row->op; row++) {
    if (!strcmp(row->symbol, symbol)) {
      return row->kernel;
    }
  }
  fail("no kernel", symbol);
  return NULL;
}

/* A block that ends where reading is forbidden; it begins at a multiple of 64. */
typedef struct block {
  uint8_t *data;
  void *pages;
  size_t page_bytes;
} block;

static block read_block(size_t bytes) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  const size_t rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  const size_t readable = (rounded + page - 1) / page * page;
  block made = {NULL, NULL, readable + page};
  made.pages =
      mmap(NULL, made.page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (made.pages == MAP_FAILED || mprotect((uint8_t *)made.pages + readable, page, PROT_NONE)) {
    fail("no memory", "for a request");
  }
  made.data = (uint8_t *)made.pages + readable - rounded;
  if (fread(made.data, 1, bytes, stdin) != bytes) {
    fail("cannot read", "a request");
  }
  return made;
}

static void point(uint8_t *constants, const pointer_place *places, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const void *target = constants + places[i].to;
    memcpy(constants + places[i].at, &target, sizeof target);
  }
}

static void answer(const request *asked) {
  const bf_kernel kernel = kernel_called(asked->symbol);
  const bf_share share = {asked->share_index, asked->share_count};
  const block constants = read_block(asked->constant_bytes);
  const block places = read_block(asked->num_pointers * sizeof(pointer_place));
  const block arena = read_block(asked->arena_bytes);
  point(constants.data, (const pointer_place *)(const void *)places.data, asked->num_pointers);
  kernel((const bf_step *)(const void *)constants.data, arena.data, &share);
  if (fwrite(arena.data, 1, asked->arena_bytes, stdout) != asked->arena_bytes || fflush(stdout)) {
    fail("cannot write", "an answer");
  }
  munmap(constants.pages, constants.page_bytes);
  munmap(places.pages, places.page_bytes);
  munmap(arena.pages, arena.page_bytes);
}

int main(int argc, char **argv) {
  request asked;
  if (argc == 2 && !strcmp(argv[1], "table")) {
    list_table();
    return 0;
  }
  if (argc != 2 || strcmp(argv[1], "serve")) {
    fail("usage: kernel_replay", "table|serve");
  }
  while (fread(&asked, sizeof asked, 1, stdin) == 1) {
    answer(&asked);
  }
  return 0;
}
