/* AVX2 primitives of the bit-serial convolution: bit planes and population counts by look-up. */
#ifndef BITFOLD_AVX2_BITS_H
#define BITFOLD_AVX2_BITS_H

#include "generic/conv2d_bitserial.h"
#include "isa/avx2.h"

BF_INLINE void bf_pack_avx2(const uint8_t *restrict bytes, size_t num_words, size_t num_planes,
                            uint32_t *restrict planes) {
  for (size_t k = 0; k < num_words; k++) {
    const __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)(bytes + 32 * k));
    for (size_t p = 0; p < num_planes; p++) {
      const __m256i top = _mm256_sll_epi16(x, _mm_cvtsi32_si128(7 - (int)p));
      planes[p * num_words + k] = (uint32_t)_mm256_movemask_epi8(top);
    }
  }
}

/* Bits of every byte. */
BF_INLINE __m256i bf_popcount_bytes(__m256i x) {
  const __m256i counts = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1,
                                          2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
  const __m256i nibble = _mm256_set1_epi8(15);
  const __m256i low = _mm256_and_si256(x, nibble);
  const __m256i high = _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble);
  return _mm256_add_epi8(_mm256_shuffle_epi8(counts, low), _mm256_shuffle_epi8(counts, high));
}

/* Sum of four bytes in every 32-bit lane. */
BF_INLINE __m256i bf_sum_bytes(__m256i x) {
  const __m256i pairs = _mm256_maddubs_epi16(x, _mm256_set1_epi8(1));
  return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/* Counts of one plane pair over all words, for 8 lanes; byte sums hold 31 words. */
BF_INLINE __m256i bf_count_plane(const uint32_t *restrict x, const uint32_t *restrict w,
                                 size_t num_words) {
  __m256i total = _mm256_setzero_si256();
  for (size_t first = 0; first < num_words; first += 31) {
    const size_t end = first + 31 < num_words ? first + 31 : num_words;
    __m256i bytes = _mm256_setzero_si256();
    for (size_t k = first; k < end; k++) {
      const __m256i weight = _mm256_loadu_si256((const __m256i *)(const void *)(w + k * BF_LANES));
      const __m256i both = _mm256_and_si256(_mm256_set1_epi32((int)x[k]), weight);
      bytes = _mm256_add_epi8(bytes, bf_popcount_bytes(both));
    }
    total = _mm256_add_epi32(total, bf_sum_bytes(bytes));
  }
  return total;
}

BF_INLINE void bf_dot_avx2(const bf_step *restrict step, const uint32_t *restrict x,
                           const uint32_t *restrict w, uint32_t *restrict dots) {
  const size_t num_words = step->num_words;
  bf_pair sums = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  for (size_t q = 0; q < step->w_planes; q++) {
    for (size_t p = 0; p < step->x_planes; p++) {
      const uint32_t *plane = w + q * num_words * BF_LANES;
      const __m128i shift = _mm_cvtsi32_si128((int)(p + q));
      const __m256i lo = bf_count_plane(x + p * num_words, plane, num_words);
      const __m256i hi = bf_count_plane(x + p * num_words, plane + 8, num_words);
      sums.lo = _mm256_add_epi32(sums.lo, _mm256_sll_epi32(lo, shift));
      sums.hi = _mm256_add_epi32(sums.hi, _mm256_sll_epi32(hi, shift));
    }
  }
  _mm256_storeu_si256((__m256i *)(void *)dots, sums.lo);
  _mm256_storeu_si256((__m256i *)(void *)(dots + 8), sums.hi);
}

#endif
