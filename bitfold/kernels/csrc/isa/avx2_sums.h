/* Sums of bytes, by AVX2. */
#ifndef BITFOLD_AVX2_SUMS_H
#define BITFOLD_AVX2_SUMS_H

#include "isa/avx2.h"

/* p[0] + … + p[count - 1], of fewer than 2^23 bytes */
BF_INLINE int32_t bf_sum_bytes(const uint8_t *p, size_t count) {
  __m256i totals = _mm256_setzero_si256();
  size_t at = 0;
  for (; at + 32 <= count; at += 32) {
    const __m256i bytes = _mm256_loadu_si256((const __m256i *)(const void *)(p + at));
    totals = _mm256_add_epi64(totals, _mm256_sad_epu8(bytes, _mm256_setzero_si256()));
  }
  __m128i total =
      _mm_add_epi64(_mm256_castsi256_si128(totals), _mm256_extracti128_si256(totals, 1));
  for (; at + 8 <= count; at += 8) {
    const __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)(p + at));
    total = _mm_add_epi64(total, _mm_sad_epu8(bytes, _mm_setzero_si128()));
  }
  int32_t sum = _mm_cvtsi128_si32(_mm_add_epi64(total, _mm_unpackhi_epi64(total, total)));
  for (; at < count; at++) {
    sum += p[at];
  }
  return sum;
}

#endif
