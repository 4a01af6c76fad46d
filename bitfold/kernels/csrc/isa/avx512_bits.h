/* AVX-512 primitives of the bit-serial convolution: vpopcntd on 16 channels x 32 bits. */
#ifndef BITFOLD_AVX512_BITS_H
#define BITFOLD_AVX512_BITS_H

#include "isa/avx2_bits.h"
#include "isa/avx512.h"

BF_INLINE void bf_dot_avx512(const bf_step *restrict step, const uint32_t *restrict x,
                             const uint32_t *restrict w, uint32_t *restrict dots) {
  const size_t num_words = step->num_words;
  __m512i sum = _mm512_setzero_si512();
  for (size_t q = 0; q < step->w_planes; q++) {
    for (size_t p = 0; p < step->x_planes; p++) {
      const uint32_t *plane = w + q * num_words * BF_LANES;
      const uint32_t *words = x + p * num_words;
      __m512i total = _mm512_setzero_si512();
      for (size_t k = 0; k < num_words; k++) {
        const __m512i weight = _mm512_loadu_si512((const void *)(plane + k * BF_LANES));
        const __m512i both = _mm512_and_si512(_mm512_set1_epi32((int)words[k]), weight);
        total = _mm512_add_epi32(total, _mm512_popcnt_epi32(both));
      }
      sum = _mm512_add_epi32(sum, _mm512_sll_epi32(total, _mm_cvtsi32_si128((int)(p + q))));
    }
  }
  _mm512_storeu_si512((void *)dots, sum);
}

#endif
