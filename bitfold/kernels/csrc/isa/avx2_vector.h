/* AVX2 dot products of layout `vector`: 32 channels in four registers. */
#ifndef BITFOLD_AVX2_VECTOR_H
#define BITFOLD_AVX2_VECTOR_H

#include "generic/conv2d_vector.h"
#include "isa/avx2.h"

/* One pixel of at most 16 lanes. */
BF_INLINE void bf_finish_lanes(const bf_step *step, uint8_t *arena, const int32_t *acc, size_t lane,
                               size_t count) {
  const bf_rows rows = {
      .acc = acc, .stride = BF_LANES, .num_pixels = 1, .lane = lane, .count = count, .at = lane};
  bf_finish_rows(step, arena, &rows);
}

#define BF_EACH_OF_PANEL(f) f(0) f(1) f(2) f(3)

BF_INLINE __m256i bf_broadcast_word(const uint8_t *p) {
  int32_t word;
  memcpy(&word, p, sizeof word);
  return _mm256_set1_epi32(word);
}

BF_INLINE __m256i bf_load_codes(const int8_t *p) {
  return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

BF_INLINE void bf_store_dots(__m256i dots, int32_t *out) {
  _mm256_storeu_si256((__m256i *)(void *)out, dots);
}

#define BF_VECTOR_ZERO(i) __m256i dot##i = zero, sum##i = zero;
#define BF_VECTOR_LOAD(i) __m256i w##i = bf_load_codes(panel + 32 * i);
#define BF_VECTOR_ADD(i) sum##i = _mm256_add_epi16(sum##i, _mm256_maddubs_epi16(quad, w##i));
#define BF_VECTOR_ADD_INDEX(i)                                                                 \
  sum##i = _mm256_add_epi16(sum##i, _mm256_maddubs_epi16(quad, _mm256_and_si256(w##i, mask))); \
  w##i = _mm256_srl_epi16(w##i, bits);
#define BF_VECTOR_FLUSH(i)                                            \
  dot##i = _mm256_add_epi32(dot##i, _mm256_madd_epi16(sum##i, ones)); \
  sum##i = zero;
#define BF_VECTOR_STORE(i) bf_store_dots(dot##i, dots + 8 * i);

/* Sums in 16 bits: the layout proves that `flush` groups of them fit. */
BF_INLINE void bf_dot_short(const bf_step *restrict step, const uint8_t *restrict x,
                            const int8_t *restrict panel, int32_t *restrict dots) {
  const bf_vector *constants = step->extra;
  const __m256i zero = _mm256_setzero_si256(), ones = _mm256_set1_epi16(1);
  const __m256i mask = _mm256_set1_epi8((char)((1 << constants->bits) - 1));
  const __m128i bits = _mm_cvtsi32_si128((int)constants->bits);
  const size_t num_quads = 8 / constants->bits;
  size_t left = constants->num_groups;
  BF_EACH_OF_PANEL(BF_VECTOR_ZERO)
  while (left) {
    const size_t count = left < constants->flush ? left : constants->flush;
    for (size_t i = 0; i < count; i++) {
      BF_EACH_OF_PANEL(BF_VECTOR_LOAD)
      if (num_quads == 1) {
        const __m256i quad = bf_broadcast_word(x);
        BF_EACH_OF_PANEL(BF_VECTOR_ADD)
        x += 4;
      } else {
        for (size_t j = 0; j < num_quads; j++) {
          const __m256i quad = bf_broadcast_word(x);
          BF_EACH_OF_PANEL(BF_VECTOR_ADD_INDEX)
          x += 4;
        }
      }
      panel += BF_GROUP_BYTES;
    }
    BF_EACH_OF_PANEL(BF_VECTOR_FLUSH)
    left -= count;
  }
  BF_EACH_OF_PANEL(BF_VECTOR_STORE)
}

#define BF_VECTOR_ADD_WIDE(i)                                                                     \
  codes = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(panel + 16 * i))); \
  dot##i = _mm256_add_epi32(dot##i, _mm256_madd_epi16(pair, codes));

#define BF_VECTOR_START(i) __m256i dot##i = zero;

/* Sums in 32 bits; `x` holds int16, a panel pairs of codes. */
BF_INLINE void bf_dot_wide(const bf_step *restrict step, const uint8_t *restrict x,
                           const int8_t *restrict panel, int32_t *restrict dots) {
  const bf_vector *constants = step->extra;
  const __m256i zero = _mm256_setzero_si256();
  BF_EACH_OF_PANEL(BF_VECTOR_START)
  for (size_t i = 0; i < 2 * constants->num_groups; i++) {
    const __m256i pair = bf_broadcast_word(x + 4 * i);
    __m256i codes;
    BF_EACH_OF_PANEL(BF_VECTOR_ADD_WIDE)
    panel += 2 * BF_PANEL_LANES;
  }
  BF_EACH_OF_PANEL(BF_VECTOR_STORE)
}

/* The input as int16, with whatever lies behind it: its weights are zero. */
BF_INLINE void bf_widen_bytes(const uint8_t *restrict x, size_t count, uint8_t *restrict out) {
  for (size_t i = 0; i < count; i += 16) {
    const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(x + i));
    _mm256_storeu_si256((__m256i *)(void *)(out + 2 * i), _mm256_cvtepu8_epi16(bytes));
  }
}

#endif
