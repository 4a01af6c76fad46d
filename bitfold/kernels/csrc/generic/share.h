/* What part of a step a share works on. Every element of the output belongs to one share. */
#ifndef BITFOLD_SHARE_H
#define BITFOLD_SHARE_H

#include "bitfold_kernels.h"

/* begin <= i < end */
typedef struct bf_span {
  size_t begin, end;
} bf_span;

/* The share's part of `total` things, even to one. */
static inline bf_span bf_part(size_t total, const bf_share *restrict share) {
  return (bf_span){total * share->index / share->count, total * (share->index + 1) / share->count};
}

/* The share's part of `total` elements, in whole blocks of 64 but for the end. */
static inline bf_span bf_part_of_elements(size_t total, const bf_share *restrict share) {
  const bf_span blocks = bf_part((total + 63) / 64, share);
  const size_t end = 64 * blocks.end;
  const size_t begin = 64 * blocks.begin;
  return (bf_span){begin < total ? begin : total, end < total ? end : total};
}

/* The share's own scratch area. */
static inline uint8_t *bf_scratch(const bf_step *restrict step, uint8_t *restrict arena,
                                  const bf_share *restrict share) {
  return arena + step->scratch + share->index * step->scratch_bytes;
}

/* Output rows, and blocks of 16 output channels counted over all groups. */
typedef struct bf_conv_part {
  bf_span rows, blocks;
} bf_conv_part;

/* Rows are split where that is even enough, else blocks: a share reads the whole input then. */
static inline bf_conv_part bf_part_of_conv(const bf_step *restrict step,
                                           const bf_share *restrict share) {
  const size_t num_blocks = step->groups * (step->group_lanes / 16);
  bf_conv_part part = {{0, step->oh}, {0, num_blocks}};
  if (step->oh >= 8 * share->count || num_blocks < share->count) {
    part.rows = bf_part(step->oh, share);
  } else {
    part.blocks = bf_part(num_blocks, share);
  }
  return part;
}

#endif
