/* AVX-512 primitives of the bit-serial convolution: vpopcntd on 16 channels x 32 bits. */
#ifndef BITFOLD_AVX512_BITS_H
#define BITFOLD_AVX512_BITS_H

#include "generic/conv2d_bitserial.h"
#include "isa/avx512_finish.h"

BF_INLINE void bf_pack_avx512(const uint8_t *restrict bytes, size_t num_words, size_t num_planes,
                              uint32_t *restrict planes) {
  size_t k = 0;
  for (; k + 2 <= num_words; k += 2) {
    const __m512i x = bf_load_zmm(bytes + 32 * k);
    for (size_t p = 0; p < num_planes; p++) {
      const uint64_t bits = _mm512_test_epi8_mask(x, _mm512_set1_epi8((char)(1 << p)));
      memcpy(planes + p * num_words + k, &bits, sizeof bits);
    }
  }
  if (k < num_words) {
    const __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)(bytes + 32 * k));
    for (size_t p = 0; p < num_planes; p++) {
      const __m256i top = _mm256_sll_epi16(x, _mm_cvtsi32_si128(7 - (int)p));
      planes[p * num_words + k] = (uint32_t)_mm256_movemask_epi8(top);
    }
  }
}

/* Truth table of either & (x ^ negative) for vpternlogd. */
enum { BF_SELECT_TABLE = 0x60 };

/* sum + ones of what one word of the input and 16 lanes of a weight plane make. */
BF_INLINE __m512i bf_add_ones(const size_t op, __m512i sum, __m512i x, __m512i first,
                              __m512i second) {
  const __m512i met = op == BF_PLANE_AND ? _mm512_and_si512(x, first)
                      : op == BF_PLANE_XOR
                          ? _mm512_xor_si512(x, first)
                          : _mm512_ternarylogic_epi32(first, x, second, BF_SELECT_TABLE);
  return bf_add_to(sum, _mm512_popcnt_epi32(met));
}

/* dots += counts << shift; the counts of the first pair of planes, which are not shifted, begin. */
BF_INLINE void bf_add_shifted(uint32_t *dots, __m512i counts, size_t shift) {
  if (shift) {
    const __m512i shifted = _mm512_sll_epi32(counts, _mm_cvtsi32_si128((int)shift));
    counts = _mm512_add_epi32(bf_load_zmm(dots), shifted);
  }
  _mm512_storeu_si512((void *)dots, counts);
}

BF_INLINE void bf_dot_lanes(const size_t op, const bf_step *restrict step,
                            const uint32_t *restrict x, const uint32_t *restrict w,
                            uint32_t *restrict dots) {
  const size_t num_words = step->num_words, second = op == BF_PLANE_SELECT ? num_words * 16 : 0;
  for (size_t q = 0; q < step->w_planes; q++) {
    for (size_t p = 0; p < step->x_planes; p++) {
      const uint32_t *plane = w + q * num_words * BF_LANES, *words = x + p * num_words;
      __m512i total = _mm512_setzero_si512();
      for (size_t k = 0; k < num_words; k++) {
        const uint32_t *lanes = plane + k * BF_LANES;
        total = bf_add_ones(op, total, _mm512_set1_epi32((int)words[k]), bf_load_zmm(lanes),
                            bf_load_zmm(lanes + second));
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
#define BF_SUM_WEIGHT(j)                                                  \
  const __m512i first##j = bf_load_zmm(plane + j * panel + k * BF_LANES); \
  const __m512i second##j = bf_load_zmm(plane + j * panel + k * BF_LANES + second);
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

/* As bf_gather_planes, sixteen words at a time: a window's last store reaches into the next one, or
 * into the spare bytes behind the last.
 */
BF_INLINE void bf_gather_avx512(const bf_step *restrict step, const bf_plane_areas *areas,
                                size_t row, size_t column, uint32_t *restrict window) {
  const bf_planes *planes = step->extra;
  const size_t run_bytes = step->kernel_w * planes->bit_depth / 8;
  const size_t run_words = (run_bytes + 3) / 4, begin = column * planes->bit_depth / 8;
  const uint32_t mask = UINT32_MAX >> (32 * run_words - 8 * run_bytes);
  for (size_t p = 0; p < step->x_planes; p++) {
    for (size_t i = 0; i < step->kernel_h; i++) {
      const size_t at = ((row + i) * step->x_planes + p) * planes->row_words;
      const uint8_t *run = (const uint8_t *)(areas->planes + at) + begin;
      for (size_t k = 0; k < run_words; k += 16) {
        _mm512_storeu_si512((void *)(window + k), bf_load_zmm(run + 4 * k));
      }
      window[run_words - 1] &= mask;
      window += run_words;
    }
  }
}

/* With one multiplication a dot: x_step * w_step. */
BF_INLINE void bf_recombine_avx512(const bf_step *restrict step, const uint32_t *restrict dots,
                                   size_t stride, const uint32_t *restrict sums, size_t num_pixels,
                                   size_t lane, int32_t *restrict acc) {
  const uint32_t x_step = (uint32_t)step->x_step, of_sum = x_step * (uint32_t)step->w_lo;
  const __m512i scale = _mm512_set1_epi32((int)(x_step * (uint32_t)step->w_step));
  const __m512i bias = bf_load_zmm(step->bias + lane);
  for (size_t i = 0; i < num_pixels; i++) {
    const __m512i start = _mm512_add_epi32(bias, _mm512_set1_epi32((int)(of_sum * sums[i])));
    const __m512i scaled = _mm512_mullo_epi32(scale, bf_load_zmm(dots + i * stride));
    _mm512_storeu_si512((void *)(acc + i * BF_LANES), _mm512_add_epi32(start, scaled));
  }
}

BF_ONCE void bf_finish_plane_rows(const bf_step *restrict step, uint8_t *restrict arena,
                                  const int32_t *restrict acc, size_t num_pixels, size_t lane,
                                  size_t count, size_t at) {
  const bf_rows rows = {.acc = acc,
                        .stride = BF_LANES,
                        .num_pixels = num_pixels,
                        .lane = lane,
                        .count = count,
                        .at = at};
  bf_finish_wide_rows(step, arena, &rows);
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
