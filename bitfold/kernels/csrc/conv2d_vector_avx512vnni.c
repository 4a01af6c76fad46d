/* One output pixel from the whole input: weights of 2 or 4 bits stay packed; vpdpbusd, any width.
 */
#include "generic/conv2d_vector.h"
#include "isa/avx512.h"

/* One pixel of at most 16 lanes. */
BF_INLINE void bf_finish_lanes(const bf_step *step, uint8_t *arena, const int32_t *acc, size_t lane,
                               size_t count) {
  const bf_rows rows = {
      .acc = acc, .stride = BF_LANES, .num_pixels = 1, .lane = lane, .count = count, .at = lane};
  bf_finish_rows(step, arena, &rows);
}

BF_INLINE __m512i bf_broadcast_word(const uint8_t *p) {
  int32_t word;
  memcpy(&word, p, sizeof word);
  return _mm512_set1_epi32(word);
}

BF_INLINE __m512i bf_load_codes(const int8_t *p) { return _mm512_loadu_si512((const void *)p); }

/* sum + x·w. In assembly because gcc 12 copies sums to which intrinsics add in these loops. */
BF_INLINE __m512i bf_dot_to(__m512i sum, __m512i x, __m512i w) {
#if defined(BF_EMULATE_AVX512)
  return _mm512_dpbusd_epi32(sum, x, w);
#else
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));
  return sum;
#endif
}

/* 32 channels, even and odd steps of the input in sums of their own. */
BF_INLINE void bf_dot_bytes(const bf_vector *constants, const uint8_t *restrict x,
                            const int8_t *restrict panel, __m512i *restrict sums) {
  __m512i lo = _mm512_setzero_si512(), hi = lo, lo_odd = lo, hi_odd = lo;
  size_t i = 0;
  for (; i + 2 <= constants->num_groups; i += 2) {
    const __m512i even = bf_broadcast_word(x + 4 * i), odd = bf_broadcast_word(x + 4 * i + 4);
    lo = bf_dot_to(lo, even, bf_load_codes(panel));
    hi = bf_dot_to(hi, even, bf_load_codes(panel + 64));
    lo_odd = bf_dot_to(lo_odd, odd, bf_load_codes(panel + 128));
    hi_odd = bf_dot_to(hi_odd, odd, bf_load_codes(panel + 192));
    panel += 2 * BF_GROUP_BYTES;
  }
  if (i < constants->num_groups) {
    const __m512i even = bf_broadcast_word(x + 4 * i);
    lo = bf_dot_to(lo, even, bf_load_codes(panel));
    hi = bf_dot_to(hi, even, bf_load_codes(panel + 64));
  }
  sums[0] = _mm512_add_epi32(lo, lo_odd);
  sums[1] = _mm512_add_epi32(hi, hi_odd);
}

typedef uint16_t bf_words32 __attribute__((vector_size(64)));

/* Field j of every byte, of `bits` bits. */
BF_INLINE __m512i bf_field(__m512i packed, const int j, const int bits) {
  const __m512i shifted = (__m512i)((bf_words32)packed >> j * bits);
  return _mm512_and_si512(shifted, _mm512_set1_epi8((char)((1 << bits) - 1)));
}

/* The same from fields of 2 or 4 bits. */
BF_INLINE void bf_dot_indices(const bf_vector *constants, const uint8_t *restrict x,
                              const int8_t *restrict panel, __m512i *restrict sums,
                              const int bits) {
  __m512i lo = _mm512_setzero_si512(), hi = lo, lo_odd = lo, hi_odd = lo;
  for (size_t i = 0; i < constants->num_groups; i++) {
    const __m512i w_lo = bf_load_codes(panel), w_hi = bf_load_codes(panel + 64);
    for (int j = 0; j < 8 / bits; j += 2) {
      const __m512i even = bf_broadcast_word(x + 4 * j), odd = bf_broadcast_word(x + 4 * j + 4);
      lo = bf_dot_to(lo, even, bf_field(w_lo, j, bits));
      hi = bf_dot_to(hi, even, bf_field(w_hi, j, bits));
      lo_odd = bf_dot_to(lo_odd, odd, bf_field(w_lo, j + 1, bits));
      hi_odd = bf_dot_to(hi_odd, odd, bf_field(w_hi, j + 1, bits));
    }
    x += 32 / bits;
    panel += BF_GROUP_BYTES;
  }
  sums[0] = _mm512_add_epi32(lo, lo_odd);
  sums[1] = _mm512_add_epi32(hi, hi_odd);
}

BF_INLINE void bf_dot_vnni(const bf_step *restrict step, const uint8_t *restrict x,
                           const int8_t *restrict panel, int32_t *restrict dots) {
  const bf_vector *constants = step->extra;
  __m512i sums[2];
  if (constants->bits == 8) {
    bf_dot_bytes(constants, x, panel, sums);
  } else if (constants->bits == 4) {
    bf_dot_indices(constants, x, panel, sums, 4);
  } else {
    bf_dot_indices(constants, x, panel, sums, 2);
  }
  _mm512_storeu_si512((void *)dots, sums[0]);
  _mm512_storeu_si512((void *)(dots + 16), sums[1]);
}

void bf_conv2d_vector__avx512vnni(const bf_step *restrict step, uint8_t *restrict arena,
                                  const bf_share *restrict share);

void bf_conv2d_vector__avx512vnni(const bf_step *restrict step, uint8_t *restrict arena,
                                  const bf_share *restrict share) {
  bf_multiply_panels(step, arena, share, arena + step->x, bf_dot_vnni, bf_finish_lanes);
}
