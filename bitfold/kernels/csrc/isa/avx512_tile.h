/* What the AVX-512 register tiles of the direct convolution share: four blocks of 16 channels x 6
 * pixels (10 loads for 24 products), two blocks x 6 pixels (8 for 12), or one block x 8 pixels.
 */
#ifndef BITFOLD_AVX512_TILE_H
#define BITFOLD_AVX512_TILE_H

#include "generic/conv2d_tiles.h"
#include "isa/avx512_finish.h"

enum { BF_PAIR_PIXELS = 6, BF_SINGLE_PIXELS = 8, BF_TILE_SUMS = 12, BF_QUAD_SUMS = 24 };

/* Four input bytes in every 32-bit lane. */
BF_INLINE __m512i bf_broadcast_quad(const uint8_t *p) {
  int32_t quad;
  memcpy(&quad, p, sizeof quad);
  return _mm512_set1_epi32(quad);
}

/* acc = bias + x_step * sum for `num_pixels` sums of the block at `lane`, then the epilogue. */
BF_INLINE void bf_finish_sums(const bf_step *step, uint8_t *arena, const __m512i *sums,
                              const size_t num_pixels, bf_rows rows) {
  const __m512i bias = _mm512_loadu_si512((const void *)(step->bias + rows.lane));
  const __m512i x_step = _mm512_set1_epi32(step->x_step);
  const int scaled = step->x_step != 1;
  int32_t acc[BF_TILE_SUMS * BF_LANES];
  for (size_t i = 0; i < num_pixels; i++) {
    const __m512i sum = scaled ? _mm512_mullo_epi32(sums[i], x_step) : sums[i];
    _mm512_storeu_si512((void *)(acc + i * BF_LANES), _mm512_add_epi32(sum, bias));
  }
  rows.acc = acc;
  bf_finish_wide_rows(step, arena, &rows);
}

/* sums = 256 * higher + sums; whether they were kept for lower digits of the weights. */
BF_INLINE int bf_add_digit(const bf_tile_place *place, __m512i *sums, const size_t num_sums) {
  for (size_t i = 0; place->higher && i < num_sums; i++) {
    const __m512i above = _mm512_loadu_si512((const void *)(place->higher + i * BF_LANES));
    sums[i] = _mm512_add_epi32(_mm512_slli_epi32(above, 8), sums[i]);
  }
  for (size_t i = 0; place->kept && i < num_sums; i++) {
    _mm512_storeu_si512((void *)(place->kept + i * BF_LANES), sums[i]);
  }
  return place->kept != NULL;
}

/* The sums of one block x 8 pixels. */
BF_INLINE void bf_finish_single(const bf_step *step, uint8_t *arena, const bf_tile_place *place,
                                __m512i *sums) {
  if (bf_add_digit(place, sums, BF_SINGLE_PIXELS)) {
    return;
  }
  const bf_rows rows = {.stride = BF_LANES,
                        .num_pixels = place->num_pixels,
                        .lane = place->lane,
                        .count = place->count,
                        .at = place->at};
  bf_finish_sums(step, arena, sums, BF_SINGLE_PIXELS, rows);
}

/* The sums of some blocks x 6 pixels, those of the first block first. */
BF_INLINE void bf_finish_blocks(const bf_step *step, uint8_t *arena, const bf_tile_place *place,
                                const __m512i *sums, const size_t num_blocks) {
  for (size_t i = 0; i < num_blocks; i++) {
    const bf_rows rows = {.stride = BF_LANES,
                          .num_pixels = place->num_pixels,
                          .lane = place->lane + i * BF_LANES,
                          .count = i + 1 < num_blocks ? BF_LANES : place->count - i * BF_LANES,
                          .at = place->at + i * BF_LANES};
    bf_finish_sums(step, arena, sums + i * BF_PAIR_PIXELS, BF_PAIR_PIXELS, rows);
  }
}

/* The sums of two blocks x 6 pixels. */
BF_INLINE void bf_finish_pair(const bf_step *step, uint8_t *arena, const bf_tile_place *place,
                              __m512i *sums) {
  if (!bf_add_digit(place, sums, BF_TILE_SUMS)) {
    bf_finish_blocks(step, arena, place, sums, 2);
  }
}

#define BF_EACH_OF_6(f) f(0) f(1) f(2) f(3) f(4) f(5)
#define BF_EACH_OF_8(f) BF_EACH_OF_6(f) f(6) f(7)

#endif
