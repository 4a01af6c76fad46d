/* Register tiles of the direct convolution without dot products: sums in 8 or 16 bits, widened at
 * the flushes that the segments ask for and at the end.
 */
#ifndef BITFOLD_NEON_MUL_H
#define BITFOLD_NEON_MUL_H

#include "isa/neon_tile.h"

enum { BF_BYTE_PIXELS = 4, BF_SHORT_PIXELS = 2 };

#define BF_EACH_OF_2(f) f(0) f(1)
#define BF_EACH_OF_4(f) BF_EACH_OF_2(f) f(2) f(3)

#define BF_MUL_PANEL                                                      \
  const int8x16_t wa = vld1q_s8(weight), wb = vld1q_s8(weight + 16);      \
  const int8x16_t wc = vld1q_s8(weight + 32), wd = vld1q_s8(weight + 48); \
  weight += 4 * BF_LANES;

/* sum[4 lanes] += 16 sums of bytes, four a lane */
BF_INLINE int32x4_t bf_add_bytes(int32x4_t sum, int8x16_t bytes) {
  return vpadalq_s16(sum, vpaddlq_s8(bytes));
}

#define BF_BYTE_ZERO(i) int8x16_t a##i = zero, b##i = zero, c##i = zero, d##i = zero;

#define BF_BYTE_QUAD(i)                                          \
  x = bf_broadcast_quad(place->windows[i] + at, BF_PLAIN_INDEX); \
  a##i = vmlaq_s8(a##i, wa, x);                                  \
  b##i = vmlaq_s8(b##i, wb, x);                                  \
  c##i = vmlaq_s8(c##i, wc, x);                                  \
  d##i = vmlaq_s8(d##i, wd, x);

#define BF_BYTE_FLUSH(i)                           \
  sums[i].v[0] = bf_add_bytes(sums[i].v[0], a##i); \
  sums[i].v[1] = bf_add_bytes(sums[i].v[1], b##i); \
  sums[i].v[2] = bf_add_bytes(sums[i].v[2], c##i); \
  sums[i].v[3] = bf_add_bytes(sums[i].v[3], d##i); \
  a##i = b##i = c##i = d##i = zero;

/* Sums in 8 bits, one product a quad: the segments' flushes keep them within -128 … 127. */
BF_INLINE void bf_tile_bytes(const bf_step *restrict step, uint8_t *restrict arena,
                             const bf_tile_place *restrict place) {
  const int8x16_t zero = vdupq_n_s8(0);
  const int8_t *weight = place->panel;
  bf_quarters sums[BF_BYTE_PIXELS];
  memset(sums, 0, sizeof sums);
  BF_EACH_OF_4(BF_BYTE_ZERO)
  for (size_t s = 0; s < step->num_segments; s++) {
    const bf_segment segment = step->segments[s];
    for (size_t at = segment.offset; at < segment.offset + 4 * segment.num_quads; at += 4) {
      BF_MUL_PANEL
      int8x16_t x;
      BF_EACH_OF_4(BF_BYTE_QUAD)
    }
    if (segment.flush) {
      BF_EACH_OF_4(BF_BYTE_FLUSH)
    }
  }
  BF_EACH_OF_4(BF_BYTE_FLUSH)
  bf_finish_tile(step, arena, place, sums);
}

/* sum[4 lanes] += 16 sums of 16 bits, four a lane */
BF_INLINE int32x4_t bf_add_shorts(int32x4_t sum, int16x8_t lo, int16x8_t hi) {
  return vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(lo), vpaddlq_s16(hi)));
}

#define BF_SHORT_ZERO(i)                                        \
  int16x8_t a##i = zero, b##i = zero, c##i = zero, d##i = zero; \
  int16x8_t e##i = zero, f##i = zero, g##i = zero, h##i = zero;

#define BF_SHORT_QUAD(i)                                  \
  x = bf_broadcast_quad(place->windows[i] + at, kind);    \
  a##i = vmlal_s8(a##i, vget_low_s8(wa), vget_low_s8(x)); \
  b##i = vmlal_high_s8(b##i, wa, x);                      \
  c##i = vmlal_s8(c##i, vget_low_s8(wb), vget_low_s8(x)); \
  d##i = vmlal_high_s8(d##i, wb, x);                      \
  e##i = vmlal_s8(e##i, vget_low_s8(wc), vget_low_s8(x)); \
  f##i = vmlal_high_s8(f##i, wc, x);                      \
  g##i = vmlal_s8(g##i, vget_low_s8(wd), vget_low_s8(x)); \
  h##i = vmlal_high_s8(h##i, wd, x);

#define BF_SHORT_FLUSH(i)                                 \
  sums[i].v[0] = bf_add_shorts(sums[i].v[0], a##i, b##i); \
  sums[i].v[1] = bf_add_shorts(sums[i].v[1], c##i, d##i); \
  sums[i].v[2] = bf_add_shorts(sums[i].v[2], e##i, f##i); \
  sums[i].v[3] = bf_add_shorts(sums[i].v[3], g##i, h##i); \
  a##i = b##i = c##i = d##i = e##i = f##i = g##i = h##i = zero;

/* Sums in 16 bits, one product a quad: the segments' flushes keep them from overflowing. */
BF_INLINE void bf_tile_short(const bf_step *restrict step, uint8_t *restrict arena,
                             const bf_tile_place *restrict place, const bf_index_kind kind) {
  const int16x8_t zero = vdupq_n_s16(0);
  const int8_t *weight = place->panel;
  bf_quarters sums[BF_SHORT_PIXELS];
  memset(sums, 0, sizeof sums);
  BF_EACH_OF_2(BF_SHORT_ZERO)
  for (size_t s = 0; s < step->num_segments; s++) {
    const bf_segment segment = step->segments[s];
    for (size_t at = segment.offset; at < segment.offset + 4 * segment.num_quads; at += 4) {
      BF_MUL_PANEL
      int8x16_t x;
      BF_EACH_OF_2(BF_SHORT_QUAD)
    }
    if (segment.flush) {
      BF_EACH_OF_2(BF_SHORT_FLUSH)
    }
  }
  BF_EACH_OF_2(BF_SHORT_FLUSH)
  bf_finish_tile(step, arena, place, sums);
}

#endif
