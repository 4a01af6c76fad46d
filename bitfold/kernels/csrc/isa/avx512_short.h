/* AVX-512 register tiles without VNNI: vpmaddubsw and 16-bit sums, flushed as on AVX2. Callers
 * prove 2 * max index * max |weight| <= 32767 and set the flushes.
 */
#ifndef BITFOLD_AVX512_SHORT_H
#define BITFOLD_AVX512_SHORT_H

#include "isa/avx512_tile.h"

#define BF_ZERO(i) __m512i sum##i = zero;
#define BF_ZERO_PAIR(i) __m512i lo##i = zero, hi##i = zero;

#define BF_DOT(i)                   \
  x = bf_broadcast_quad(x##i + at); \
  sum##i = _mm512_add_epi16(sum##i, _mm512_maddubs_epi16(x, w));

#define BF_DOT_PAIR(i)                                            \
  x = bf_broadcast_quad(x##i + at);                               \
  lo##i = _mm512_add_epi16(lo##i, _mm512_maddubs_epi16(x, w_lo)); \
  hi##i = _mm512_add_epi16(hi##i, _mm512_maddubs_epi16(x, w_hi));

#define BF_POINTER(i) const uint8_t *x##i = place->windows[i] + segment.offset;

#define BF_FLUSH_ONE(at, words)                                          \
  sums[at] = _mm512_add_epi32(sums[at], _mm512_madd_epi16(words, ones)); \
  words = zero;
#define BF_FLUSH(i) BF_FLUSH_ONE(i, sum##i)
#define BF_FLUSH_PAIR(i) BF_FLUSH_ONE(i, lo##i) BF_FLUSH_ONE(BF_PAIR_PIXELS + i, hi##i)

BF_INLINE void bf_pair_short(const bf_step *restrict step, uint8_t *restrict arena,
                             const bf_tile_place *restrict place) {
  const __m512i zero = _mm512_setzero_si512(), ones = _mm512_set1_epi16(1);
  const char *first = place->panel, *second = first + place->panel_bytes;
  __m512i sums[BF_TILE_SUMS];
  memset(sums, 0, sizeof sums);
  BF_EACH_OF_6(BF_ZERO_PAIR)
  for (size_t s = 0; s < step->num_segments; s++) {
    const bf_segment segment = step->segments[s];
    BF_EACH_OF_6(BF_POINTER)
    for (size_t at = 0; at < 4 * segment.num_quads; at += 4) {
      const __m512i w_lo = _mm512_loadu_si512((const void *)(first + 16 * at));
      const __m512i w_hi = _mm512_loadu_si512((const void *)(second + 16 * at));
      __m512i x;
      BF_EACH_OF_6(BF_DOT_PAIR)
    }
    first += 64 * segment.num_quads;
    second += 64 * segment.num_quads;
    if (segment.flush) {
      BF_EACH_OF_6(BF_FLUSH_PAIR)
    }
  }
  BF_EACH_OF_6(BF_FLUSH_PAIR)
  bf_finish_pair(step, arena, place, sums);
}

BF_INLINE void bf_single_short(const bf_step *restrict step, uint8_t *restrict arena,
                               const bf_tile_place *restrict place) {
  const __m512i zero = _mm512_setzero_si512(), ones = _mm512_set1_epi16(1);
  const char *weight = place->panel;
  __m512i sums[BF_TILE_SUMS];
  memset(sums, 0, sizeof sums);
  BF_EACH_OF_8(BF_ZERO)
  for (size_t s = 0; s < step->num_segments; s++) {
    const bf_segment segment = step->segments[s];
    BF_EACH_OF_8(BF_POINTER)
    for (size_t at = 0; at < 4 * segment.num_quads; at += 4) {
      const __m512i w = _mm512_loadu_si512((const void *)weight);
      __m512i x;
      BF_EACH_OF_8(BF_DOT)
      weight += 64;
    }
    if (segment.flush) {
      BF_EACH_OF_8(BF_FLUSH)
    }
  }
  BF_EACH_OF_8(BF_FLUSH)
  bf_finish_single(step, arena, place, sums);
}

#endif
