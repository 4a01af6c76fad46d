/* NEON primitives: epilogues on 4 int32 lanes a register, four registers a block of 16 lanes. */
#ifndef BITFOLD_NEON_H
#define BITFOLD_NEON_H

#include <arm_neon.h>
#include <string.h>

#include "generic/epilogue.h"

#define BF_INLINE static inline __attribute__((always_inline))

enum { BF_QUARTERS = 4 }; /* registers of a block of 16 lanes */

/* One block of 16 lanes. */
typedef struct bf_quarters {
  int32x4_t v[BF_QUARTERS];
} bf_quarters;

BF_INLINE bf_quarters bf_load16(const int32_t *p) {
  return (bf_quarters){{vld1q_s32(p), vld1q_s32(p + 4), vld1q_s32(p + 8), vld1q_s32(p + 12)}};
}

/* Stores the first `count` of 16 int32. */
BF_INLINE void bf_store_wide(bf_quarters value, size_t count, int32_t *out) {
  int32_t block[BF_LANES];
  int32_t *to = count == BF_LANES ? out : block;
  for (size_t i = 0; i < BF_QUARTERS; i++) {
    vst1q_s32(to + 4 * i, value.v[i]);
  }
  if (count != BF_LANES) {
    memcpy(out, block, count * sizeof(int32_t));
  }
}

/* Stores the first `count` of 16 values 0 … 255 as bytes. */
BF_INLINE void bf_store_bytes(bf_quarters value, size_t count, uint8_t *out) {
  const int16x8_t lo = vcombine_s16(vmovn_s32(value.v[0]), vmovn_s32(value.v[1]));
  const int16x8_t hi = vcombine_s16(vmovn_s32(value.v[2]), vmovn_s32(value.v[3]));
  const uint8x16_t bytes = vreinterpretq_u8_s8(vcombine_s8(vmovn_s16(lo), vmovn_s16(hi)));
  if (count == BF_LANES) {
    vst1q_u8(out, bytes);
    return;
  }
  uint8_t block[BF_LANES];
  vst1q_u8(block, bytes);
  memcpy(out, block, count);
}

/* Low words of four int64 constants. */
BF_INLINE int32x4_t bf_low_words(const int64_t *p) {
  return vcombine_s32(vmovn_s64(vld1q_s64(p)), vmovn_s64(vld1q_s64(p + 2)));
}

/* floor((x * factor + term) / 2^shift), sums in 64 bits and results that fit 32. */
BF_INLINE int32x4_t bf_line_sums(int32x4_t x, int32x4_t factor, const int64x2_t *term,
                                 int32x4_t left_shift) {
  const int64x2_t lo = vmlal_s32(term[0], vget_low_s32(x), vget_low_s32(factor));
  const int64x2_t hi = vmlal_high_s32(term[1], x, factor);
  return vcombine_s32(vmovn_s64(vshlq_s64(lo, vmovl_s32(vget_low_s32(left_shift)))),
                      vmovn_s64(vshlq_s64(hi, vmovl_high_s32(left_shift))));
}

/* Accumulators of one block of 16 lanes for several pixels, `stride` int32 apart. */
typedef struct bf_rows {
  const int32_t *acc;
  size_t stride, num_pixels;
  size_t lane, count; /* first lane; lanes that exist */
  size_t at;          /* output element of the first pixel */
} bf_rows;

/* num_thresholds + #{j : table[j] > sign * acc} * -1 */
BF_INLINE bf_quarters bf_compare16(const bf_epilogue *e, bf_quarters acc, size_t lane) {
  const int32_t *table = e->table + lane * e->num_thresholds;
  const bf_quarters sign = bf_load16(e->sign + lane);
  bf_quarters index;
  for (size_t i = 0; i < BF_QUARTERS; i++) {
    acc.v[i] = vmulq_s32(acc.v[i], sign.v[i]);
    index.v[i] = vdupq_n_s32((int32_t)e->num_thresholds);
  }
  for (size_t j = 0; j < e->num_thresholds; j++) {
    for (size_t i = 0; i < BF_QUARTERS; i++) {
      const uint32x4_t above = vcgtq_s32(vld1q_s32(table + j * BF_LANES + 4 * i), acc.v[i]);
      index.v[i] = vaddq_s32(index.v[i], vreinterpretq_s32_u32(above));
    }
  }
  return index;
}

BF_INLINE void bf_finish_compare(const bf_step *step, uint8_t *arena, const bf_rows *rows) {
  const bf_epilogue *e = &step->epilogue;
  uint8_t *out = arena + step->out + rows->at;
  for (size_t i = 0; i < rows->num_pixels; i++) {
    const bf_quarters acc = bf_load16(rows->acc + i * rows->stride);
    bf_store_bytes(bf_compare16(e, acc, rows->lane), rows->count, out + i * step->o);
  }
}

/* Constants of a line on four lanes; loaded once for all pixels of a tile. */
typedef struct bf_line {
  int32x4_t low, high, slope, left_shift;
  int64x2_t intercept[2];
} bf_line;

BF_INLINE bf_line bf_load_line(const bf_epilogue *e, size_t lane) {
  const int64_t *intercept = e->intercept + lane;
  return (bf_line){.low = vld1q_s32(e->low + lane),
                   .high = vld1q_s32(e->high + lane),
                   .slope = vld1q_s32(e->slope + lane),
                   .left_shift = vnegq_s32(vld1q_s32(e->index_shift + lane)),
                   .intercept = {vld1q_s64(intercept), vld1q_s64(intercept + 2)}};
}

/* (clamp(acc) * slope + intercept) >> shift in 32 bits: the sum wraps into 0 … 2^31 - 1. */
BF_INLINE int32x4_t bf_line32(const bf_line *line, int32x4_t acc) {
  const int32x4_t x = vminq_s32(vmaxq_s32(acc, line->low), line->high);
  const int32x4_t intercept =
      vcombine_s32(vmovn_s64(line->intercept[0]), vmovn_s64(line->intercept[1]));
  return vshlq_s32(vmlaq_s32(intercept, x, line->slope), line->left_shift);
}

/* The same in 64 bits, for lines that need a finer slope. */
BF_INLINE int32x4_t bf_line64(const bf_line *line, int32x4_t acc) {
  const int32x4_t x = vminq_s32(vmaxq_s32(acc, line->low), line->high);
  return bf_line_sums(x, line->slope, line->intercept, line->left_shift);
}

typedef int32x4_t (*bf_line_form)(const bf_line *line, int32x4_t acc);

BF_INLINE void bf_finish_line(const bf_step *step, uint8_t *arena, const bf_rows *rows,
                              const bf_line_form form) {
  bf_line line[BF_QUARTERS];
  for (size_t i = 0; i < BF_QUARTERS; i++) {
    line[i] = bf_load_line(&step->epilogue, rows->lane + 4 * i);
  }
  uint8_t *out = arena + step->out + rows->at;
  for (size_t pixel = 0; pixel < rows->num_pixels; pixel++) {
    bf_quarters x = bf_load16(rows->acc + pixel * rows->stride);
    for (size_t i = 0; i < BF_QUARTERS; i++) {
      x.v[i] = form(&line[i], x.v[i]);
    }
    bf_store_bytes(x, rows->count, out + pixel * step->o);
  }
}

/* Constants of a fixed-point update on four lanes. */
typedef struct bf_rule {
  int32x4_t multiplier, offset32, left_shift;
  int64x2_t offset[2];
} bf_rule;

BF_INLINE bf_rule bf_load_rule(const bf_epilogue *e, size_t lane) {
  const int64_t *offset = e->offset + lane;
  return (bf_rule){.multiplier = bf_low_words(e->multiplier + lane),
                   .offset32 = bf_low_words(offset),
                   .left_shift = vdupq_n_s32(-(int32_t)e->shift),
                   .offset = {vld1q_s64(offset), vld1q_s64(offset + 2)}};
}

typedef int32x4_t (*bf_wide_update)(const bf_rule *rule, int32x4_t acc);

BF_INLINE int32x4_t bf_wide32(const bf_rule *rule, int32x4_t acc) {
  return vshlq_s32(vmlaq_s32(rule->offset32, acc, rule->multiplier), rule->left_shift);
}

BF_INLINE int32x4_t bf_wide64(const bf_rule *rule, int32x4_t acc) {
  return bf_line_sums(acc, rule->multiplier, rule->offset, rule->left_shift);
}

/* y, or (multiplier * y + half) >> shift where y < 0 */
BF_INLINE int32x4_t bf_bent(int32x4_t multiplier, int32x4_t y, size_t shift) {
  const int64x2_t half = vdupq_n_s64(bf_round_bits(shift));
  const int64x2_t halves[2] = {half, half};
  const int32x4_t bent = bf_line_sums(y, multiplier, halves, vdupq_n_s32(-(int32_t)shift));
  return vbslq_s32(vcltzq_s32(y), bent, y);
}

BF_INLINE void bf_finish_wide(const bf_step *step, uint8_t *arena, const bf_rows *rows,
                              const bf_wide_update update) {
  const bf_epilogue *e = &step->epilogue;
  const size_t bends = e->negative_multiplier != NULL;
  bf_rule rule[BF_QUARTERS];
  const int32x4_t least = vdupq_n_s32(e->has_relu ? 0 : INT32_MIN);
  int32x4_t bend[BF_QUARTERS];
  for (size_t i = 0; i < BF_QUARTERS; i++) {
    rule[i] = bf_load_rule(e, rows->lane + 4 * i);
    bend[i] = bends ? bf_low_words(e->negative_multiplier + rows->lane + 4 * i) : least;
  }
  const int32_t *add = (const int32_t *)(const void *)(arena + e->add) + rows->at;
  int32_t *out = (int32_t *)(void *)(arena + step->out) + rows->at;
  for (size_t pixel = 0; pixel < rows->num_pixels; pixel++) {
    bf_quarters y = bf_load16(rows->acc + pixel * rows->stride);
    for (size_t i = 0; i < BF_QUARTERS; i++) {
      y.v[i] = vmaxq_s32(update(&rule[i], y.v[i]), least);
      if (bends) {
        y.v[i] = bf_bent(bend[i], y.v[i], e->negative_shift);
      }
      if (e->has_add) {
        y.v[i] = vaddq_s32(y.v[i], vld1q_s32(add + pixel * step->o + 4 * i));
      }
    }
    bf_store_wide(y, rows->count, out + pixel * step->o);
  }
}

/* Whatever has no vector form, pixel by pixel in plain C. */
BF_INLINE void bf_finish_any(const bf_step *step, uint8_t *arena, const bf_rows *rows) {
  for (size_t i = 0; i < rows->num_pixels; i++) {
    bf_finish(step, arena, rows->acc + i * rows->stride, rows->lane, rows->count,
              rows->at + i * step->o);
  }
}

/* Writes the results of `rows` into the output. */
BF_INLINE void bf_finish_rows(const bf_step *step, uint8_t *arena, const bf_rows *rows) {
  const bf_epilogue *e = &step->epilogue;
  const size_t form = e->kind == BF_TO_INDICES ? e->index_form[rows->lane / BF_LANES] : 0;
  if (e->kind == BF_TO_INDICES && form == BF_LINE32) {
    bf_finish_line(step, arena, rows, bf_line32);
  } else if (e->kind == BF_TO_INDICES && form == BF_LINE64) {
    bf_finish_line(step, arena, rows, bf_line64);
  } else if (e->kind == BF_TO_INDICES) {
    bf_finish_compare(step, arena, rows);
  } else if (e->kind == BF_TO_ACCUMULATORS || e->wide_form == BF_WIDE_ANY) {
    bf_finish_any(step, arena, rows);
  } else if (e->wide_form == BF_WIDE32) {
    bf_finish_wide(step, arena, rows, bf_wide32);
  } else {
    bf_finish_wide(step, arena, rows, bf_wide64);
  }
}

#endif
