/* AVX-VNNI register tile of the direct convolution: 16 channels x 6 pixels, 256-bit vpdpbusd. */
#ifndef BITFOLD_AVXVNNI_DOT_H
#define BITFOLD_AVXVNNI_DOT_H

#if defined(BF_EMULATE_AVX512)
#include "isa/avx512.h"
#define _mm256_dpbusd_avx_epi32 simde_mm256_dpbusd_epi32
#endif

#include "isa/avx2_dot.h"

#define BF_VNNI_QUAD(i)                            \
  x = bf_broadcast_quad(x##i + at);                \
  lo##i = _mm256_dpbusd_avx_epi32(lo##i, x, w_lo); \
  hi##i = _mm256_dpbusd_avx_epi32(hi##i, x, w_hi);

/* vpdpbusd adds four products in 32 bits without saturation: no flushes. */
BF_INLINE void bf_tile_avxvnni(const bf_step *restrict step, uint8_t *restrict arena,
                               const bf_tile_place *restrict place) {
  const __m256i zero = _mm256_setzero_si256();
  const __m256i *weight = place->panel;
  bf_pair sums[BF_SHORT_PIXELS];
  BF_EACH_OF_6(BF_SHORT_ZERO)
  for (size_t s = 0; s < step->num_segments; s++) {
    const bf_segment segment = step->segments[s];
    BF_EACH_OF_6(BF_SHORT_POINTER)
    for (size_t at = 0; at < 4 * segment.num_quads; at += 4) {
      const __m256i w_lo = _mm256_loadu_si256(weight);
      const __m256i w_hi = _mm256_loadu_si256(weight + 1);
      __m256i x;
      BF_EACH_OF_6(BF_VNNI_QUAD)
      weight += 2;
    }
  }
  BF_EACH_OF_6(BF_WIDE_LAST)
  bf_finish_tile(step, arena, place, sums, BF_BYTE_DIGITS);
}

#endif
