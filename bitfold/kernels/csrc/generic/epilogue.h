/* Epilogues on one block of at most 16 lanes, in plain C: the reference of the vector forms. */
#ifndef BITFOLD_EPILOGUE_H
#define BITFOLD_EPILOGUE_H

#include "bitfold_kernels.h"

enum { BF_LANES = 16 };

/* What finishes the rows of several pixels; defined first where an ISA has another name for it. */
#if !defined(BF_FINISH_ROWS)
#define BF_FINISH_ROWS bf_finish_rows
#endif

/* floor(value / 2^shift); shifting a negative number right is arithmetic on every compiler here. */
static inline int64_t bf_shift_floor(int64_t value, size_t shift) { return value >> shift; }

static inline int64_t bf_round_bits(size_t shift) {
  return shift ? (int64_t)1 << (shift - 1) : (int64_t)0;
}

/* out[i] (u8) = #{j : table[j][lane + i] <= sign * acc[i]} */
static inline void bf_to_indices(const bf_epilogue *restrict e, const int32_t *restrict acc,
                                 size_t lane, size_t count, uint8_t *restrict out) {
  const int32_t *table = e->table + lane * e->num_thresholds;
  int32_t value[BF_LANES];
  int32_t index[BF_LANES] = {0};
  for (size_t i = 0; i < BF_LANES; i++) {
    value[i] = i < count ? acc[i] * e->sign[lane + i] : 0;
  }
  for (size_t j = 0; j < e->num_thresholds; j++) {
    for (size_t i = 0; i < BF_LANES; i++) {
      index[i] += table[j * BF_LANES + i] <= value[i];
    }
  }
  for (size_t i = 0; i < count; i++) {
    out[i] = (uint8_t)index[i];
  }
}

/* out[i] (int32) = fixed-point update of acc[i], plus add[i] where there is one */
static inline void bf_to_wide(const bf_epilogue *restrict e, const int32_t *acc, size_t lane,
                              size_t count, const int32_t *add, int32_t *out) {
  for (size_t i = 0; i < count; i++) {
    const int64_t product = e->multiplier[lane + i] * (int64_t)acc[i];
    int64_t y = bf_shift_floor(product + e->offset[lane + i], e->shift);
    if (e->has_relu && y < 0) {
      y = 0;
    }
    if (e->negative_multiplier && y < 0) {
      y = e->negative_multiplier[lane + i] * y + bf_round_bits(e->negative_shift);
      y = bf_shift_floor(y, e->negative_shift);
    }
    out[i] = (int32_t)(y + (add ? (int64_t)add[i] : (int64_t)0));
  }
}

/* Writes `count` results of lanes lane … at element `at` of the output. */
static inline void bf_finish(const bf_step *restrict step, uint8_t *arena, const int32_t *acc,
                             size_t lane, size_t count, size_t at) {
  const bf_epilogue *e = &step->epilogue;
  if (e->kind == BF_TO_INDICES) {
    bf_to_indices(e, acc, lane, count, arena + step->out + at);
    return;
  }
  int32_t *out = (int32_t *)(void *)(arena + step->out) + at;
  if (e->kind == BF_TO_WIDE) {
    const int32_t *add = (const int32_t *)(const void *)(arena + e->add) + at;
    bf_to_wide(e, acc, lane, count, e->has_add ? add : NULL, out);
    return;
  }
  for (size_t i = 0; i < count; i++) {
    out[i] = acc[i];
  }
}

#endif
