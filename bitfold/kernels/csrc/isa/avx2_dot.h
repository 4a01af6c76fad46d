/* AVX2 register tiles of the direct convolution: 16 channels x up to 4 pixels. */
#ifndef BITFOLD_AVX2_DOT_H
#define BITFOLD_AVX2_DOT_H

#include "generic/conv2d_direct.h"
#include "isa/avx2.h"

enum { BF_AVX2_PIXELS = 4 };

/* Four input bytes in every 32-bit lane. */
BF_INLINE __m256i bf_broadcast_quad(const uint8_t *p) {
  int32_t quad;
  memcpy(&quad, p, sizeof quad);
  return _mm256_set1_epi32(quad);
}

/* acc = bias + x_step * sum, then the epilogue. */
BF_INLINE void bf_finish_tile(const bf_step *step, uint8_t *arena, const bf_tile_place *place,
                              bf_pair *sums) {
  const bf_pair bias = bf_load16(step->bias + place->lane);
  const __m256i x_step = _mm256_set1_epi32(step->x_step);
  for (size_t i = 0; i < place->num_pixels; i++) {
    if (step->x_step != 1) {
      sums[i].lo = _mm256_mullo_epi32(sums[i].lo, x_step);
      sums[i].hi = _mm256_mullo_epi32(sums[i].hi, x_step);
    }
    const bf_pair acc = {_mm256_add_epi32(sums[i].lo, bias.lo),
                         _mm256_add_epi32(sums[i].hi, bias.hi)};
    bf_finish16(step, arena, acc, place->lane, place->count, place->at + i * step->o);
  }
}

/* sums += (int32) short_sums; short_sums = 0 */
BF_INLINE void bf_flush(__m256i *restrict short_sums, __m256i *restrict sums) {
  const __m256i ones = _mm256_set1_epi16(1);
  *sums = _mm256_add_epi32(*sums, _mm256_madd_epi16(*short_sums, ones));
  *short_sums = _mm256_setzero_si256();
}

#define BF_QUAD(i)                                                                           \
  {                                                                                          \
    const __m256i x = bf_broadcast_quad(x##i + 4 * q);                                       \
    lo##i = _mm256_add_epi16(lo##i, _mm256_maddubs_epi16(x, w_lo));                          \
    hi##i = _mm256_add_epi16(hi##i, _mm256_maddubs_epi16(x, w_hi));                          \
  }

/* Products in 16 bits: callers prove 2 * max index * max |weight| <= 32767 and set the flushes. */
BF_INLINE void bf_tile_short(const bf_step *restrict step, uint8_t *restrict arena,
                             const bf_tile_place *restrict place) {
  const __m256i zero = _mm256_setzero_si256();
  const __m256i *weight = place->panel;
  bf_pair sums[BF_AVX2_PIXELS] = {{zero, zero}, {zero, zero}, {zero, zero}, {zero, zero}};
  __m256i lo0 = zero, lo1 = zero, lo2 = zero, lo3 = zero;
  __m256i hi0 = zero, hi1 = zero, hi2 = zero, hi3 = zero;
  for (size_t s = 0; s < step->num_segments; s++) {
    const bf_segment segment = step->segments[s];
    const uint8_t *x0 = place->windows[0] + segment.offset;
    const uint8_t *x1 = place->windows[1] + segment.offset;
    const uint8_t *x2 = place->windows[2] + segment.offset;
    const uint8_t *x3 = place->windows[3] + segment.offset;
    for (size_t q = 0; q < segment.num_quads; q++) {
      const __m256i w_lo = _mm256_loadu_si256(weight);
      const __m256i w_hi = _mm256_loadu_si256(weight + 1);
      BF_QUAD(0) BF_QUAD(1) BF_QUAD(2) BF_QUAD(3)
      weight += 2;
    }
    if (segment.flush) {
      bf_flush(&lo0, &sums[0].lo), bf_flush(&hi0, &sums[0].hi);
      bf_flush(&lo1, &sums[1].lo), bf_flush(&hi1, &sums[1].hi);
      bf_flush(&lo2, &sums[2].lo), bf_flush(&hi2, &sums[2].hi);
      bf_flush(&lo3, &sums[3].lo), bf_flush(&hi3, &sums[3].hi);
    }
  }
  bf_finish_tile(step, arena, place, sums);
}

/* sums += x (u8, as even and odd words) * weight (int16: even bytes' lanes, then odd bytes') */
BF_INLINE void bf_add_wide_quad(__m256i x, const __m256i *weight, bf_pair *sums) {
  const __m256i even = _mm256_and_si256(x, _mm256_set1_epi16(0xff));
  const __m256i odd = _mm256_srli_epi16(x, 8);
  const __m256i lo = _mm256_add_epi32(_mm256_madd_epi16(even, _mm256_loadu_si256(weight)),
                                      _mm256_madd_epi16(odd, _mm256_loadu_si256(weight + 2)));
  const __m256i hi = _mm256_add_epi32(_mm256_madd_epi16(even, _mm256_loadu_si256(weight + 1)),
                                      _mm256_madd_epi16(odd, _mm256_loadu_si256(weight + 3)));
  sums->lo = _mm256_add_epi32(sums->lo, lo);
  sums->hi = _mm256_add_epi32(sums->hi, hi);
}

/* Products in 32 bits, for operands too large for bf_tile_short. */
BF_INLINE void bf_tile_wide(const bf_step *restrict step, uint8_t *restrict arena,
                            const bf_tile_place *restrict place) {
  const __m256i zero = _mm256_setzero_si256();
  const __m256i *weight = place->panel;
  bf_pair sums[BF_AVX2_PIXELS] = {{zero, zero}, {zero, zero}, {zero, zero}, {zero, zero}};
  for (size_t s = 0; s < step->num_segments; s++) {
    const size_t offset = step->segments[s].offset;
    for (size_t q = 0; q < step->segments[s].num_quads; q++) {
      const size_t at = offset + 4 * q;
      bf_add_wide_quad(bf_broadcast_quad(place->windows[0] + at), weight, &sums[0]);
      bf_add_wide_quad(bf_broadcast_quad(place->windows[1] + at), weight, &sums[1]);
      bf_add_wide_quad(bf_broadcast_quad(place->windows[2] + at), weight, &sums[2]);
      bf_add_wide_quad(bf_broadcast_quad(place->windows[3] + at), weight, &sums[3]);
      weight += 4;
    }
  }
  bf_finish_tile(step, arena, place, sums);
}

#endif
