/* AVX2 form of generic/unpack.h: shifts, masks, and vpshufb from index to code. */
#ifndef BITFOLD_AVX2_UNPACK_H
#define BITFOLD_AVX2_UNPACK_H

#include <immintrin.h>

#include "generic/conv2d_tiles.h"
#include "generic/unpack.h"

/* Register j of eight: 32 fields of `width` bits. */
static inline __attribute__((always_inline)) __m256i bf_fields_avx2(const uint8_t *from,
                                                                    const size_t j,
                                                                    const size_t width) {
  const size_t fields = 8 / width;
  const uint8_t *bytes = from + j / fields * 32;
  const __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)bytes);
  return _mm256_and_si256(_mm256_srli_epi16(x, (int)(j % fields * width)),
                          _mm256_set1_epi8((char)((1 << width) - 1)));
}

static inline __attribute__((always_inline)) __m256i bf_indices_avx2(const uint8_t *from,
                                                                     const size_t j,
                                                                     const size_t bits) {
  if (bits == 3) {
    const __m256i top = bf_fields_avx2(from + 64, j, 1);
    return _mm256_or_si256(bf_fields_avx2(from, j, 2), _mm256_slli_epi16(top, 2));
  }
  return bf_fields_avx2(from, j, bits);
}

#define BF_EXPAND(j)                                               \
  _mm256_storeu_si256((__m256i *)(void *)(expanded + at + 32 * j), \
                      _mm256_shuffle_epi8(table, bf_indices_avx2(panel, j, bits)))

static inline __attribute__((always_inline)) void bf_expand_bits(const bf_packed *restrict packed,
                                                                 const uint8_t *restrict panel,
                                                                 int8_t *restrict expanded,
                                                                 const size_t bits) {
  const __m128i codes = _mm_loadu_si128((const __m128i *)(const void *)packed->table);
  const __m256i table = _mm256_broadcastsi128_si256(codes);
  const size_t size = packed->expanded_bytes;
  for (size_t at = 0; at < size; at += 256) {
    BF_EXPAND(0);
    BF_EXPAND(1);
    BF_EXPAND(2);
    BF_EXPAND(3);
    BF_EXPAND(4);
    BF_EXPAND(5);
    BF_EXPAND(6);
    BF_EXPAND(7);
    panel += 32 * bits;
  }
}

static inline void bf_expand_avx2(const bf_packed *restrict packed, const uint8_t *restrict panel,
                                  int8_t *restrict expanded) {
  switch (packed->bits) {
  case 1:
    bf_expand_bits(packed, panel, expanded, 1);
    break;
  case 2:
    bf_expand_bits(packed, panel, expanded, 2);
    break;
  case 3:
    bf_expand_bits(packed, panel, expanded, 3);
    break;
  default:
    bf_expand_bits(packed, panel, expanded, 4);
  }
}

#endif
