/* AVX-512 VNNI register tile of the direct convolution: 16 channels x 8 pixels. */
#ifndef BITFOLD_AVX512_DOT_H
#define BITFOLD_AVX512_DOT_H

#include "generic/conv2d_direct.h"
#include "isa/avx512.h"

enum { BF_VNNI_PIXELS = 8 };

/* Four input bytes in every 32-bit lane. */
BF_INLINE __m512i bf_broadcast_quad(const uint8_t *p) {
  int32_t quad;
  memcpy(&quad, p, sizeof quad);
  return _mm512_set1_epi32(quad);
}

BF_INLINE void bf_finish_pixel(const bf_step *step, uint8_t *arena, const bf_tile_place *place,
                               size_t pixel, __m512i sum) {
  if (pixel >= place->num_pixels) {
    return;
  }
  const __m512i bias = _mm512_loadu_si512((const void *)(step->bias + place->lane));
  if (step->x_step != 1) {
    sum = _mm512_mullo_epi32(sum, _mm512_set1_epi32(step->x_step));
  }
  bf_finish16(step, arena, bf_halves(_mm512_add_epi32(sum, bias)), place->lane, place->count,
              place->at + pixel * step->o);
}

#define BF_DOT(i) \
  sum##i = _mm512_dpbusd_epi32(sum##i, bf_broadcast_quad(place->windows[i] + at), w);

/* vpdpbusd adds four products in 32 bits without saturation: no flushes. */
BF_INLINE void bf_tile_vnni(const bf_step *restrict step, uint8_t *restrict arena,
                            const bf_tile_place *restrict place) {
  const __m512i zero = _mm512_setzero_si512();
  const char *weight = place->panel;
  __m512i sum0 = zero, sum1 = zero, sum2 = zero, sum3 = zero;
  __m512i sum4 = zero, sum5 = zero, sum6 = zero, sum7 = zero;
  for (size_t s = 0; s < step->num_segments; s++) {
    const bf_segment segment = step->segments[s];
    for (size_t q = 0; q < segment.num_quads; q++) {
      const size_t at = segment.offset + 4 * q;
      const __m512i w = _mm512_loadu_si512((const void *)weight);
      BF_DOT(0) BF_DOT(1) BF_DOT(2) BF_DOT(3) BF_DOT(4) BF_DOT(5) BF_DOT(6) BF_DOT(7)
      weight += 64;
    }
  }
  bf_finish_pixel(step, arena, place, 0, sum0), bf_finish_pixel(step, arena, place, 1, sum1);
  bf_finish_pixel(step, arena, place, 2, sum2), bf_finish_pixel(step, arena, place, 3, sum3);
  bf_finish_pixel(step, arena, place, 4, sum4), bf_finish_pixel(step, arena, place, 5, sum5);
  bf_finish_pixel(step, arena, place, 6, sum6), bf_finish_pixel(step, arena, place, 7, sum7);
}

#endif
