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

/* acc = bias + x_step * sum, into the row of `pixel`. */
BF_INLINE void bf_store_acc(const bf_step *step, const bf_tile_place *place, __m512i sum,
                            int32_t *restrict acc) {
  const __m512i bias = _mm512_loadu_si512((const void *)(step->bias + place->lane));
  if (step->x_step != 1) {
    sum = _mm512_mullo_epi32(sum, _mm512_set1_epi32(step->x_step));
  }
  _mm512_storeu_si512((void *)acc, _mm512_add_epi32(sum, bias));
}

#define BF_EACH_PIXEL(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7)

#define BF_ZERO(i) __m512i sum##i = _mm512_setzero_si512();

#define BF_STORE(i) bf_store_acc(step, place, sum##i, acc + i * BF_LANES);

#define BF_DOT(i) \
  sum##i = _mm512_dpbusd_epi32(sum##i, bf_broadcast_quad(place->windows[i] + at), w);

/* vpdpbusd adds four products in 32 bits without saturation: no flushes. */
BF_INLINE void bf_tile_vnni(const bf_step *restrict step, uint8_t *restrict arena,
                            const bf_tile_place *restrict place) {
  const char *weight = place->panel;
  int32_t acc[BF_VNNI_PIXELS * BF_LANES];
  BF_EACH_PIXEL(BF_ZERO)
  for (size_t s = 0; s < step->num_segments; s++) {
    const bf_segment segment = step->segments[s];
    for (size_t q = 0; q < segment.num_quads; q++) {
      const size_t at = segment.offset + 4 * q;
      const __m512i w = _mm512_loadu_si512((const void *)weight);
      BF_EACH_PIXEL(BF_DOT)
      weight += 64;
    }
  }
  BF_EACH_PIXEL(BF_STORE)
  const bf_rows rows = {.acc = acc,
                        .stride = BF_LANES,
                        .num_pixels = place->num_pixels,
                        .lane = place->lane,
                        .count = place->count,
                        .at = place->at};
  bf_finish_rows(step, arena, &rows);
}

#endif
