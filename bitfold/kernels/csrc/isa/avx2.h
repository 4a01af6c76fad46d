/* AVX2 primitives: epilogues on 8 int32 lanes a register, two registers a block of 16 lanes. */
#ifndef BITFOLD_AVX2_H
#define BITFOLD_AVX2_H

#include <immintrin.h>
#include <string.h>

#include "generic/epilogue.h"

#define BF_INLINE static inline __attribute__((always_inline))

/* One block of 16 lanes. */
typedef struct bf_pair {
  __m256i lo, hi;
} bf_pair;

BF_INLINE __m256i bf_load8(const int32_t *p) {
  return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

BF_INLINE __m256i bf_load4(const int64_t *p) {
  return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

BF_INLINE bf_pair bf_load16(const int32_t *p) { return (bf_pair){bf_load8(p), bf_load8(p + 8)}; }

/* Stores the first `count` of 16 int32. */
BF_INLINE void bf_store_wide(bf_pair value, size_t count, int32_t *out) {
  if (count == BF_LANES) {
    _mm256_storeu_si256((__m256i *)(void *)out, value.lo);
    _mm256_storeu_si256((__m256i *)(void *)(out + 8), value.hi);
    return;
  }
  int32_t block[BF_LANES];
  _mm256_storeu_si256((__m256i *)(void *)block, value.lo);
  _mm256_storeu_si256((__m256i *)(void *)(block + 8), value.hi);
  memcpy(out, block, count * sizeof(int32_t));
}

/* Stores the first `count` of 16 values 0 … 255 as bytes. */
BF_INLINE void bf_store_bytes(bf_pair value, size_t count, uint8_t *out) {
  const __m256i words = _mm256_packs_epi32(value.lo, value.hi); /* quarters 0 2 1 3 */
  const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
  const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(ordered),
                                         _mm256_extracti128_si256(ordered, 1));
  if (count == BF_LANES) {
    _mm_storeu_si128((__m128i *)(void *)out, bytes);
    return;
  }
  uint8_t block[BF_LANES];
  _mm_storeu_si128((__m128i *)(void *)block, bytes);
  memcpy(out, block, count);
}

/* The 64-bit sums even and odd lanes (low halves valid) joined into 8 int32. */
BF_INLINE __m256i bf_join(__m256i even, __m256i odd) {
  return _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
}

/* (clamp(acc) * slope + intercept) >> shift in 32 bits: the sum wraps into 0 … 2^31 - 1. */
BF_INLINE __m256i bf_line32(const bf_epilogue *e, __m256i acc, size_t lane) {
  const __m256i low = bf_load8(e->low + lane), high = bf_load8(e->high + lane);
  const __m256i x = _mm256_min_epi32(_mm256_max_epi32(acc, low), high);
  const __m256i first = bf_load4(e->intercept + lane), second = bf_load4(e->intercept + lane + 4);
  const __m256 halves = _mm256_shuffle_ps(_mm256_castsi256_ps(first), _mm256_castsi256_ps(second),
                                          0x88); /* low words, quarters 0 2 1 3 */
  const __m256i intercept = _mm256_permute4x64_epi64(_mm256_castps_si256(halves), 0xd8);
  const __m256i line = _mm256_mullo_epi32(x, bf_load8(e->slope + lane));
  return _mm256_srlv_epi32(_mm256_add_epi32(line, intercept), bf_load8(e->index_shift + lane));
}

/* The same in 64 bits, for lines that need a finer slope. */
BF_INLINE __m256i bf_line64(const bf_epilogue *e, __m256i acc, size_t lane) {
  const __m256i low = bf_load8(e->low + lane), high = bf_load8(e->high + lane);
  const __m256i x = _mm256_min_epi32(_mm256_max_epi32(acc, low), high);
  const __m256i slope = bf_load8(e->slope + lane), shift = bf_load8(e->index_shift + lane);
  const __m256i first = bf_load4(e->intercept + lane), second = bf_load4(e->intercept + lane + 4);
  const __m256i lower = _mm256_permute2x128_si256(first, second, 0x20);
  const __m256i upper = _mm256_permute2x128_si256(first, second, 0x31);
  /* lower = b0 b1 b4 b5, upper = b2 b3 b6 b7: even lanes are b0 b2 | b4 b6 */
  const __m256i even_b = _mm256_unpacklo_epi64(lower, upper);
  const __m256i odd_b = _mm256_unpackhi_epi64(lower, upper);
  const __m256i even = _mm256_add_epi64(_mm256_mul_epi32(x, slope), even_b);
  const __m256i odd = _mm256_add_epi64(
      _mm256_mul_epi32(_mm256_srli_epi64(x, 32), _mm256_srli_epi64(slope, 32)), odd_b);
  const __m256i low_half = _mm256_set1_epi64x(0xffffffff);
  return bf_join(_mm256_srlv_epi64(even, _mm256_and_si256(shift, low_half)),
                 _mm256_srlv_epi64(odd, _mm256_srli_epi64(shift, 32)));
}

/* num_thresholds - #{j : table[j] > sign * acc} */
BF_INLINE bf_pair bf_compare16(const bf_epilogue *e, bf_pair acc, size_t lane) {
  const int32_t *table = e->table + lane * e->num_thresholds;
  const __m256i lo = _mm256_sign_epi32(acc.lo, bf_load8(e->sign + lane));
  const __m256i hi = _mm256_sign_epi32(acc.hi, bf_load8(e->sign + lane + 8));
  bf_pair index = {_mm256_set1_epi32((int)e->num_thresholds),
                   _mm256_set1_epi32((int)e->num_thresholds)};
  for (size_t j = 0; j < e->num_thresholds; j++) {
    index.lo = _mm256_add_epi32(index.lo, _mm256_cmpgt_epi32(bf_load8(table + j * 16), lo));
    index.hi = _mm256_add_epi32(index.hi, _mm256_cmpgt_epi32(bf_load8(table + j * 16 + 8), hi));
  }
  return index;
}

BF_INLINE bf_pair bf_indices16(const bf_epilogue *e, bf_pair acc, size_t lane) {
  switch (e->index_form[lane / BF_LANES]) {
  case BF_LINE32:
    return (bf_pair){bf_line32(e, acc.lo, lane), bf_line32(e, acc.hi, lane + 8)};
  case BF_LINE64:
    return (bf_pair){bf_line64(e, acc.lo, lane), bf_line64(e, acc.hi, lane + 8)};
  default:
    return bf_compare16(e, acc, lane);
  }
}

/* Low words of eight int64 constants. */
BF_INLINE __m256i bf_low_words(const int64_t *p) {
  const __m256 halves = _mm256_shuffle_ps(_mm256_castsi256_ps(bf_load4(p)),
                                          _mm256_castsi256_ps(bf_load4(p + 4)), 0x88);
  return _mm256_permute4x64_epi64(_mm256_castps_si256(halves), 0xd8);
}

/* Floor shift of int64 whose result fits int32; the low words are valid. */
BF_INLINE __m256i bf_shift64(__m256i value, size_t shift) {
  if (shift <= 32) {
    return _mm256_srl_epi64(value, _mm_cvtsi32_si128((int)shift));
  }
  return _mm256_sra_epi32(_mm256_srli_epi64(value, 32), _mm_cvtsi32_si128((int)shift - 32));
}

BF_INLINE __m256i bf_wide8(const bf_epilogue *e, __m256i acc, size_t lane) {
  const __m256i multiplier = bf_low_words(e->multiplier + lane);
  if (e->wide_form == BF_WIDE32) {
    const __m256i product = _mm256_mullo_epi32(acc, multiplier);
    const __m256i sum = _mm256_add_epi32(product, bf_low_words(e->offset + lane));
    return _mm256_sra_epi32(sum, _mm_cvtsi32_si128((int)e->shift));
  }
  const __m256i first = bf_load4(e->offset + lane), second = bf_load4(e->offset + lane + 4);
  const __m256i lower = _mm256_permute2x128_si256(first, second, 0x20);
  const __m256i upper = _mm256_permute2x128_si256(first, second, 0x31);
  const __m256i even = _mm256_add_epi64(_mm256_mul_epi32(acc, multiplier),
                                        _mm256_unpacklo_epi64(lower, upper));
  const __m256i odd = _mm256_add_epi64(
      _mm256_mul_epi32(_mm256_srli_epi64(acc, 32), _mm256_srli_epi64(multiplier, 32)),
      _mm256_unpackhi_epi64(lower, upper));
  return bf_join(bf_shift64(even, e->shift), bf_shift64(odd, e->shift));
}

BF_INLINE void bf_finish_any(const bf_step *step, uint8_t *arena, bf_pair acc, size_t lane,
                             size_t count, size_t at) {
  int32_t block[BF_LANES];
  bf_store_wide(acc, BF_LANES, block);
  bf_finish(step, arena, block, lane, count, at);
}

/* Writes `count` results of one block at element `at` of the output. */
BF_INLINE void bf_finish16(const bf_step *step, uint8_t *arena, bf_pair acc, size_t lane,
                           size_t count, size_t at) {
  const bf_epilogue *e = &step->epilogue;
  if (e->kind == BF_TO_INDICES) {
    bf_store_bytes(bf_indices16(e, acc, lane), count, arena + step->out + at);
    return;
  }
  int32_t *out = (int32_t *)(void *)(arena + step->out) + at;
  if (e->kind == BF_TO_ACCUMULATORS) {
    bf_store_wide(acc, count, out);
    return;
  }
  if (e->wide_form == BF_WIDE_ANY || e->negative_multiplier) {
    bf_finish_any(step, arena, acc, lane, count, at);
    return;
  }
  bf_pair y = {bf_wide8(e, acc.lo, lane), bf_wide8(e, acc.hi, lane + 8)};
  if (e->has_relu) {
    y.lo = _mm256_max_epi32(y.lo, _mm256_setzero_si256());
    y.hi = _mm256_max_epi32(y.hi, _mm256_setzero_si256());
  }
  if (e->has_add) {
    const bf_pair add = bf_load16((const int32_t *)(const void *)(arena + e->add) + at);
    y.lo = _mm256_add_epi32(y.lo, add.lo);
    y.hi = _mm256_add_epi32(y.hi, add.hi);
  }
  bf_store_wide(y, count, out);
}

#endif
