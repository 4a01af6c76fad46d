/* Register tile of the direct convolution with dot products (sdot): 16 channels x 4 pixels. */
#ifndef BITFOLD_NEON_DOT_H
#define BITFOLD_NEON_DOT_H

#include "isa/neon_tile.h"

enum { BF_DOT_PIXELS = 4, BF_DOT_QUADS = 4 };

#define BF_DOT_EACH(f) f(0) f(1) f(2) f(3)

#define BF_DOT_ZERO(i) int32x4_t a##i = zero, b##i = zero, c##i = zero, d##i = zero;

#define BF_DOT_LOAD(i) \
  const int8x16_t x##i = bf_signed_index(vld1q_u8(place->windows[i] + at), kind);

#define BF_DOT_BROADCAST(i) const int8x16_t x##i = bf_broadcast_quad(place->windows[i] + at, kind);

#define BF_DOT_PANEL                                                      \
  const int8x16_t wa = vld1q_s8(weight), wb = vld1q_s8(weight + 16);      \
  const int8x16_t wc = vld1q_s8(weight + 32), wd = vld1q_s8(weight + 48); \
  weight += 4 * BF_LANES;

/* Quad `quad` of the pixel's register. */
#define BF_DOT_PIXEL(i, quad)                   \
  a##i = vdotq_laneq_s32(a##i, wa, x##i, quad); \
  b##i = vdotq_laneq_s32(b##i, wb, x##i, quad); \
  c##i = vdotq_laneq_s32(c##i, wc, x##i, quad); \
  d##i = vdotq_laneq_s32(d##i, wd, x##i, quad);

/* The empty statement keeps the panel's later loads where they are: moved up, they would push sums
 * out of the registers.
 */
#define BF_DOT_QUAD(quad)                                                           \
  {                                                                                 \
    BF_DOT_PANEL                                                                    \
    BF_DOT_PIXEL(0, quad)                                                           \
    BF_DOT_PIXEL(1, quad)                                                           \
    BF_DOT_PIXEL(2, quad) BF_DOT_PIXEL(3, quad) __asm__ volatile("" :: : "memory"); \
  }

#define BF_DOT_SUMS(i) {{a##i, b##i, c##i, d##i}},

/* sdot adds four products in 32 bits, modulo 2^32: no flushes. */
BF_INLINE void bf_tile_dot(const bf_step *restrict step, uint8_t *restrict arena,
                           const bf_tile_place *restrict place, const bf_index_kind kind) {
  const int32x4_t zero = vdupq_n_s32(0);
  const int8_t *weight = place->panel;
  BF_DOT_EACH(BF_DOT_ZERO)
  for (size_t s = 0; s < step->num_segments; s++) {
    size_t at = step->segments[s].offset;
    size_t quads = step->segments[s].num_quads;
    for (; quads >= BF_DOT_QUADS; quads -= BF_DOT_QUADS, at += 4 * BF_DOT_QUADS) {
      BF_DOT_EACH(BF_DOT_LOAD)
      BF_DOT_EACH(BF_DOT_QUAD)
    }
    for (; quads; quads--, at += 4) {
      BF_DOT_EACH(BF_DOT_BROADCAST)
      BF_DOT_QUAD(0)
    }
  }
  bf_quarters sums[BF_DOT_PIXELS] = {BF_DOT_EACH(BF_DOT_SUMS)};
  bf_finish_tile(step, arena, place, sums);
}

#endif
