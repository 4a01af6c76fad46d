/* The depthwise tile over the primitives of one ISA: all channels of a register
 * x 4, 2 or 1 pixels.
 *
 * Two taps are interleaved byte by byte and multiplied with pairs of weights.
 * The low halves of all 128 bits make one register, the high halves the other;
 * with weights and bounds in that order (bitfold/kernels/layouts/depthwise.py)
 * packing to bytes restores the channels' order.
 */
#ifndef BITFOLD_DEPTHWISE_TILE_H
#define BITFOLD_DEPTHWISE_TILE_H

#include "generic/conv2d_depthwise.h"

enum { BF_RUN_PIXELS = 4, BF_VEC_LANES = BF_VEC_BYTES / 16 };

/* Where a tile lies in its run. */
typedef struct bf_tile_at {
  size_t pixel, channel;
  const int8_t *panel;
} bf_tile_at;

#define BF_EACH(p, f) BF_EACH_##p(f)
#define BF_EACH_1(f) f(0)
#define BF_EACH_2(f) f(0) f(1)
#define BF_EACH_4(f) f(0) f(1) f(2) f(3)

#define BF_SHORT_START(i) bf_vec low##i = bf_vec_zero(), high##i = bf_vec_zero();

#define BF_SHORT_PAIR(i)                                  \
  x = bf_vec_load(a + (i) * pitch);                       \
  y = bf_vec_load(b + (i) * pitch);                       \
  low##i = bf_add_dot8(low##i, bf_low_bytes(x, y), w_lo); \
  high##i = bf_add_dot8(high##i, bf_high_bytes(x, y), w_hi);

#define BF_SHORT_STORE(i) \
  sums[2 * (i)] = low##i; \
  sums[2 * (i) + 1] = high##i;

/* sums[2 * pixel + half], int16: the layout proves that they fit. */
#define BF_SHORT_SUMS(p)                                                                \
  BF_INLINE void bf_short_sums_##p(const bf_run *run, bf_tile_at at, bf_vec *sums) {    \
    const size_t pitch = run->pitch, offset = at.pixel * pitch + at.channel;            \
    BF_EACH(p, BF_SHORT_START)                                                          \
    for (size_t k = 0; k < run->num_pairs; k++) {                                       \
      const uint8_t *a = run->taps[2 * k] + offset, *b = run->taps[2 * k + 1] + offset; \
      const bf_vec w_lo = bf_vec_load(at.panel + 2 * k * BF_VEC_BYTES);                 \
      const bf_vec w_hi = bf_vec_load(at.panel + (2 * k + 1) * BF_VEC_BYTES);           \
      bf_vec x, y;                                                                      \
      BF_EACH(p, BF_SHORT_PAIR)                                                         \
    }                                                                                   \
    BF_EACH(p, BF_SHORT_STORE)                                                          \
  }

BF_SHORT_SUMS(1)
BF_SHORT_SUMS(2)
BF_SHORT_SUMS(4)

#define BF_WIDE_START(i)                               \
  bf_vec ll##i = bf_vec_zero(), lh##i = bf_vec_zero(); \
  bf_vec hl##i = bf_vec_zero(), hh##i = bf_vec_zero();

#define BF_WIDE_PAIR(i)                                                                      \
  x = bf_vec_load(a + (i) * pitch);                                                          \
  y = bf_vec_load(b + (i) * pitch);                                                          \
  pairs = bf_low_bytes(x, y);                                                                \
  ll##i = bf_add_dot16(ll##i, bf_low_bytes(pairs, zero), bf_vec_load(w));                    \
  lh##i = bf_add_dot16(lh##i, bf_high_bytes(pairs, zero), bf_vec_load(w + BF_VEC_BYTES));    \
  pairs = bf_high_bytes(x, y);                                                               \
  hl##i = bf_add_dot16(hl##i, bf_low_bytes(pairs, zero), bf_vec_load(w + 2 * BF_VEC_BYTES)); \
  hh##i = bf_add_dot16(hh##i, bf_high_bytes(pairs, zero), bf_vec_load(w + 3 * BF_VEC_BYTES));

#define BF_WIDE_STORE(i)     \
  sums[4 * (i)] = ll##i;     \
  sums[4 * (i) + 1] = lh##i; \
  sums[4 * (i) + 2] = hl##i; \
  sums[4 * (i) + 3] = hh##i;

/* sums[4 * pixel + quarter], int32. */
#define BF_WIDE_SUMS(p)                                                                 \
  BF_INLINE void bf_wide_sums_##p(const bf_run *run, bf_tile_at at, bf_vec *sums) {     \
    const size_t pitch = run->pitch, offset = at.pixel * pitch + at.channel;            \
    const int8_t *w = at.panel;                                                         \
    BF_EACH(p, BF_WIDE_START)                                                           \
    for (size_t k = 0; k < run->num_pairs; k++) {                                       \
      const uint8_t *a = run->taps[2 * k] + offset, *b = run->taps[2 * k + 1] + offset; \
      const bf_vec zero = bf_vec_zero();                                                \
      bf_vec x, y, pairs;                                                               \
      BF_EACH(p, BF_WIDE_PAIR)                                                          \
      w += 4 * BF_VEC_BYTES;                                                            \
    }                                                                                   \
    BF_EACH(p, BF_WIDE_STORE)                                                           \
  }

BF_WIDE_SUMS(1)
BF_WIDE_SUMS(2)

/* Stores `count` bytes, at most a register of them. */
BF_INLINE void bf_store_part(uint8_t *out, bf_vec bytes, size_t count) {
  if (count >= BF_VEC_BYTES) {
    bf_vec_store(out, bytes);
  } else {
    uint8_t block[BF_VEC_BYTES];
    bf_vec_store(block, bytes);
    memcpy(out, block, count);
  }
}

#define BF_INDEX_START(i)                                           \
  const bf_vec low##i = sums[2 * (i)], high##i = sums[2 * (i) + 1]; \
  bf_vec below##i = bf_vec_zero(), above##i = bf_vec_zero();

#define BF_INDEX_COUNT(i)                          \
  below##i = bf_count_above(below##i, low##i, lo); \
  above##i = bf_count_above(above##i, high##i, hi);

#define BF_INDEX_STORE(i) \
  bf_store_part(out + (i) * step->o, bf_pack_bytes(below##i, above##i), left);

/* Indices from 16-bit sums: how many bounds each one exceeds. */
#define BF_COUNT_BOUNDS(p)                                                                   \
  BF_INLINE void bf_count_bounds_##p(const bf_step *step, uint8_t *arena, const bf_run *run, \
                                     bf_tile_at at, const bf_vec *sums) {                    \
    const bf_depthwise *constants = step->extra;                                             \
    const size_t num_bounds = step->epilogue.num_thresholds, left = step->c - at.channel;    \
    const int16_t *bounds = constants->bounds + at.channel * num_bounds;                     \
    uint8_t *out = arena + step->out + run->at + at.pixel * step->o + at.channel;            \
    BF_EACH(p, BF_INDEX_START)                                                               \
    for (size_t j = 0; j < num_bounds; j++) {                                                \
      const bf_vec lo = bf_vec_load(bounds), hi = bf_vec_load(bounds + BF_VEC_BYTES / 2);    \
      BF_EACH(p, BF_INDEX_COUNT)                                                             \
      bounds += BF_VEC_BYTES;                                                                \
    }                                                                                        \
    BF_EACH(p, BF_INDEX_STORE)                                                               \
  }

BF_COUNT_BOUNDS(1)
BF_COUNT_BOUNDS(2)
BF_COUNT_BOUNDS(4)

/* acc = bias + x_step * sum */
BF_INLINE bf_pair bf_accumulators(const bf_step *step, bf_pair sums, size_t lane) {
  const bf_pair bias = bf_load16(step->bias + lane);
  if (step->x_step != 1) {
    const __m256i x_step = _mm256_set1_epi32(step->x_step);
    sums = (bf_pair){_mm256_mullo_epi32(sums.lo, x_step), _mm256_mullo_epi32(sums.hi, x_step)};
  }
  return (bf_pair){_mm256_add_epi32(sums.lo, bias.lo), _mm256_add_epi32(sums.hi, bias.hi)};
}

BF_INLINE __m128i bf_load_part(const void *p) { return _mm_loadu_si128(p); }

BF_INLINE __m256i bf_join_parts(const int32_t *a, const int32_t *b) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(bf_load_part(a)), bf_load_part(b), 1);
}

/* Sums of block `block` of 16 channels, from 16-bit halves or 32-bit quarters.
 */
BF_INLINE bf_pair bf_short_block(const int16_t *sums, size_t block) {
  const int16_t *part = sums + block * 8;
  return (bf_pair){_mm256_cvtepi16_epi32(bf_load_part(part)),
                   _mm256_cvtepi16_epi32(bf_load_part(part + BF_VEC_BYTES / 2))};
}

BF_INLINE bf_pair bf_wide_block(const int32_t *sums, size_t block) {
  const int32_t *part = sums + block * 4;
  enum { REGISTER = BF_VEC_BYTES / 4 };
  return (bf_pair){bf_join_parts(part, part + REGISTER),
                   bf_join_parts(part + 2 * REGISTER, part + 3 * REGISTER)};
}

/* Any epilogue, in blocks of 16 channels; `sums` as the tile left them, 16 or
 * 32 bits wide. */
BF_INLINE void bf_finish_sums(const bf_step *step, uint8_t *arena, const bf_run *run, bf_tile_at at,
                              const bf_vec *sums, const size_t num_pixels, const size_t is_wide) {
  int32_t acc[BF_RUN_PIXELS * BF_LANES];
  const size_t left = step->c - at.channel;
  for (size_t block = 0; block < BF_VEC_LANES && block * BF_LANES < left; block++) {
    const size_t lane = at.channel + block * BF_LANES;
    for (size_t i = 0; i < num_pixels; i++) {
      const void *pixel = sums + (is_wide ? 4 : 2) * i;
      const bf_pair total = is_wide ? bf_wide_block(pixel, block) : bf_short_block(pixel, block);
      bf_store_wide(bf_accumulators(step, total, lane), BF_LANES, acc + i * BF_LANES);
    }
    const size_t count = step->c - lane;
    const bf_rows rows = {.acc = acc,
                          .stride = BF_LANES,
                          .num_pixels = num_pixels,
                          .lane = lane,
                          .count = count < BF_LANES ? count : BF_LANES,
                          .at = run->at + at.pixel * step->o + lane};
    bf_finish_rows(step, arena, &rows);
  }
}

#define BF_TILE(p)                                                                   \
  BF_INLINE void bf_tile_##p(const bf_step *step, uint8_t *arena, const bf_run *run, \
                             bf_tile_at at, const size_t form) {                     \
    bf_vec sums[2 * p];                                                              \
    bf_short_sums_##p(run, at, sums);                                                \
    if (form == BF_DEPTHWISE_BOUNDS) {                                               \
      bf_count_bounds_##p(step, arena, run, at, sums);                               \
    } else {                                                                         \
      bf_finish_sums(step, arena, run, at, sums, p, 0);                              \
    }                                                                                \
  }

BF_TILE(1)
BF_TILE(2)
BF_TILE(4)

/* One register of channels, all pixels of a run. */
BF_INLINE void bf_run_short(const bf_step *step, uint8_t *arena, const bf_run *run, bf_tile_at at,
                            const size_t form) {
  for (; at.pixel + 4 <= run->num_pixels; at.pixel += 4) {
    bf_tile_4(step, arena, run, at, form);
  }
  if (at.pixel + 2 <= run->num_pixels) {
    bf_tile_2(step, arena, run, at, form);
    at.pixel += 2;
  }
  if (at.pixel < run->num_pixels) {
    bf_tile_1(step, arena, run, at, form);
  }
}

BF_INLINE void bf_run_wide(const bf_step *step, uint8_t *arena, const bf_run *run, bf_tile_at at) {
  bf_vec sums[8];
  for (; at.pixel + 2 <= run->num_pixels; at.pixel += 2) {
    bf_wide_sums_2(run, at, sums);
    bf_finish_sums(step, arena, run, at, sums, 2, 1);
  }
  if (at.pixel < run->num_pixels) {
    bf_wide_sums_1(run, at, sums);
    bf_finish_sums(step, arena, run, at, sums, 1, 1);
  }
}

static inline void bf_run_channels(const bf_step *restrict step, uint8_t *restrict arena,
                                   const bf_run *restrict run) {
  const bf_depthwise *constants = step->extra;
  bf_tile_at at = {.pixel = 0, .channel = 0, .panel = step->weight};
  for (; at.channel < step->c; at.channel += BF_VEC_BYTES, at.panel += step->panel_bytes) {
    if (constants->form == BF_DEPTHWISE_WIDE) {
      bf_run_wide(step, arena, run, at);
    } else if (constants->form == BF_DEPTHWISE_BOUNDS) {
      bf_run_short(step, arena, run, at, BF_DEPTHWISE_BOUNDS);
    } else {
      bf_run_short(step, arena, run, at, BF_DEPTHWISE_SHORT);
    }
  }
}

#endif
