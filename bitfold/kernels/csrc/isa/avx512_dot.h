/* AVX-512 VNNI register tiles. vpdpbusd adds four products in 32 bits without saturation, so there
 * are no flushes.
 */
#ifndef BITFOLD_AVX512_DOT_H
#define BITFOLD_AVX512_DOT_H

#include "isa/avx512_tile.h"

#define BF_ZERO(i) __m512i sum##i = zero;
#define BF_ZERO_PAIR(i) __m512i lo##i = zero, hi##i = zero;

#define BF_DOT(i) sum##i = _mm512_dpbusd_epi32(sum##i, bf_broadcast_quad(x##i + at), w);

#define BF_DOT_PAIR(i)                         \
  x = bf_broadcast_quad(x##i + at);            \
  lo##i = _mm512_dpbusd_epi32(lo##i, x, w_lo); \
  hi##i = _mm512_dpbusd_epi32(hi##i, x, w_hi);

#define BF_POINTER(i) const uint8_t *x##i = place->windows[i] + segment.offset;

#define BF_KEEP(i) sums[i] = sum##i;
#define BF_KEEP_PAIR(i) \
  sums[i] = lo##i;      \
  sums[BF_PAIR_PIXELS + i] = hi##i;

#define BF_ZERO_QUAD(i) __m512i a##i = zero, b##i = zero, c##i = zero, d##i = zero;

#define BF_DOT_QUAD(i)                      \
  x = bf_broadcast_quad(x##i + at);         \
  a##i = _mm512_dpbusd_epi32(a##i, x, w_a); \
  b##i = _mm512_dpbusd_epi32(b##i, x, w_b); \
  c##i = _mm512_dpbusd_epi32(c##i, x, w_c); \
  d##i = _mm512_dpbusd_epi32(d##i, x, w_d);

#define BF_KEEP_QUAD(i)                \
  sums[i] = a##i;                      \
  sums[BF_PAIR_PIXELS + i] = b##i;     \
  sums[2 * BF_PAIR_PIXELS + i] = c##i; \
  sums[3 * BF_PAIR_PIXELS + i] = d##i;

/* Weights of one digit. */
BF_INLINE void bf_quad_vnni(const bf_step *restrict step, uint8_t *restrict arena,
                            const bf_tile_place *restrict place) {
  const __m512i zero = _mm512_setzero_si512();
  const char *first = place->panel, *second = first + place->panel_bytes;
  const char *third = second + place->panel_bytes, *fourth = third + place->panel_bytes;
  __m512i sums[BF_QUAD_SUMS];
  BF_EACH_OF_6(BF_ZERO_QUAD)
  for (size_t s = 0; s < step->num_segments; s++) {
    const bf_segment segment = step->segments[s];
    BF_EACH_OF_6(BF_POINTER)
    for (size_t at = 0; at < 4 * segment.num_quads; at += 4) {
      const __m512i w_a = bf_load_zmm(first + 16 * at), w_b = bf_load_zmm(second + 16 * at);
      const __m512i w_c = bf_load_zmm(third + 16 * at), w_d = bf_load_zmm(fourth + 16 * at);
      __m512i x;
      BF_EACH_OF_6(BF_DOT_QUAD)
    }
    first += 64 * segment.num_quads;
    second += 64 * segment.num_quads;
    third += 64 * segment.num_quads;
    fourth += 64 * segment.num_quads;
  }
  BF_EACH_OF_6(BF_KEEP_QUAD)
  bf_finish_blocks(step, arena, place, sums, 4);
}

BF_INLINE void bf_pair_vnni(const bf_step *restrict step, uint8_t *restrict arena,
                            const bf_tile_place *restrict place) {
  const __m512i zero = _mm512_setzero_si512();
  const char *first = place->panel, *second = first + place->panel_bytes;
  __m512i sums[BF_TILE_SUMS];
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
  }
  BF_EACH_OF_6(BF_KEEP_PAIR)
  bf_finish_pair(step, arena, place, sums);
}

BF_INLINE void bf_single_vnni(const bf_step *restrict step, uint8_t *restrict arena,
                              const bf_tile_place *restrict place) {
  const __m512i zero = _mm512_setzero_si512();
  const char *weight = place->panel;
  __m512i sums[BF_TILE_SUMS];
  BF_EACH_OF_8(BF_ZERO)
  for (size_t s = 0; s < step->num_segments; s++) {
    const bf_segment segment = step->segments[s];
    BF_EACH_OF_8(BF_POINTER)
    for (size_t at = 0; at < 4 * segment.num_quads; at += 4) {
      const __m512i w = _mm512_loadu_si512((const void *)weight);
      BF_EACH_OF_8(BF_DOT)
      weight += 64;
    }
  }
  BF_EACH_OF_8(BF_KEEP)
  bf_finish_single(step, arena, place, sums);
}

#endif
