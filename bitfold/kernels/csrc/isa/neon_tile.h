/* What the NEON register tiles of the direct convolution share. */
#ifndef BITFOLD_NEON_TILE_H
#define BITFOLD_NEON_TILE_H

#include "generic/conv2d_direct.h"
#include "isa/neon.h"

/* Whether a tile reads indices as they are, or as index - 128: indices above 127 have no int8. */
typedef enum bf_index_kind { BF_PLAIN_INDEX, BF_SHIFTED_INDEX } bf_index_kind;

BF_INLINE int8x16_t bf_signed_index(uint8x16_t x, bf_index_kind kind) {
  return vreinterpretq_s8_u8(kind == BF_SHIFTED_INDEX ? veorq_u8(x, vdupq_n_u8(128)) : x);
}

/* Four input bytes in every 32-bit lane. */
BF_INLINE int8x16_t bf_broadcast_quad(const uint8_t *p, bf_index_kind kind) {
  uint32_t quad;
  memcpy(&quad, p, sizeof quad);
  return bf_signed_index(vreinterpretq_u8_u32(vdupq_n_u32(quad)), kind);
}

/* sums = 256 * higher + sums; whether they were kept for lower digits of the weights. */
BF_INLINE int bf_add_digit(const bf_tile_place *place, bf_quarters *sums) {
  for (size_t pixel = 0; pixel < place->num_pixels; pixel++) {
    for (size_t i = 0; i < BF_QUARTERS; i++) {
      const size_t at = pixel * BF_LANES + 4 * i;
      if (place->higher) {
        const int32x4_t above = vshlq_n_s32(vld1q_s32(place->higher + at), 8);
        sums[pixel].v[i] = vaddq_s32(above, sums[pixel].v[i]);
      }
      if (place->kept) {
        vst1q_s32(place->kept + at, sums[pixel].v[i]);
      }
    }
  }
  return place->kept != NULL;
}

/* acc = bias + x_step * sum, then the epilogue; of wide weights behind the last digit. */
BF_INLINE void bf_finish_tile(const bf_step *step, uint8_t *arena, const bf_tile_place *place,
                              bf_quarters *sums) {
  if (bf_add_digit(place, sums)) {
    return;
  }
  int32_t acc[BF_MAX_PIXELS * BF_LANES];
  const bf_quarters bias = bf_load16(step->bias + place->lane);
  for (size_t pixel = 0; pixel < place->num_pixels; pixel++) {
    for (size_t i = 0; i < BF_QUARTERS; i++) {
      vst1q_s32(acc + pixel * BF_LANES + 4 * i,
                vmlaq_n_s32(bias.v[i], sums[pixel].v[i], step->x_step));
    }
  }
  const bf_rows rows = {.acc = acc,
                        .stride = BF_LANES,
                        .num_pixels = place->num_pixels,
                        .lane = place->lane,
                        .count = place->count,
                        .at = place->at};
  bf_finish_rows(step, arena, &rows);
}

#endif
