/* AVX-VNNI register tile of the direct convolution: 16 channels x 6 pixels, 256-bit vpdpbusd. */
#ifndef BITFOLD_AVXVNNI_DOT_H
#define BITFOLD_AVXVNNI_DOT_H

#if defined(BF_EMULATE_AVX512)
#include "isa/avx512.h"
#define _mm256_dpbusd_avx_epi32 simde_mm256_dpbusd_epi32
#endif

#include "isa/avx2_dot.h"

/* vpdpbusd adds four products in 32 bits, without saturation. */
BF_INLINE __m256i bf_add_bytes(__m256i sum, __m256i x, __m256i w) {
  return _mm256_dpbusd_avx_epi32(sum, x, w);
}

BF_INLINE void bf_tile_avxvnni(const bf_step *restrict step, uint8_t *restrict arena,
                               const bf_tile_place *restrict place) {
  bf_tile_by(step, arena, place, bf_add_bytes, BF_BYTE_DIGITS);
}

#endif
