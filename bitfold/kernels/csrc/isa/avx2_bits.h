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

/* What 8 lanes of one word of a weight plane make of a word of the input; `second` is the lanes'
 * distance to the second plane that BF_PLANE_SELECT reads.
 */
BF_INLINE __m256i bf_meet_avx2(const size_t op, __m256i x, const uint32_t *w, size_t second) {
  const __m256i first = _mm256_loadu_si256((const __m256i *)(const void *)w);
  if (op == BF_PLANE_AND) {
    return _mm256_and_si256(x, first);
  }
  if (op == BF_PLANE_XOR) {
    return _mm256_xor_si256(x, first);
  }
  const __m256i negative = _mm256_loadu_si256((const __m256i *)(const void *)(w + second));
  return _mm256_and_si256(first, _mm256_xor_si256(x, negative));
}

/* Counts of one plane pair over all words, for 16 lanes; byte sums hold 31 words. */
BF_INLINE bf_pair bf_count_plane(const size_t op, const uint32_t *restrict x,
                                 const uint32_t *restrict w, size_t num_words) {
  const size_t second = num_words * BF_LANES;
  const __m256i zero = _mm256_setzero_si256();
  bf_pair total = {zero, zero};
  for (size_t first = 0; first < num_words; first += 31) {
    const size_t end = first + 31 < num_words ? first + 31 : num_words;
    bf_pair bytes = {zero, zero};
    for (size_t k = first; k < end; k++) {
      const uint32_t *lanes = w + k * BF_LANES;
      const __m256i word = _mm256_set1_epi32((int)x[k]);
      const __m256i lo = bf_meet_avx2(op, word, lanes, second);
      const __m256i hi = bf_meet_avx2(op, word, lanes + 8, second);
      bytes.lo = _mm256_add_epi8(bytes.lo, bf_popcount_bytes(lo));
      bytes.hi = _mm256_add_epi8(bytes.hi, bf_popcount_bytes(hi));
    }
    total.lo = _mm256_add_epi32(total.lo, bf_sum_bytes(bytes.lo));
    total.hi = _mm256_add_epi32(total.hi, bf_sum_bytes(bytes.hi));
  }
  return total;
}

BF_INLINE void bf_dot_planes(const size_t op, const bf_step *restrict step,
                             const uint32_t *restrict x, const uint32_t *restrict w,
                             uint32_t *restrict dots) {
  const size_t num_words = step->num_words;
  bf_pair sums = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  for (size_t q = 0; q < step->w_planes; q++) {
    for (size_t p = 0; p < step->x_planes; p++) {
      const __m128i shift = _mm_cvtsi32_si128((int)(p + q));
      const bf_pair count =
          bf_count_plane(op, x + p * num_words, w + q * num_words * BF_LANES, num_words);
      sums.lo = _mm256_add_epi32(sums.lo, _mm256_sll_epi32(count.lo, shift));
      sums.hi = _mm256_add_epi32(sums.hi, _mm256_sll_epi32(count.hi, shift));
    }
  }
  _mm256_storeu_si256((__m256i *)(void *)dots, sums.lo);
  _mm256_storeu_si256((__m256i *)(void *)(dots + 8), sums.hi);
}

BF_INLINE void bf_dot_avx2(const bf_step *restrict step, const uint32_t *restrict x,
                           const uint32_t *restrict w, uint32_t *restrict dots) {
  switch (((const bf_planes *)step->extra)->op) {
  case BF_PLANE_AND:
    bf_dot_planes(BF_PLANE_AND, step, x, w, dots);
    break;
  case BF_PLANE_XOR:
    bf_dot_planes(BF_PLANE_XOR, step, x, w, dots);
    break;
  default:
    bf_dot_planes(BF_PLANE_SELECT, step, x, w, dots);
  }
}

BF_ONCE void bf_finish_planes(const bf_step *restrict step, uint8_t *restrict arena,
                              const int32_t *restrict acc, size_t num_pixels, size_t lane,
                              size_t count, size_t at) {
  const bf_rows rows = {.acc = acc,
                        .stride = BF_LANES,
                        .num_pixels = num_pixels,
                        .lane = lane,
                        .count = count,
                        .at = at};
  bf_finish_rows(step, arena, &rows);
}

#endif
