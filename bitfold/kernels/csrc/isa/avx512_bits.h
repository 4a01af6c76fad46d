/* AVX-512 primitives of the bit-serial convolution: vpopcntd on 16 channels x 32 bits. */
#ifndef BITFOLD_AVX512_BITS_H
#define BITFOLD_AVX512_BITS_H

#include "isa/avx2_bits.h"
#include "isa/avx512.h"

/* Truth table of either & (x ^ negative) for vpternlogd. */
enum { BF_SELECT_TABLE = 0x60 };

BF_INLINE __m512i bf_load_lanes(const uint32_t *p) { return _mm512_loadu_si512((const void *)p); }

/* sum + ones of what one word of the input and 16 lanes of a weight plane make. */
BF_INLINE __m512i bf_add_ones(const size_t op, __m512i sum, __m512i x, __m512i first,
                              __m512i second) {
  const __m512i met = op == BF_PLANE_AND ? _mm512_and_si512(x, first)
                      : op == BF_PLANE_XOR
                          ? _mm512_xor_si512(x, first)
                          : _mm512_ternarylogic_epi32(first, x, second, BF_SELECT_TABLE);
  return _mm512_add_epi32(sum, _mm512_popcnt_epi32(met));
}

/* dots += counts << shift */
BF_INLINE void bf_add_shifted(uint32_t *dots, __m512i counts, size_t shift) {
  const __m512i shifted = _mm512_sll_epi32(counts, _mm_cvtsi32_si128((int)shift));
  _mm512_storeu_si512((void *)dots, _mm512_add_epi32(bf_load_lanes(dots), shifted));
}

BF_INLINE void bf_dot_lanes(const size_t op, const bf_step *restrict step,
                            const uint32_t *restrict x, const uint32_t *restrict w,
                            uint32_t *restrict dots) {
  const size_t num_words = step->num_words, second = op == BF_PLANE_SELECT ? num_words * 16 : 0;
  memset(dots, 0, BF_LANES * sizeof *dots);
  for (size_t q = 0; q < step->w_planes; q++) {
    for (size_t p = 0; p < step->x_planes; p++) {
      const uint32_t *plane = w + q * num_words * BF_LANES, *words = x + p * num_words;
      __m512i total = _mm512_setzero_si512();
      for (size_t k = 0; k < num_words; k++) {
        const uint32_t *lanes = plane + k * BF_LANES;
        total = bf_add_ones(op, total, _mm512_set1_epi32((int)words[k]), bf_load_lanes(lanes),
                            bf_load_lanes(lanes + second));
      }
      bf_add_shifted(dots, total, p + q);
    }
  }
}

#define BF_EACH_SUM(f)                                                                            \
  f(0, 0) f(0, 1) f(0, 2) f(0, 3) f(1, 0) f(1, 1) f(1, 2) f(1, 3) f(2, 0) f(2, 1) f(2, 2) f(2, 3) \
      f(3, 0) f(3, 1) f(3, 2) f(3, 3)
#define BF_EACH_OF_FOUR(f) f(0) f(1) f(2) f(3)

#define BF_SUM_ZERO(i, j) __m512i sum##i##j = _mm512_setzero_si512();
#define BF_SUM_WEIGHT(j)                                                    \
  const __m512i first##j = bf_load_lanes(plane + j * panel + k * BF_LANES); \
  const __m512i second##j = bf_load_lanes(plane + j * panel + k * BF_LANES + second);
#define BF_SUM_WORD(i) const __m512i x##i = _mm512_set1_epi32((int)words[i * window + k]);
#define BF_SUM_ADD(i, j) sum##i##j = bf_add_ones(op, sum##i##j, x##i, first##j, second##j);
#define BF_SUM_KEEP(i, j) \
  bf_add_shifted(dots + (i * BF_PLANE_BLOCKS + j) * BF_LANES, sum##i##j, p + q);

/* 4 windows x 4 blocks: 8 loads (12 with BF_PLANE_SELECT) for 16 counts. */
BF_INLINE void bf_tile_lanes(const size_t op, const bf_step *restrict step,
                             const uint32_t *restrict x, const uint32_t *restrict w,
                             uint32_t *restrict dots) {
  const size_t num_words = step->num_words, second = op == BF_PLANE_SELECT ? num_words * 16 : 0;
  const size_t window = step->x_planes * num_words, panel = step->panel_bytes / sizeof *w;
  memset(dots, 0, BF_PLANE_PIXELS * BF_PLANE_BLOCKS * BF_LANES * sizeof *dots);
  for (size_t q = 0; q < step->w_planes; q++) {
    for (size_t p = 0; p < step->x_planes; p++) {
      const uint32_t *plane = w + q * num_words * BF_LANES, *words = x + p * num_words;
      BF_EACH_SUM(BF_SUM_ZERO)
      for (size_t k = 0; k < num_words; k++) {
        BF_EACH_OF_FOUR(BF_SUM_WEIGHT)
        BF_EACH_OF_FOUR(BF_SUM_WORD)
        BF_EACH_SUM(BF_SUM_ADD)
      }
      BF_EACH_SUM(BF_SUM_KEEP)
    }
  }
}

BF_INLINE void bf_dot_avx512(const bf_step *restrict step, const uint32_t *restrict x,
                             const uint32_t *restrict w, uint32_t *restrict dots) {
  switch (((const bf_planes *)step->extra)->op) {
  case BF_PLANE_AND:
    bf_dot_lanes(BF_PLANE_AND, step, x, w, dots);
    break;
  case BF_PLANE_XOR:
    bf_dot_lanes(BF_PLANE_XOR, step, x, w, dots);
    break;
  default:
    bf_dot_lanes(BF_PLANE_SELECT, step, x, w, dots);
  }
}

BF_INLINE void bf_tile_avx512(const bf_step *restrict step, const uint32_t *restrict x,
                              const uint32_t *restrict w, uint32_t *restrict dots) {
  switch (((const bf_planes *)step->extra)->op) {
  case BF_PLANE_AND:
    bf_tile_lanes(BF_PLANE_AND, step, x, w, dots);
    break;
  case BF_PLANE_XOR:
    bf_tile_lanes(BF_PLANE_XOR, step, x, w, dots);
    break;
  default:
    bf_tile_lanes(BF_PLANE_SELECT, step, x, w, dots);
  }
}

#endif
